//! What is known of the protocol itself, whoever speaks it: a prober or the proxy.

pub(super) mod message;
pub(super) mod messages;
pub(super) mod outcome;
pub(super) mod scan;
mod session_lost;
pub(super) mod sse;
pub(super) mod sse_splitter;
pub(super) mod ttl_clamp;

pub use session_lost::{Answered, Said, session_lost};
