//! When the next step of a ramp is due.

use std::time::Duration;

use crate::decide::{ON_TRIAL_HELD_MIN, ON_TRIAL_MIN, Phase, RampSteps};
use crate::judge::trial::StepState;
use crate::machine::ServiceMachine;
use crate::model::{Event, Moment};

/// How long after the beginning of a step a few more users join where too few are on trial.
const WIDEN_AFTER: Duration = Duration::from_secs(5);

impl ServiceMachine {
    /// The next step of the ramp, or the same one with more users, if that is due.
    pub(super) fn step_due(&self, now: Moment) -> Option<Event> {
        let Phase::Baking { blocked: None, ramp: Some(ramp), .. } = self.watch.phase() else {
            return None;
        };
        let (trial, settings) = (self.bake.trial()?, &self.settings.policy.ramp);
        let steps = self.watch.ramp_steps();
        let waited = now.since(ramp.step_began);
        // A step begins again after a hold.
        let measured = waited.min(now.since(trial.step_began()));
        let state = trial.step_state(now);
        let (is_over, remark) = match state {
            StepState::Done => (true, ""),
            StepState::TimedOut => (!settings.waits, ", with too few requests"),
            StepState::Measuring | StepState::Held => (false, ""),
        };
        let is_undecided = state == StepState::Held && settings.step_max <= measured;
        let least = if is_undecided { ON_TRIAL_HELD_MIN } else { ON_TRIAL_MIN };
        // Asked at each block, with up to 10,000 active subjects.
        let is_narrow = || !RampSteps::has_enough(ramp.step, trial.active(now), least);
        if !is_over && (waited < WIDEN_AFTER || !is_narrow()) {
            return None;
        }
        let mut active: Vec<u64> = trial.active(now).collect();
        let next = steps.next(ramp.step, &mut active).filter(|_| is_over);
        if let Some(next) = next {
            let waited = waited.as_secs();
            let because = format!("after {waited} s{remark}: {}", trial.progress_text());
            return Some(Event::StepDue(next, because));
        }
        let alone = active.len() == 1 && measured < settings.step_max / 8;
        let wider = steps.widened(ramp.step, &mut active, least);
        let wider = wider.filter(|_| WIDEN_AFTER <= measured && !alone)?;
        let because = match is_undecided {
            true => format!("undecided after {} s: {}", measured.as_secs(), trial.tests_text()),
            false => format!("few of {} active users were among them", active.len()),
        };
        Some(Event::StepDue(wider, because))
    }
}
