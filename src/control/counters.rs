//! Counters of a service since the daemon started, for its status and the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets in seconds: from one disk write to a whole rollback.
pub const HISTOGRAM_BOUNDS: [f64; 10] =
    [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 120.0];

/// The counters of one service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Lines of the timeline, by kind.
    pub events: BTreeMap<String, u64>,
    /// Rollbacks that began as a drain.
    pub drains: u64,
    /// Rollbacks that began as a cut.
    pub cuts: u64,
    /// Rollbacks among both that an operator ordered.
    #[serde(alias = "ordered")]
    pub operator_ordered: u64,
    /// Rollbacks that a guard blocked, by guard.
    pub blocked: BTreeMap<String, u64>,
    /// The duration of each step of a rollback, by the milestone at its end.
    #[serde(alias = "steps")]
    pub rollback_steps: BTreeMap<String, Histogram>,
    /// The duration of each write of a timeline event to disk.
    #[serde(alias = "writes")]
    pub timeline_writes: Histogram,
    /// Events that could not be written.
    #[serde(alias = "write_failures")]
    pub timeline_write_failures: u64,
}

/// A histogram of durations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Durations up to each of [`HISTOGRAM_BOUNDS`], and longer than the bound before.
    #[serde(alias = "within")]
    pub buckets: [u64; HISTOGRAM_BOUNDS.len()],
    /// Number of durations.
    pub count: u64,
    /// Their sum, in seconds.
    pub sum_s: f64,
    /// The last one, in seconds.
    pub last_s: f64,
    /// The longest one, in seconds.
    #[serde(alias = "longest_s")]
    pub max_s: f64,
}

impl Histogram {
    /// Adds a duration.
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
