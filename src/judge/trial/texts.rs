//! What the tests of a trial say, in a sentence.

use crate::judge::trial::release_trial::ReleaseTrial;
use crate::judge::trial::{ArmSummary, StepNeeds, StepState, TrialTest};
use crate::model::{Arm, ArmNumbers, Basis, Counts, Moment, Rule, format_evidence};

/// Names of calls are cut to this many characters.
const CALL_MAX: usize = 40;

impl ReleaseTrial {
    /// Why the release is in breach.
    pub(super) fn breach_text(&self, test: TrialTest) -> String {
        let found = match test {
            TrialTest::Shares => "its users fail more".to_owned(),
            TrialTest::Promise => "it fails more than allowed".to_owned(),
            TrialTest::Call(call) => {
                let name = call.and_then(|call| self.names.get(&call));
                let name = name.map_or("a call", String::as_str);
                let name: String = name.chars().take(CALL_MAX).collect();
                format!("{name} fails more than allowed")
            }
            TrialTest::TotalFailure => "nearly everything fails".to_owned(),
        };
        format!("{found}: {}", self.arms_text())
    }

    /// The rule of a breach, and both arms.
    pub(super) fn basis(&self, test: TrialTest) -> Basis {
        let rule = match test {
            TrialTest::Shares => Rule::TrialUsers,
            TrialTest::Promise => Rule::TrialFailures,
            TrialTest::Call(_) => Rule::TrialCall,
            TrialTest::TotalFailure => Rule::TrialTotalFailure,
        };
        let arms = self.arms().map(|ArmSummary { subjects, started, failed }| ArmNumbers {
            users: u64::try_from(subjects).unwrap_or(u64::MAX),
            requests: started,
            failed,
        });
        Basis { arms: Some(arms), ..Basis::of(rule) }
    }

    /// Both arms in numbers: failed requests, all requests, users.
    pub(super) fn arms_text(&self) -> String {
        let of = |name: &str, arm| {
            let ArmSummary { subjects, started, failed } = self.judge.arm(arm);
            let users = if subjects == 1 { "user" } else { "users" };
            format!("{name} {failed} of {started}, {subjects} {users}")
        };
        format!("{}; {}", of("trial", Arm::Trial), of("control", Arm::Control))
    }

    /// What the users say, and both arms in numbers.
    pub fn progress_text(&self) -> String {
        let arms = self.arms_text();
        match self.judge.failed_subjects() {
            (0, ..) => arms,
            _ => format!("{}; {arms}", self.tests_text()),
        }
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
    pub fn missing_text(&self, now: Moment) -> Option<String> {
        match self.step_state(now) {
            StepState::Measuring => Some(needs_text(self.judge.step_needs(now))),
            StepState::Held => {
                let [shares, episode, promise] = self.judge.e_values();
                let strongest = shares.max(episode).max(promise);
                Some(format!(
                    "evidence against the release (e-value {}): the step waits until it falls",
                    format_evidence(strongest)
                ))
            }
            StepState::Done | StepState::TimedOut => None,
        }
    }

    /// The outcomes of the requests of each release since the trial began: the control, the trial.
    pub fn outcomes(&self) -> [Counts; 2] {
        self.outcomes
    }

    /// Both arms: the control, the trial.
    pub fn arms(&self) -> [ArmSummary; 2] {
        [self.judge.arm(Arm::Control), self.judge.arm(Arm::Trial)]
    }
}

/// What a step needs before it can end.
fn needs_text(needs: StepNeeds) -> String {
    let StepNeeds { requests, users, expected } = needs;
    let seconds = expected.as_secs() + 1;
    let more = |count: u64, noun: &str| match count {
        0 => None,
        1 => Some(format!("1 more {noun}")),
        _ => Some(format!("{count} more {noun}s")),
    };
    let users = u64::try_from(users).unwrap_or(u64::MAX);
    let missing: Vec<_> =
        [more(requests, "request"), more(users, "user")].into_iter().flatten().collect();
    match missing.as_slice() {
        [] => format!("its shortest time, about {seconds} s more"),
        missing => {
            format!("{} on trial, about {seconds} s at this traffic", missing.join(" and "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_says_only_what_it_lacks() {
        let text = |requests, users| {
            needs_text(StepNeeds { requests, users, expected: Duration::from_secs(2) })
        };
        assert_eq!(text(7, 0), "7 more requests on trial, about 3 s at this traffic");
        assert_eq!(
            text(1, 2),
            "1 more request and 2 more users on trial, about 3 s at this traffic"
        );
        assert_eq!(text(0, 1), "1 more user on trial, about 3 s at this traffic");
        assert_eq!(text(0, 0), "its shortest time, about 3 s more");
    }
}
