//! The end of a rollback: the previous release meets its objectives again, or was not seen to.

use crate::decide::phase::Phase;
use crate::decide::watch::Watch;
use crate::model::{Decision, Effect, Moment, ReleaseNumber, TimelineEvent};

impl Watch {
    /// `because` is the rest of a sentence about the release.
    pub(super) fn on_recovered(
        &self,
        now: Moment,
        number: ReleaseNumber,
        because: &str,
    ) -> Option<Decision> {
        match &self.phase {
            Phase::Recovering { active, .. } if active.number == number => {
                let because = format!("{active} {because}");
                Some(self.decide(now, TimelineEvent::Recovered, because))
            }
            _ => None,
        }
    }

    /// The time for it is over; `found` says what it failed last.
    pub(super) fn on_not_recovered(&self, now: Moment, found: &str) -> Option<Decision> {
        let Phase::Recovering { active, .. } = &self.phase else { return None };
        let because = format!("{active} has the traffic but does not meet its objectives: {found}");
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, TimelineEvent::Unrecovered, because);
        decision.effects.push(page);
        Some(decision)
    }
}
