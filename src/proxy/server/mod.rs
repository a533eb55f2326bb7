//! Client connections: accepted, tracked, and closed in stages.

pub(super) mod accept;
pub(super) mod connections;
