//! What is known of the protocol itself, whoever speaks it: a prober or the proxy.

mod session_lost;

pub use session_lost::{Answered, Said, session_lost};
