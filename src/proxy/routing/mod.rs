//! Which release a request goes to.

pub(super) mod request_states;
pub(super) mod router;
pub(super) mod routing_table;
