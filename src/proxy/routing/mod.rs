//! Decides which release gets a request.

pub(super) mod assignment;
mod migrate;
pub(super) mod request_states;
pub(super) mod router;
pub(super) mod routing_table;
mod subject;
pub(super) mod view;
