//! The evidence about one objective.

use crate::judge::beta;
use crate::judge::e_process::EProcess;
use crate::judge::slo::{Indicator, Objective, SloSettings};
use crate::judge::split_process::SplitProcess;
use crate::model::{History, Moment, ObjectiveNumbers};

/// A release before that failed more than this excuses nothing further.
const RELAXED_MAX: f64 = 0.4;

/// The evidence about one objective.
#[derive(Debug, Clone)]
pub(super) struct ObjectiveEvidence {
    pub(super) indicator: Indicator,
    pub(super) process: SplitProcess,
    /// Since when the evidence is enough.
    pub(super) broken_since: Option<Moment>,
    /// Whether more is allowed than configured, because the release before failed as much.
    relaxed: bool,
}

/// What a release may fail. It is not blamed for what the one before did, too: where that broke the
/// objective, the new one has to be clearly worse, by the smallest effect that is worth a rollback.
/// `before` has its requests of the last hour, and the bad ones. More than `budget`: it is relaxed.
pub(super) fn allowed_rate(budget: f64, min_effect: f64, (n, bad): (u64, u64)) -> f64 {
    let baseline_rate = min_effect * beta::upper_bound(bad, n, 0.05);
    let is_broken = budget < beta::lower_bound(bad, n, 0.05) && budget < baseline_rate;
    if is_broken { baseline_rate.min(RELAXED_MAX).max(budget) } else { budget }
}

impl ObjectiveEvidence {
    /// No evidence yet; `history` is that of the release before.
    pub(super) fn new(
        objective: &Objective,
        alpha: f64,
        limits: &SloSettings,
        history: &History,
    ) -> Self {
        let Objective { indicator, error_budget: budget, .. } = *objective;
        let before = indicator.count(&history.last_hour);
        let p0 = allowed_rate(budget, limits.min_effect, before);
        let process = SplitProcess::new(EProcess::new(p0, alpha, limits));
        Self { indicator, process, broken_since: None, relaxed: budget < p0 }
    }

    /// Takes in one block of `n` requests, `bad` of them bad; `left_out` is the part of the source that fails
    /// most.
    pub(super) fn update(
        &mut self,
        now: Moment,
        (start, ms): (Moment, u32),
        counts: (u64, u64),
        left_out: Option<(u64, u64)>,
    ) {
        self.process.update(start, ms, counts, left_out);
        let is_broken = self.process.all().is_broken();
        self.broken_since = is_broken.then(|| self.broken_since.unwrap_or(now));
    }

    /// Its numbers since the onset.
    pub(super) fn numbers(&self) -> ObjectiveNumbers {
        let numbers = self.process.all().numbers(self.indicator.name());
        ObjectiveNumbers { allowed_as_before: self.relaxed, ..numbers }
    }
}
