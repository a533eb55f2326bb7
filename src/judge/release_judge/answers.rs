//! What answers mean that are not as they were at the release before: far less content, or far slower.

use crate::judge::attribution::Blame;
use crate::judge::call_comparison::{CallComparison, StrongestCall};
use crate::judge::release_judge::Judge;
use crate::judge::release_judge::verdict::Found;
use crate::judge::slo::Indicator;
use crate::model::{
    Basis, Comparison, ComparisonRule, Finding, Moment, ObjectiveNumbers, Rule, Severity,
};

impl Judge {
    /// The call whose answers differ most plainly. None while the other release does the same: then it is
    /// nothing that the deploy did, and no objective is broken.
    pub(super) fn found_different(&self, now: Moment) -> Option<Found> {
        let answers = self.calls.iter().filter(|it| it.indicator() != Indicator::ClientFaults);
        let found = answers.filter_map(|calls| self.difference(now, calls));
        found.max_by_key(|found| matches!(found.finding, Finding::Breach(_)))
    }

    fn difference(&self, now: Moment, calls: &CallComparison) -> Option<Found> {
        let (StrongestCall { call, process }, proven_at) = calls.broken()?;
        let about = calls.indicator();
        // What one user asks is not what all others ask.
        if self.sources.worst_source(about).is_some() && !process.is_broken_without_worst() {
            return None;
        }
        let acts = self.leads_to_rollback(about);
        let (finding, comparison) = match self.attribution.blame(now, about, proven_at) {
            Blame::Deploy(why) if acts && is_enough(about, &why) => {
                (Finding::Breach(Severity::Degraded), why)
            }
            Blame::Deploy(why) | Blame::Undetermined(why) => (Finding::Differs, why),
            Blame::Measuring(why) if acts => (Finding::Measuring, why),
            Blame::Measuring(_) | Blame::Shared(_) => return None,
        };
        let numbers = ObjectiveNumbers {
            allowed_as_before: true,
            ..process.all().numbers(&calls.describe(call))
        };
        let bound = calls.bound(call).unwrap_or_default();
        let because = format!("{numbers}; {bound}; {comparison}");
        let basis = Basis {
            objective: Some(numbers),
            comparison: Some(comparison),
            ..Basis::of(Rule::BrokenObjective)
        };
        let onset = process.all().onset();
        Some(Found { finding, because, basis: Some(basis), onset, failure_rate_lower: 0.0 })
    }
}

/// A database that is slow makes each release slow, and probes do not show it: only requests that the other
/// release answers at the same time do.
fn is_enough(about: Indicator, why: &Comparison) -> bool {
    let is_measured = matches!(why.rule, ComparisonRule::Evidence | ComparisonRule::FailsLess);
    about != Indicator::SlowerAnswers || is_measured
}
