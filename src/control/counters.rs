//! What happened to a service since the daemon started: what a status sums up, and what metrics
//! are made of.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds in seconds: from one write to a disk up to a whole rollback.
pub const HISTOGRAM_BOUNDS: [f64; 10] =
    [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 120.0];

/// Everything that only grows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Lines of the timeline, by kind.
    pub events: BTreeMap<String, u64>,
    /// Rollbacks that began as a drain.
    pub drains: u64,
    /// Rollbacks that began as a cut.
    pub cuts: u64,
    /// Of both, those that a person ordered.
    #[serde(alias = "ordered")]
    pub operator_ordered: u64,
    /// Verdicts that a guard kept from becoming a rollback, by guard.
    pub blocked: BTreeMap<String, u64>,
    /// How long each step of a rollback took, by the milestone at its end.
    #[serde(alias = "steps")]
    pub rollback_steps: BTreeMap<String, Histogram>,
    /// How long it took until a line of the timeline was on disk.
    #[serde(alias = "writes")]
    pub timeline_writes: Histogram,
    /// Lines that could not be written.
    #[serde(alias = "write_failures")]
    pub timeline_write_failures: u64,
}

/// How a duration was spread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How often it was at most as long as each of [`HISTOGRAM_BOUNDS`], and longer than the one before.
    #[serde(alias = "within")]
    pub buckets: [u64; HISTOGRAM_BOUNDS.len()],
    /// How often it was measured.
    pub count: u64,
    /// The sum, in seconds.
    pub sum_s: f64,
    /// The last one, in seconds.
    pub last_s: f64,
    /// The longest one, in seconds.
    #[serde(alias = "longest_s")]
    pub max_s: f64,
}

impl Histogram {
    /// Takes one in.
    pub fn record(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bound = HISTOGRAM_BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = bound.and_then(|bound| self.buckets.get_mut(bound)) {
            *count += 1;
        }
        self.count += 1;
        self.sum_s += seconds;
        self.last_s = seconds;
        self.max_s = self.max_s.max(seconds);
    }
}
