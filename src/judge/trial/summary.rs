//! What is known of a trial: its arms, its evidence, and whether its share may grow.

use std::time::Duration;

use crate::judge::trial::judge::TrialJudge;
use crate::judge::trial::settings::{ArmSummary, STEP_SUBJECTS, StepNeeds, StepState};
use crate::judge::trial::share_test::ShareTest;
use crate::judge::trial::to_f64;
use crate::model::{Arm, Moment};

/// A step has shown enough: cells on trial. [`STEP_SUBJECTS`] sent them.
const STEP_CELLS: u64 = 40;
const STEP_MIN: Duration = Duration::from_secs(15);
/// Evidence above this, and for a single call, keeps a step from ending.
const STEP_HOLD: f64 = 3.0;
const STEP_HOLD_CALL: f64 = 30.0;

impl TrialJudge {
    /// Whether the step may end now.
    pub fn step_state(&self, now: Moment) -> StepState {
        let lasted = now.since(self.step_began);
        let subjects = STEP_SUBJECTS.min(self.witnesses()).max(1);
        let is_enough = STEP_CELLS <= self.step_cells && subjects <= self.step_subjects.len();
        if lasted < STEP_MIN || (!is_enough && lasted < self.settings.step_max) {
            StepState::Measuring
        } else if self.is_suspicious() {
            StepState::Held
        } else if is_enough {
            StepState::Done
        } else {
            StepState::TimedOut
        }
    }

    /// Whether some evidence against the release keeps its share from growing.
    fn is_suspicious(&self) -> bool {
        let arms = [&self.shares, &self.episode].map(ShareTest::e_value).into_iter();
        let strongest =
            arms.chain([self.promise.e_value(), self.subject_test.e_value()]).fold(0.0, f64::max);
        STEP_HOLD < strongest || self.calls.values().any(|it| STEP_HOLD_CALL < it.promise.e_value())
    }

    /// What a step that measures still needs, and how long that takes at the traffic that it had.
    pub fn step_needs(&self, now: Moment) -> StepNeeds {
        let lasted = now.since(self.step_began);
        let requests = STEP_CELLS.saturating_sub(self.step_cells);
        let wanted = STEP_SUBJECTS.min(self.witnesses()).max(1);
        let users = wanted.saturating_sub(self.step_subjects.len());
        let rate = to_f64(self.step_cells) / lasted.as_secs_f64().max(1.0);
        let at_most = self.settings.step_max.saturating_sub(lasted);
        let at_least = STEP_MIN.saturating_sub(lasted);
        // A user that has not sent anything says nothing about when it will.
        let expected = if 0 < users || (0 < requests && rate <= 0.0) {
            at_most
        } else {
            Duration::try_from_secs_f64(to_f64(requests) / rate.max(1e-9)).unwrap_or(at_most)
        };
        StepNeeds { requests, users, expected: expected.max(at_least).min(at_most.max(at_least)) }
    }

    /// What an arm did.
    pub fn arm(&self, arm: Arm) -> ArmSummary {
        let (control, trial) = self.subjects.by_arm();
        let [of_control, of_trial] = self.counts;
        let (subjects, (started, failed)) = match arm {
            Arm::Control => (control, of_control),
            Arm::Trial => (trial, of_trial),
        };
        ArmSummary { subjects, started, failed }
    }

    /// Users whose first failure counted, those among them on the new release, and how unlikely the
    /// coin makes that: "1 in" this.
    pub fn failed_subjects(&self) -> (u64, u64, f64) {
        let (all, on_trial) = self.subject_test.failed();
        (all, on_trial, self.subject_test.e_value())
    }

    /// The e-values of the shares, the episode and the promise.
    pub fn e_values(&self) -> [f64; 3] {
        [self.shares.e_value(), self.episode.e_value(), self.promise.e_value()]
    }

    /// When the present trouble began, if there is any.
    pub fn onset(&self) -> Option<Moment> {
        self.episode_since.map(|second| Moment(second * 1000))
    }
}
