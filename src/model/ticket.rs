use serde::{Deserialize, Serialize};

/// Numbers the effects of one service. It tells a late answer to an old decision apart, and
/// the proxy refuses any ticket older than the newest that it has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);
