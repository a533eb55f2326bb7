//! A breach of the release that has the traffic after its bake: it pages the operator. With
//! `after_bake = "act"` it is rolled back.

use std::time::Duration;

use crate::decide::after_bake::{AfterBake, SteadyWatch};
use crate::decide::phase::Phase;
use crate::decide::watch::Watch;
use crate::model::{
    Decision, Effect, Finding, Guard, JudgeTarget, Moment, Release, ReleaseLoad, TimelineEvent,
    Trigger, Verdict,
};

/// A breach is over no sooner than this: trouble that comes and goes pages a few times an hour at most.
const BREACH_MIN: Duration = Duration::from_mins(5);

impl Watch {
    /// The releases that the judge observes.
    pub fn judge_target(&self) -> JudgeTarget {
        match &self.phase {
            Phase::Steady { active, warm, watch: SteadyWatch::On | SteadyWatch::Breach { .. } }
                if self.policy.after_bake != AfterBake::Off =>
            {
                let warm = warm.as_ref().map(|warm| warm.number);
                JudgeTarget::AfterBake { active: active.number, warm }
            }
            phase => phase.judge_target(),
        }
    }

    /// A release is watched after its bake.
    pub(super) fn after_bake_transition(&self, now: Moment, fact: &TimelineEvent) -> Option<Phase> {
        let Phase::Steady { active, warm, watch } = &self.phase else { return None };
        let watch = match (fact, watch) {
            (TimelineEvent::Blocked { guard, .. }, _) => {
                SteadyWatch::Breach { guard: *guard, since: now }
            }
            // Its evidence starts again, and needs time.
            (TimelineEvent::Restored { .. }, SteadyWatch::Breach { guard, .. }) => {
                SteadyWatch::Breach { guard: *guard, since: now }
            }
            (
                TimelineEvent::Cleared | TimelineEvent::Resumed { .. },
                SteadyWatch::Breach { .. },
            ) => SteadyWatch::On,
            _ => return None,
        };
        Some(Phase::Steady { active: active.clone(), warm: warm.clone(), watch })
    }

    /// A verdict on the release that has the traffic, after its bake.
    pub(super) fn on_verdict_after_bake(
        &self,
        now: Moment,
        verdict: &Verdict,
        load: &ReleaseLoad,
    ) -> Option<Decision> {
        let Phase::Steady { active, watch, .. } = &self.phase else { return None };
        let is_watched = self.policy.after_bake != AfterBake::Off && *watch != SteadyWatch::Off;
        if active.number != verdict.release || !is_watched {
            return None;
        }
        match (verdict.finding, watch) {
            (Finding::Breach(_) | Finding::SharedOutage | Finding::Unattributed, _) => {
                self.on_breach_after_bake(now, verdict, load)
            }
            // One user that fails is no news about a release that was accepted.
            (
                Finding::Healthy
                | Finding::Undecided
                | Finding::NoData
                | Finding::OneUser
                | Finding::Differs,
                SteadyWatch::Breach { since, .. },
            ) if BREACH_MIN <= now.since(*since) => {
                let because = format!("the breach after the bake is over: {}", verdict.because);
                Some(self.decide(now, TimelineEvent::Cleared, because))
            }
            _ => None,
        }
    }

    fn on_breach_after_bake(
        &self,
        now: Moment,
        verdict: &Verdict,
        load: &ReleaseLoad,
    ) -> Option<Decision> {
        let Phase::Steady { active, warm, watch } = &self.phase else { return None };
        let found = &verdict.because;
        let because = match verdict.finding {
            Finding::SharedOutage => format!("both releases fail after the bake: {found}"),
            Finding::Unattributed => format!("{active} fails after its bake: {found}"),
            finding => format!("{active} is {finding} after its bake: {found}"),
        };
        let Some(guard) = self.guard_after_bake(now, verdict, warm.as_ref()) else {
            let trigger = Trigger::Verdict(Box::new(verdict.clone()));
            return Some(self.decide(
                now,
                TimelineEvent::Detected { trigger, load: *load },
                because,
            ));
        };
        if matches!(watch, SteadyWatch::Breach { .. }) {
            return None;
        }
        let because = match guard {
            Guard::SharedOutage | Guard::AfterBake => format!("{because}; no rollback"),
            _ => format!("{because}; no rollback: {guard}"),
        };
        let page = Effect::Page(because.clone());
        let verdict = verdict.clone();
        let mut decision = self.decide(now, TimelineEvent::Blocked { guard, verdict }, because);
        if !self.policy.observe {
            decision.effects.push(page);
        }
        Some(decision)
    }

    /// Why a breach after the bake does not lead back.
    fn guard_after_bake(
        &self,
        now: Moment,
        verdict: &Verdict,
        warm: Option<&Release>,
    ) -> Option<Guard> {
        if verdict.finding == Finding::SharedOutage {
            return Some(Guard::SharedOutage);
        }
        let was_rolled_back = |warm: &Release| self.quarantine().contains(&warm.quarantine_key());
        if self.policy.after_bake != AfterBake::Act || warm.is_some_and(was_rolled_back) {
            return Some(Guard::AfterBake);
        }
        self.blocking_guard(now, verdict, warm.is_some())
    }
}
