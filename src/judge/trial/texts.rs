//! What the tests of a trial say, in a sentence.

use crate::judge::trial::release_trial::ReleaseTrial;
use crate::judge::trial::{ArmSummary, StepState, TrialTest};
use crate::model::{Arm, Moment};

impl ReleaseTrial {
    /// Why the release is in breach.
    pub(super) fn breach_text(&self, test: TrialTest) -> String {
        let found = match test {
            TrialTest::Shares => "its users fail more than those of the control".to_owned(),
            TrialTest::Promise => {
                "it fails more than allowed, and more than the control".to_owned()
            }
            TrialTest::Call(call) => {
                let name = call.and_then(|call| self.names.get(&call));
                let name = name.map_or("a call", String::as_str);
                format!("{name} fails more than allowed, and more than on the control")
            }
            TrialTest::TotalFailure => "nearly all its requests fail, on the trial only".to_owned(),
        };
        format!("{found}: {}", self.arms_text())
    }

    /// Both arms in numbers.
    pub(super) fn arms_text(&self) -> String {
        let of = |name: &str, arm| {
            let ArmSummary { subjects, started, failed } = self.judge.arm(arm);
            format!("{name} {failed} of {started} requests failed, {subjects} users")
        };
        format!("{}; {}", of("trial", Arm::Trial), of("control", Arm::Control))
    }

    /// What the users say, and both arms in numbers.
    pub fn progress_text(&self) -> String {
        format!("{}; {}", self.tests_text(), self.arms_text())
    }

    /// What the tests say.
    pub fn tests_text(&self) -> String {
        let (failed, on_trial, unlikely) = self.judge.failed_subjects();
        match failed {
            0 => "no user had a failure".to_owned(),
            _ if unlikely < 2.0 => format!("{on_trial} of {failed} users failed first on trial"),
            _ => format!(
                "{on_trial} of {failed} users failed first on trial, 1 in {unlikely:.0} by the coin"
            ),
        }
    }

    /// What a step still needs; None where it may end.
    pub fn missing_text(&self, now: Moment) -> Option<&'static str> {
        match self.step_state(now) {
            StepState::Measuring => Some("the step needs more requests of more users, or time"),
            StepState::Held => Some("a test stands against the release: the step waits"),
            StepState::Done | StepState::TimedOut => None,
        }
    }

    /// Both arms: the control, the trial.
    pub fn arms(&self) -> [ArmSummary; 2] {
        [self.judge.arm(Arm::Control), self.judge.arm(Arm::Trial)]
    }
}
