//! Client connections: accepted, tracked, and closed in stages.

pub(super) mod accept;
mod answers;
mod client_stream;
pub(super) mod connections;
mod places;
