use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::block_sources::BlockSources;
use crate::model::outcome::{CallKey, Counts};
use crate::model::release::ReleaseNumber;
use crate::model::trial::{RampStep, TrialCell};
use crate::model::usual_answers::UsualAnswers;

/// One observation of a release, exactly as it came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// The release that was seen.
    pub release: ReleaseNumber,
    /// What was seen.
    #[serde(rename = "seen")]
    pub observation: Observation,
}

/// What can be seen of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// The requests that ended within a block of time, in milliseconds: 250 from the proxy.
    Block(u32, Counts),
    /// Which sources the failures of the next block come from.
    Sources(BlockSources),
    /// The same by method and tool, over the last second; calls without requests are left out.
    Calls(Vec<(CallKey, Counts)>),
    /// Shadow calls that ended on this release: requests that failed on the release on trial,
    /// repeated here; how many, and how many of them failed here too.
    Shadow(u64, u64),
    /// Its own counters were read, or could not be.
    Scraped(ScrapeResult),
    /// The result of a probe.
    Probe(ProbeResult),
    /// Its process exited; how.
    Exited(String),
    /// Requests by subject, call and second of their start, of both arms of the trial.
    Cells(Vec<TrialCell>),
    /// Subjects and calls that mostly failed on the old release before the trial: no evidence.
    KnownFailing(Vec<(u64, u64)>),
    /// A step of the ramp begins.
    Step(RampStep),
    /// It starts, and may take this many milliseconds to answer.
    Starting(StartCause, u32),
}

/// Why a release starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartCause {
    /// Not its own fault: the host booted, the daemon started, or a person started it again.
    External,
    /// It exited and is started again: requests that fail meanwhile are its own.
    Exit,
}

/// What the release that was active before a deploy had done, when its trial opens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Its last hour, or as much of it as was seen.
    #[serde(rename = "hour")]
    pub last_hour: Counts,
    /// Its worst five minutes of that hour: requests, and server faults among them.
    #[serde(rename = "worst")]
    pub worst_five_minutes: (u64, u64),
    /// Everything since it was added, by method and tool.
    pub calls: Vec<(CallKey, Counts)>,
    /// What its answers usually were, by method and tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usual_answers: Vec<(CallKey, UsualAnswers)>,
}

/// What reading a release's own counters gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrapeResult {
    /// The counters as they stood: all requests, the bad ones, and when the process began (seconds
    /// since 1970), where it exposes that.
    Sample {
        /// All requests so far.
        total: f64,
        /// The bad ones among them.
        bad: f64,
        /// `process_start_time_seconds`.
        started: Option<f64>,
        /// Whether the counter of the bad ones is not there yet: many servers create it with the
        /// first error. Then `bad` is 0.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        bad_missing: bool,
    },
    /// No answer, or an unexpected one; what.
    Down(String),
    /// A counter was not a number: nothing to divide by, or marked as stale.
    NotANumber,
    /// The counters were not there.
    Missing,
    /// The sample was older than a scrape may be, in seconds.
    Stale(u64),
    /// A selector names no counter of requests: what it names, and which metric may be meant.
    WrongMetric(String),
}

/// How a release answered a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeResult {
    /// In time, and as expected.
    Ok,
    /// Not in time.
    #[serde(alias = "late")]
    TimedOut,
    /// Connection refused.
    Refused,
    /// Another answer than the probe expects; what.
    #[serde(alias = "wrong")]
    Unexpected(String),
}

impl ProbeResult {
    /// Whether the release passed.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok)
    }
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Refused => f.write_str("connection refused"),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}
