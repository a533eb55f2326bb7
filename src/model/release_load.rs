use serde::{Deserialize, Serialize};

/// What a release carries at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseLoad {
    /// Live sessions, of both eras.
    pub sessions: u64,
    /// Of those, the ones that cannot migrate to another release.
    #[serde(default)]
    #[serde(alias = "bound")]
    pub pinned: u64,
    /// Open requests, without streams that only listen.
    pub in_flight: u64,
    /// Requests a second.
    #[serde(alias = "rate")]
    pub request_rate: f64,
    /// The mean duration of a session, in seconds.
    #[serde(alias = "life")]
    pub mean_session_s: f64,
}
