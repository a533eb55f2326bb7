//! The evidence about one objective.

use crate::judge::beta;
use crate::judge::e_process::EProcess;
use crate::judge::slo::{Indicator, Objective, SloSettings};
use crate::judge::split_process::SplitProcess;
use crate::model::{History, Moment, ObjectiveNumbers};

/// A release before that failed more than this excuses its own rate, and nothing further.
const RELAXED_MAX: f64 = 0.4;
/// A rate at which a release that fails everything is no worse.
const RATE_MAX: f64 = 0.99;

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
    let usual = beta::upper_bound(bad, n, 0.05);
    let baseline_rate = min_effect * usual;
    let is_broken = budget < beta::lower_bound(bad, n, 0.05) && budget < baseline_rate;
    // What was usual is allowed, however much that is.
    let relaxed = baseline_rate.min(RELAXED_MAX).max(usual.min(RATE_MAX));
    if is_broken { relaxed.max(budget) } else { budget }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Counts;

    /// The second in which a release is found in breach of which 20 requests a second come and `now` of 100
    /// have isError, after one that had `before` of 100.
    fn found_at(before: u64, now: u64) -> Option<u64> {
        let counts = |n, bad| Counts { ok: n - bad, tool_fault: bad, ..Counts::default() };
        let history = History { last_hour: counts(1_000, 10 * before), ..History::default() };
        let limits = SloSettings::default();
        let tools = Objective { indicator: Indicator::Tools, error_budget: 0.05, weight: 1.0 };
        let mut evidence = ObjectiveEvidence::new(&tools, 1e-4, &limits, &history);
        (0..600).find(|second| {
            let bad = (second + 1) * now / 5 - second * now / 5;
            let start = Moment(second * 1_000);
            evidence.update(Moment(start.0 + 1_000), (start, 1_000), (20, bad), None);
            evidence.broken_since.is_some()
        })
    }

    #[test]
    fn what_was_usual_is_allowed_however_much_it_was() {
        for usual in [1, 4, 20, 40, 60, 75, 90, 100] {
            assert_eq!(found_at(usual, usual), None, "{usual} % as before");
        }
        for (before, now) in [(0, 20), (10, 60), (20, 90), (45, 100), (60, 100)] {
            let at = found_at(before, now);
            assert!(at.is_some_and(|at| at < 60), "{before} %, {now} % now: {at:?}");
        }
    }
}
