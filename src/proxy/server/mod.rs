//! Connections of clients: accepted, counted, and closed in stages.

pub(super) mod accept;
pub(super) mod connections;
