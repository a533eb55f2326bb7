//! Client connections: accepted, tracked, and closed in stages.

pub(super) mod accept;
mod admission;
mod answers;
pub(super) mod bound_watch;
mod client_stream;
pub(super) mod connections;
pub(super) mod places;
