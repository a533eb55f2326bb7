use serde::{Deserialize, Serialize};

/// The release that a subject is assigned to while two are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// The release that was accepted before.
    Control,
    /// The release on trial.
    Trial,
}

/// Requests of one subject for one call that started in the same second, or news about them.
///
/// Reports about the same cell add up. A request counts in the second in which it started, whenever
/// its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialCell {
    /// The arm of the subject at the start of the requests.
    pub arm: Arm,
    /// A keyed hash of the subject, uniform in 64 bits. It is also the subject's coin: divided by
    /// 2^64 it is below the share of the step for those on trial.
    pub subject: u64,
    /// A hash of the call: its method, and the tool or prompt.
    pub call: u64,
    /// The second in which the requests started, on the daemon's clock.
    pub second: u64,
    /// Requests that started.
    pub started: u32,
    /// Requests that are now known to be a fault of the release.
    pub failed: u32,
    /// Requests that are now known to be no evidence: the client's fault, or neither side's.
    pub excused: u32,
}
