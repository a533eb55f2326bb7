//! The ramp: which part of the users meets the new release, step by step.
//!
//! A step begins with its line in the timeline, and ends when the judge has seen enough of it, or when
//! its longest time is over. At the end of the bake the control follows.

use std::time::Duration;

use crate::model::{Moment, RampStep, WHOLE_PPM, coin_ppm};

/// How a new release gets its users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RampSettings {
    /// The shares, or that each deploy chooses.
    pub shares: RampShares,
    /// How long a step lasts at most.
    pub step_max: Duration,
    /// Whether a step that has shown too little waits for more, beyond that time.
    pub waits: bool,
    /// How many users stay on the control at least, where there are as many.
    pub control_min: usize,
    /// Live sessions do not move to a new release: only new ones take part.
    pub sessions_stay: bool,
}

/// The shares of a ramp, as the configuration has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RampShares {
    /// Each deploy chooses when its release is ready.
    Auto,
    /// These, in parts per million, each larger than the one before, all below the whole. None: all
    /// traffic at once.
    Listed(Vec<u32>),
}

impl Default for RampShares {
    /// All traffic at once.
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// A ramp that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// The step of now.
    pub step: RampStep,
    /// When the first subject was assigned.
    pub assigned_at: Moment,
    /// When this step began.
    pub step_began: Moment,
}

/// Where few users are active, at least this many are on trial, and at most half.
pub const ON_TRIAL_MIN: usize = 3;
/// The same once a test has stood against the release for the longest time of a step. A verdict needs three
/// users: of three, each would have to fail.
pub const ON_TRIAL_HELD_MIN: usize = 6;

/// The steps of the ramp of one deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RampSteps<'a> {
    /// Their shares in parts per million; see [`RampShares::Listed`].
    pub shares_ppm: &'a [u32],
    /// How many users stay on the control at least, where there are as many.
    pub control_min: usize,
}

impl RampSteps<'_> {
    /// The first step; None without a ramp.
    pub fn first(self) -> Option<RampStep> {
        self.step(1)
    }

    /// The step with this number, from 1.
    pub fn step(self, step: u32) -> Option<RampStep> {
        let index = usize::try_from(step.checked_sub(1)?).ok()?;
        let share_ppm = (*self.shares_ppm.get(index)?).min(WHOLE_PPM);
        let of = u32::try_from(self.shares_ppm.len()).unwrap_or(u32::MAX);
        Some(RampStep { step, of, share_ppm, below_ppm: share_ppm })
    }

    /// The step after `now`, with these subjects active. Some of them stay on the control.
    pub fn next(self, now: RampStep, active: &mut [u64]) -> Option<RampStep> {
        let next = self.step(now.step.checked_add(1)?)?;
        active.sort_unstable();
        let stay = self.control_min.clamp(1, (active.len() / 2).max(1));
        let first_to_stay = active.iter().rev().nth(stay - 1).filter(|_| 1 < active.len());
        let most = first_to_stay.map_or(WHOLE_PPM, |subject| coin_ppm(*subject));
        Some(RampStep { below_ppm: next.share_ppm.min(most).max(now.below_ppm), ..next })
    }

    /// Whether `least` of the active subjects are on trial, so that it is not widened.
    pub fn has_enough(now: RampStep, active: impl Iterator<Item = u64>, least: usize) -> bool {
        active.filter(|it| now.includes(*it)).take(least).count() == least
    }

    /// The same step with more subjects, where it has too few of the active ones: the `least` lowest
    /// coins, at most half; one of two; and the only one.
    pub fn widened(self, now: RampStep, active: &mut [u64], least: usize) -> Option<RampStep> {
        active.sort_unstable();
        let on_trial = active.iter().filter(|subject| now.includes(**subject)).count();
        let wanted = if active.len() == 1 { 1 } else { least.min(active.len() / 2) };
        // Beyond its last share the ramp goes only where no user would try the release.
        let last = self.shares_ppm.last().copied().unwrap_or(WHOLE_PPM);
        let wanted = if on_trial == 0 { wanted.min(1) } else { wanted };
        let last_to_go = active.get(wanted.checked_sub(1)?)?;
        let below_ppm = coin_ppm(*last_to_go) + 1;
        let is_wider = now.below_ppm < below_ppm && (on_trial == 0 || below_ppm <= last);
        (on_trial < wanted && is_wider).then_some(RampStep { below_ppm, ..now })
    }
}

impl Ramp {
    /// A ramp that begins now.
    pub(super) fn new(step: RampStep, now: Moment) -> Self {
        Self { step, assigned_at: now, step_began: now }
    }

    /// The same with its next step, or with more subjects in this one.
    pub(super) fn next(self, step: RampStep, now: Moment) -> Self {
        let step_began = if step.step == self.step.step { self.step_began } else { now };
        // Subjects only ever go forward.
        let below_ppm = step.below_ppm.max(self.step.below_ppm);
        Self { step: RampStep { below_ppm, ..step }, step_began, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(control_min: usize) -> RampSteps<'static> {
        RampSteps { shares_ppm: &[50_000, 250_000, 500_000], control_min }
    }

    /// A subject with this coin, in percent.
    fn subject(percent: u64) -> u64 {
        u64::MAX / 100 * percent + (1 << 50)
    }

    #[test]
    fn steps_grow_and_leave_a_control() {
        let steps = steps(1);
        let first = steps.first().unwrap();
        assert_eq!(first, RampStep { step: 1, of: 3, share_ppm: 50_000, below_ppm: 50_000 });
        let mut many: Vec<u64> = (0..100).map(subject).collect();
        let second = steps.next(first, &mut many).unwrap();
        assert_eq!((second.step, second.below_ppm), (2, 250_000));
        assert_eq!(many.iter().filter(|it| second.includes(**it)).count(), 25);
        let last = steps.next(second, &mut many).unwrap();
        assert!(last.is_last() && steps.next(last, &mut many).is_none());
        // All active users have low coins: one stays.
        let mut low: Vec<u64> = [6, 7, 8, 9].map(subject).to_vec();
        let step = steps.next(first, &mut low).unwrap();
        assert_eq!(low.iter().filter(|it| step.includes(**it)).count(), 3);
        // What was wider before stays.
        let wide = RampStep { below_ppm: 400_000, ..first };
        assert_eq!(steps.next(wide, &mut many).unwrap().below_ppm, 400_000);
    }

    #[test]
    fn some_of_the_active_users_stay_on_the_control() {
        let mut active: Vec<u64> = [1, 2, 3, 4, 5, 6].map(subject).to_vec();
        for (control_min, on_trial) in [(1, 5), (2, 4), (3, 3), (100, 3)] {
            let steps = steps(control_min);
            let step = steps.next(steps.first().unwrap(), &mut active).unwrap();
            // The first step had four of them already, and none of them goes back.
            let had = active.iter().filter(|it| **it < subject(5)).count();
            let is = active.iter().filter(|it| step.includes(**it)).count();
            assert_eq!(is, on_trial.max(had), "control = {control_min}");
        }
    }

    #[test]
    fn few_users_are_on_both_sides() {
        let (steps, none): (_, &mut [u64]) = (steps(1), &mut []);
        let first = steps.first().unwrap();
        assert_eq!(steps.widened(first, none, ON_TRIAL_MIN), None);
        for (coins, least, on_trial) in [
            (vec![90], ON_TRIAL_MIN, 1),
            (vec![70, 90], ON_TRIAL_MIN, 1),
            (vec![20, 60, 90], ON_TRIAL_MIN, 1),
            (vec![10, 20, 60, 90], ON_TRIAL_MIN, 2),
            (vec![10, 20, 30, 60, 70, 90, 95], ON_TRIAL_MIN, 3),
            (vec![6, 10, 20, 30, 35, 40, 45, 48, 60, 70, 90, 95], ON_TRIAL_MIN, 3),
            (vec![6, 10, 20, 30, 35, 40, 45, 48, 60, 70, 90, 95], ON_TRIAL_HELD_MIN, 6),
            // Beyond the last share only where no user would be on trial.
            (vec![10, 60, 70, 90], ON_TRIAL_MIN, 1),
        ] {
            let mut active: Vec<u64> = coins.iter().map(|it| subject(*it)).collect();
            let mut step = first;
            while let Some(wider) = steps.widened(step, &mut active, least) {
                assert!(step.below_ppm < wider.below_ppm && wider.step == 1);
                step = wider;
            }
            let is = active.iter().filter(|it| step.includes(**it)).count();
            assert_eq!(is, on_trial, "{coins:?}: {step:?}");
        }
    }
}
