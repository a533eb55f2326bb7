//! Whether there is evidence that a release meets its objectives, not merely none against it.

use crate::judge::beta;
use crate::judge::slo::{Indicator, Objective, SloSettings};
use crate::model::Counts;

/// The upper bound of the failure rate is exceeded with this probability.
const TAIL: f64 = 0.05;

/// The upper 95 % bound of the failure rate, against the smallest rate that is worth a rollback.
#[derive(Debug, Clone)]
pub(super) struct Verification {
    rate_worth_rollback: f64,
    verified: bool,
    /// Requests so far, and bad ones.
    counts: (u64, u64),
    /// The same when the bound was computed last.
    last_counts: (u64, u64),
}

impl Verification {
    /// None without an objective for availability.
    pub(super) fn new(limits: &SloSettings) -> Option<Self> {
        let availability = |it: &&Objective| it.indicator == Indicator::Availability;
        let objective = limits.objectives.iter().find(availability)?;
        let rate_worth_rollback = objective.error_budget * limits.min_effect;
        Some(Self { rate_worth_rollback, verified: false, counts: (0, 0), last_counts: (0, 0) })
    }

    /// Takes the requests of a block. The bound is expensive: it is computed after a bad request, or
    /// one request in a hundred.
    pub(super) fn update(&mut self, counts: &Counts) {
        let (n, bad) = Indicator::Availability.count(counts);
        self.counts = (self.counts.0.saturating_add(n), self.counts.1.saturating_add(bad));
        let (n, bad) = self.counts;
        let (n_before, bad_before) = self.last_counts;
        if bad == bad_before && n < n_before.saturating_add(n_before / 100).saturating_add(1) {
            return;
        }
        self.last_counts = (n, bad);
        let possible = (bad as f64) < self.rate_worth_rollback * n as f64;
        self.verified = possible && beta::upper_bound(bad, n, TAIL) <= self.rate_worth_rollback;
    }

    /// Whether the bound lies below the rate that is worth a rollback.
    pub(super) fn is_verified(&self) -> bool {
        self.verified
    }
}
