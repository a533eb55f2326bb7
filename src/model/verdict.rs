use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::basis::Basis;
use crate::model::moment::Moment;
use crate::model::release::ReleaseNumber;

/// What the judge makes of the signals about one release, and the numbers behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The release on trial.
    pub release: ReleaseNumber,
    /// What was found.
    pub finding: Finding,
    /// What was found, in a sentence with its numbers.
    pub because: String,
    /// The rule that decided, and its numbers; None without a breach, and before 0.2.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Box<Basis>>,
    /// When the trouble began, by the evidence.
    pub onset: Moment,
    /// Lower 5 % bound of the failure rate since then, 0 to 1.
    #[serde(alias = "failing")]
    pub failure_rate_lower: f64,
    /// Requests a second since then.
    #[serde(alias = "rate")]
    pub request_rate: f64,
}

/// The kinds of verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "severity")]
pub enum Finding {
    /// Too little traffic for a verdict.
    Undecided,
    /// No evidence against the release.
    Healthy,
    /// The release violates an objective.
    Breach(Severity),
    /// The release fails, and the warm one fails too: not the deploy's fault.
    SharedOutage,
    /// The release violates an objective; the comparison with the warm release is under way.
    Measuring,
    /// The release violates an objective; the cause is unknown.
    Unattributed,
    /// The release violates an objective for one user only; others are served.
    OneUser,
    /// The release answers, but far slower than the one before, or with far less content, and that is not
    /// enough for a rollback.
    Differs,
    /// A required source reports no data about the release.
    NoData,
}

/// How bad a breach is, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It violates an objective, but answers most requests.
    Degraded,
    /// At least half of the requests fail.
    Critical,
    /// It does not answer: dead, crash-looping, or three probes failed in a row.
    Down,
}

/// How far the evidence against a release has come, for a status line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The objective with the strongest evidence against the release.
    pub objective: String,
    /// Its e-value now.
    #[serde(alias = "e")]
    pub e_value: f64,
    /// The e-value that makes a verdict.
    pub threshold: f64,
    /// Requests judged since the trial began.
    pub judged: u64,
    /// Of those, how many were bad for that objective.
    pub bad: u64,
}

impl Evidence {
    /// How far it is from nothing (0) to a verdict (1), on the scale on which evidence adds up.
    pub fn progress(&self) -> f64 {
        if self.e_value <= 1.0 || self.threshold <= 1.0 {
            return 0.0;
        }
        (self.e_value.ln() / self.threshold.ln()).min(1.0)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecided => f.write_str("undecided"),
            Self::Healthy => f.write_str("healthy"),
            Self::Breach(severity) => severity.fmt(f),
            Self::SharedOutage => f.write_str("shared outage"),
            Self::Measuring => f.write_str("measuring"),
            Self::Unattributed => f.write_str("unattributed"),
            Self::OneUser => f.write_str("failing for one user"),
            Self::Differs => f.write_str("answering differently"),
            Self::NoData => f.write_str("without data"),
        }
    }
}
