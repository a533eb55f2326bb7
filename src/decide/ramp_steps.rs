//! The steps of a ramp: the next one, and a bake that ends before the last one.

use std::time::Duration;

use crate::decide::phase::Phase;
use crate::decide::ramp::Ramp;
use crate::decide::watch::Watch;
use crate::model::{Decision, Effect, Guard, Moment, RampStep, Release, TimelineEvent, Verdict};

impl Watch {
    /// The bake of a release, with its part of the traffic.
    pub(super) fn baking(
        &self,
        now: Moment,
        active: Release,
        warm: Option<Release>,
        ramp: Option<Ramp>,
    ) -> Phase {
        // Without a release to go back to there is nothing to watch for.
        let bake = if warm.is_some() { self.policy.bake } else { Duration::ZERO };
        let (blocked, no_data_since) = (None, None);
        Phase::Baking { active, warm, until: now + bake, blocked, no_data_since, ramp }
    }

    /// Whether a release bakes that has not reached the last step of its ramp.
    pub(super) fn ramps_still(&self) -> bool {
        self.phase.ramp().is_some_and(|ramp| !ramp.step.is_last())
    }

    /// The next step, unless a guard or a hold stops it.
    pub(super) fn on_step_due(
        &self,
        now: Moment,
        step: RampStep,
        because: &str,
    ) -> Option<Decision> {
        let Phase::Baking { active, blocked: None, ramp: Some(ramp), .. } = &self.phase else {
            return None;
        };
        let is_next = (ramp.step.step, ramp.step.below_ppm) < (step.step, step.below_ppm);
        if !is_next || self.is_held() {
            return None;
        }
        let because = format!("{active} gets {step}: {because}");
        Some(self.decide(now, TimelineEvent::Stepped { ramp: step }, because))
    }

    /// The bake is over before the ramp: the operator decides.
    pub(super) fn on_ramp_incomplete(&self, now: Moment, verdict: &Verdict) -> Option<Decision> {
        let Phase::Baking { active, ramp: Some(ramp), .. } = &self.phase else { return None };
        let because = format!(
            "the bake is over and {active} has {} only: `rollbackd promote` or `rollback`; {}",
            ramp.step, verdict.because
        );
        let page = Effect::Page(because.clone());
        let (guard, verdict) = (Guard::Ramp, verdict.clone());
        let mut decision = self.decide(now, TimelineEvent::Blocked { guard, verdict }, because);
        decision.effects.push(page);
        Some(decision)
    }
}
