use std::fmt;

use serde::{Deserialize, Serialize};

/// How the traffic leaves a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// New work goes elsewhere at once; work in flight may finish, for a limited time.
    Drain,
    /// Everything leaves at once; open requests are answered with an error for their id.
    Cut,
}

/// Why a rollback drains or cuts, with the numbers that decided.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
pub enum StrategyReason {
    /// An operator chose.
    Ordered,
    /// The release does not answer, so a drain saves nothing.
    Down,
    /// At least half of the requests fail.
    MostRequestsFail {
        /// Lower 5 % bound of the failure rate since the onset, 0 to 1.
        failure_rate_lower: f64,
    },
    /// The way that fails fewer requests.
    FewerFailures(ExpectedFailures),
}

/// What a drain and what a cut would cost, in failed requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExpectedFailures {
    /// Requests that would fail in a drain.
    pub drain: f64,
    /// Requests that a cut would fail, with the broken sessions at `session_cost` each.
    pub cut: f64,
    /// Open requests, which a cut loses.
    pub in_flight: u64,
    /// Sessions that cannot migrate.
    pub pinned_sessions: u64,
    /// Of those, how many would end by themselves in the time of the drain.
    pub ending_sessions: f64,
    /// What a broken session counts, in failed requests.
    pub session_cost: f64,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "drain",
            Self::Cut => "cut",
        })
    }
}

impl fmt::Display for StrategyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordered => f.write_str("as requested"),
            Self::Down => f.write_str("it does not answer"),
            Self::MostRequestsFail { failure_rate_lower } => {
                let percent = 100.0 * failure_rate_lower;
                write!(f, "at least {percent:.0} % of its requests fail, limit 50 %")
            }
            Self::FewerFailures(expected) => expected.fmt(f),
        }
    }
}

impl fmt::Display for ExpectedFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected failures: drain {:.0}, cut {:.0}", self.drain, self.cut)
    }
}
