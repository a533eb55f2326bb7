use std::fmt;

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

/// A step of a ramp: the part of the subjects that is on trial, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RampStep {
    /// Its number, from 1.
    pub step: u32,
    /// How many steps the ramp has.
    pub of: u32,
    /// The share of subjects, as configured.
    pub share_ppm: u32,
    /// Subjects whose coin is below this are on trial: the share, or what it takes to have a few
    /// subjects on each side.
    pub below_ppm: u32,
}

/// All subjects, in parts per million.
pub const WHOLE_PPM: u32 = 1_000_000;

impl RampStep {
    /// The bound of the coins on trial, 0 to 1.
    pub fn below(self) -> f64 {
        f64::from(self.below_ppm) / f64::from(WHOLE_PPM)
    }

    /// Whether a subject is on trial.
    pub fn includes(self, subject: u64) -> bool {
        coin_ppm(subject) < self.below_ppm
    }

    /// Whether it is the last one.
    pub fn is_last(self) -> bool {
        self.of <= self.step
    }
}

impl fmt::Display for RampStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = f64::from(self.share_ppm) / 10_000.0;
        write!(f, "{percent} % of the users (step {} of {})", self.step, self.of)
    }
}

/// The coin of a subject, from 0 to below 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a float")]
pub fn coin(subject: u64) -> f64 {
    (subject >> 11) as f64 / (1_u64 << 53) as f64
}

/// The coin of a subject in parts per million, rounded down.
pub fn coin_ppm(subject: u64) -> u32 {
    let part = (u128::from(subject) * u128::from(WHOLE_PPM)) >> 64;
    u32::try_from(part).unwrap_or(WHOLE_PPM)
}

/// The number of a call in [`TrialCell`]: FNV-1a of its method, and of the tool or prompt, in 32 bits.
/// Resources share one: their names are unbounded.
pub fn call_number(method: &str, name: &str) -> u64 {
    let name = if method.starts_with("resources/") { "" } else { name };
    let bytes = method.bytes().chain([0]).chain(name.bytes());
    let hash = bytes
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u64::from(hash)
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
    /// A keyed hash of the client: the credentials, else the address. A client may have many sessions,
    /// and no client counts for more than one witness. Where the client is the subject, they are equal.
    #[serde(default)]
    pub client: u64,
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
