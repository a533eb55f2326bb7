//! The unit of time in which the proxy reports outcomes.

use std::time::Duration;

/// The length of one block of outcomes from the proxy.
pub const BLOCK: Duration = Duration::from_millis(BLOCK_MS as u64);
/// The same, in milliseconds.
pub const BLOCK_MS: u32 = 250;
