//! Each process of the trial has an expectation of at most 1 under its null, at every stopping time.

use std::time::Duration;

use crate::judge::trial::blocks::Mark;
use crate::judge::trial::promise_test::PromiseTest;
use crate::judge::trial::share_test::ShareTest;
use crate::judge::trial::subject_test::SubjectTest;
use crate::judge::trial::{StepState, TrialJudge, TrialSettings, TrialTest};
use crate::judge::trial::{clip, to_f64};
use crate::model::{Arm, Moment, TrialCell};

/// Subjects in one block of the enumerations.
const SUBJECTS_MAX: u32 = 8;
/// The floor of the share test is a restart with this mass.
const RESTART: f64 = 1e-6;
const WITNESSES: usize = 3;

pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// SplitMix64, from 0 to below 1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        crate::model::coin(z ^ (z >> 31))
    }
}

fn arm(labels: u32, subject: u32) -> Arm {
    if labels >> subject & 1 == 1 { Arm::Trial } else { Arm::Control }
}

/// A block with these labels and marks: bit by bit who is on trial, and what part failed.
fn add_block(test: &mut ShareTest, labels: u32, marks: &[f64]) {
    let pi = f64::from(labels.count_ones()) / marks.len() as f64;
    for (subject, share) in (0_u16..).zip(marks) {
        let mark = Mark { subject, arm: arm(labels, u32::from(subject)), share: *share, pi };
        test.update(&mark, 1.0, WITNESSES);
    }
    test.end_block(clip::THREE);
}

#[test]
fn share_test_is_fair_for_every_assignment_by_the_coin() {
    let mut rng = Rng(1);
    for n in 2..=SUBJECTS_MAX {
        for _ in 0..20 {
            let marks: Vec<f64> = (0..n)
                .map(|_| match rng.uniform() {
                    it if it < 0.4 => 0.0,
                    it if it < 0.6 => 1.0,
                    _ => rng.uniform(),
                })
                .collect();
            for on_trial in 1..n {
                let labels = (0..1_u32 << n).filter(|it| it.count_ones() == on_trial);
                let e_values: Vec<f64> = labels
                    .map(|labels| {
                        let mut test = ShareTest::new(1e-3, clip::THREE);
                        add_block(&mut test, labels, &marks);
                        test.e_value()
                    })
                    .collect();
                let mean = e_values.iter().sum::<f64>() / e_values.len() as f64;
                assert!(mean <= 1.0 + RESTART, "{mean} with {on_trial} of {n}, {marks:?}");
            }
        }
    }
}

/// After every outcome of a first block, the expectation after a second one is no larger: so it is at
/// most 1 at every stopping time. Outcomes are independent with one mean, in an outage (0.9), too.
#[test]
fn share_test_is_a_supermartingale() {
    for n in 2..=4_u32 {
        for labels in 1..(1 << n) - 1 {
            for mean in [0.01, 0.3, 0.9] {
                for first in 0..1_u32 << n {
                    let mut before = ShareTest::new(1e-3, clip::THREE);
                    add_block(&mut before, labels, &marks_of(first, n));
                    let after = (0..1_u32 << n).map(|second| {
                        let mut test = before.clone();
                        add_block(&mut test, labels, &marks_of(second, n));
                        let failed = second.count_ones();
                        let chance = f64::powi(mean, failed.cast_signed())
                            * f64::powi(1.0 - mean, (n - failed).cast_signed());
                        chance * test.e_value()
                    });
                    let (after, before) = (after.sum::<f64>(), before.e_value());
                    assert!(after <= before * (1.0 + 1e-9) + RESTART, "{after} after {before}");
                }
            }
        }
    }
}

fn marks_of(failed: u32, n: u32) -> Vec<f64> {
    (0..n).map(|subject| f64::from(failed >> subject & 1)).collect()
}

#[test]
fn share_test_does_not_depend_on_the_order_of_a_block() {
    let pi = 0.25;
    let marks: Vec<Mark> = (0..40_u16)
        .map(|subject| Mark {
            subject,
            arm: if subject < 10 { Arm::Trial } else { Arm::Control },
            share: f64::from(subject % 3) / 2.0,
            pi,
        })
        .collect();
    let e_value = |marks: &mut dyn Iterator<Item = &Mark>| {
        let mut test = ShareTest::new(1e-3, clip::THREE);
        marks.for_each(|mark| test.update(mark, 1.0, WITNESSES));
        test.end_block(clip::THREE);
        test.e_value()
    };
    let (forward, back) = (e_value(&mut marks.iter()), e_value(&mut marks.iter().rev()));
    assert!((forward - back).abs() < 1e-9 * forward, "{forward} and {back}");
    assert!(forward < 1.0, "{forward} in a shared outage");
}

/// One subject, and one block, cover at most their part of the way.
#[test]
fn share_test_needs_three_subjects_and_three_blocks() {
    let reached_after = |subjects: u16| {
        let mut test = ShareTest::new(1e-3, clip::THREE);
        (1..=60).find(|_| {
            for subject in 0..subjects {
                let mark = Mark { subject, arm: Arm::Trial, share: 1.0, pi: 0.05 };
                test.update(&mark, 1.0, WITNESSES);
            }
            test.end_block(clip::THREE);
            test.is_reached()
        })
    };
    assert_eq!(reached_after(1), None);
    assert_eq!(reached_after(2), None);
    assert_eq!(reached_after(40), Some(3));
}

/// Under the exact null, the mean over all assignments is 1 after every number of failures.
#[test]
fn subject_test_has_mean_one_for_every_coin() {
    for n in 1..=SUBJECTS_MAX {
        for movers in 0..=n {
            let labels: Vec<u32> = (0..1_u32 << n).filter(|it| it.count_ones() == movers).collect();
            for failures in 0..=n {
                let e_value = |labels: &u32| {
                    let mut test = SubjectTest::default();
                    test.begin_step(n.into(), movers.into(), 0.3);
                    for subject in 0..failures {
                        test.first_failure(arm(*labels, subject) == Arm::Trial);
                    }
                    test.e_value()
                };
                let mean = labels.iter().map(e_value).sum::<f64>() / labels.len() as f64;
                assert!((mean - 1.0).abs() < 1e-9, "{mean}: {failures}, {movers} of {n}");
            }
        }
    }
}

/// Streams exactly at the promise, in cells of one to four requests, with one heavy subject: the mean at
/// the end, and where one stops at the first high value.
#[test]
fn promise_test_has_mean_at_most_one_at_stopping_times() {
    const STREAMS: u64 = 4_000;
    const CELLS: u64 = 300;
    const ALLOWED: f64 = 0.05;
    let mut rng = Rng(7);
    for stop_at in [3.0, 20.0, f64::INFINITY] {
        let values: Vec<f64> = (0..STREAMS)
            .map(|_| {
                let mut test = PromiseTest::new(ALLOWED, 2.0, 1e-3);
                let mut left = 1.0;
                for cell in 0..CELLS {
                    if cell % 10 == 0 {
                        test.begin_block();
                    }
                    let mass = if cell == 0 { 0.3 } else { 0.4 / to_f64(CELLS) };
                    left -= mass;
                    let subject = if rng.uniform() < 0.3 { 0 } else { 1 + (cell % 50) as u16 };
                    test.credit(subject);
                    test.start(1, mass);
                    let started = 1 + cell % 4;
                    let failed = (0..started).filter(|_| rng.uniform() < ALLOWED).count() as u64;
                    if 0 < failed {
                        let share = to_f64(failed) / to_f64(started);
                        test.fail(subject, 0.0, share, WITNESSES);
                    }
                    if stop_at <= test.e_value() {
                        break;
                    }
                }
                test.e_value() + left
            })
            .collect();
        let n = to_f64(STREAMS);
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / n;
        let error = (variance / n).sqrt();
        assert!(mean <= 1.0 + 4.0 * error, "{mean} +- {error}, stopped at {stop_at}");
        assert!(error < 0.2, "the test says nothing: +- {error}");
    }
}

pub(super) fn settings() -> TrialSettings {
    TrialSettings {
        max_false_rollback: 1e-3,
        error_budget: 0.005,
        call_budget: 0.02,
        min_effect: 2.0,
        burst: Duration::from_secs(5),
        bake: Duration::from_secs(1_800),
        step_max: Duration::from_secs(120),
        total_failure: Duration::from_secs(6),
    }
}

pub(super) fn cell(arm: Arm, subject: u64, second: u64, started: u32, failed: u32) -> TrialCell {
    TrialCell { arm, subject, client: subject, call: 1, second, started, failed, excused: 0 }
}

/// Sixty subjects, a tenth of them on trial, each one request a second. `fails` tells which fail.
fn run(seconds: u64, mut fails: impl FnMut(Arm, u64) -> bool) -> (TrialJudge, Option<u64>) {
    let mut judge = TrialJudge::new(settings(), Moment(0));
    judge.begin_step(Moment(0), 0.1, 6);
    for second in 0..seconds {
        for subject in 0..60_u64 {
            let arm = if subject < 6 { Arm::Trial } else { Arm::Control };
            let hash = subject * (u64::MAX / 60);
            let failed = u32::from(fails(arm, second));
            let cell = cell(arm, hash, second, 1, failed);
            judge.observe(&cell);
        }
        judge.advance(Moment(second * 1000 + 1250));
        if judge.breach().is_some() {
            return (judge, Some(second + 1));
        }
    }
    (judge, None)
}

#[test]
fn shared_outage_is_no_breach_and_broken_trial_is() {
    let (_, at) = run(300, |_, second| (100..160).contains(&second));
    assert_eq!(at, None);
    let lead = |arm| if arm == Arm::Trial { 100 } else { 105 };
    let (_, at) = run(300, |arm, second| (lead(arm)..160).contains(&second));
    assert_eq!(at, None, "an outage that reaches the trial 5 s before the control");
    let (judge, at) = run(300, |arm, second| arm == Arm::Trial && 100 <= second);
    assert_eq!((at, judge.breach()), (Some(106), Some(TrialTest::TotalFailure)));
    assert_eq!(judge.onset(), Some(Moment(100_000)));
    let mut rng = Rng(3);
    let (judge, at) =
        run(300, |arm, second| arm == Arm::Trial && 100 <= second && rng.uniform() < 0.3);
    assert!(at.is_some_and(|at| at < 150), "{at:?}");
    assert!(matches!(judge.breach(), Some(TrialTest::Shares | TrialTest::Promise)));
}

#[test]
fn failures_that_are_known_late_count_where_they_began() {
    let mut judge = TrialJudge::new(settings(), Moment(0));
    judge.begin_step(Moment(0), 0.1, 6);
    let mut found = None;
    for second in 0..120_u64 {
        for subject in 0..60_u64 {
            let arm = if subject < 6 { Arm::Trial } else { Arm::Control };
            let hash = subject * (u64::MAX / 60);
            let cell = cell(arm, hash, second, 1, 0);
            judge.observe(&cell);
            // The trial answers nothing: its requests time out after 30 s.
            if arm == Arm::Trial && 30 <= second {
                judge.observe(&TrialCell { second: second - 30, started: 0, failed: 1, ..cell });
            }
        }
        judge.advance(Moment(second * 1000 + 1250));
        found = found.or_else(|| judge.breach().map(|_| second));
    }
    assert!(found.is_some_and(|second| second < 60), "{found:?}");
}

#[test]
fn one_subject_convicts_nobody() {
    let mut judge = TrialJudge::new(settings(), Moment(0));
    judge.begin_step(Moment(0), 0.1, 6);
    for second in 0..600_u64 {
        for subject in 0..60_u64 {
            let arm = if subject < 6 { Arm::Trial } else { Arm::Control };
            let hash = subject * (u64::MAX / 60);
            let failed = if subject == 2 { 20 } else { 0 };
            let cell = cell(arm, hash, second, 20, failed);
            judge.observe(&cell);
        }
        judge.advance(Moment(second * 1000 + 1250));
        assert_eq!(judge.breach(), None, "after {second} s");
    }
    assert_eq!(judge.step_state(Moment(600_000)), StepState::Held);
    let (failed, on_trial, _) = judge.failed_subjects();
    assert_eq!((failed, on_trial), (1, 1));
    assert_eq!(judge.arm(Arm::Trial).failed, 12_000);
}

/// More subjects and calls than there are entries for, at a high rate, for minutes.
#[test]
fn memory_is_bounded() {
    let mut judge = TrialJudge::new(settings(), Moment(0));
    judge.begin_step(Moment(0), 0.5, 10_000);
    let mut rng = Rng(9);
    for second in 0..100_u64 {
        for _ in 0..1_500 {
            let subject = (rng.uniform() * 20_000.0) as u64 * (u64::MAX / 20_000);
            let arm = if subject < u64::MAX / 2 { Arm::Trial } else { Arm::Control };
            let call = (rng.uniform() * 3_000.0) as u64;
            let failed = u32::from(rng.uniform() < 0.01);
            judge.observe(&TrialCell { call, ..cell(arm, subject, second, 1, failed) });
        }
        judge.advance(Moment(second * 1000 + 1250));
    }
    let (cells, block_entries) = judge.stored();
    assert!(cells <= 50_000 && block_entries <= 60_000, "{cells}, {block_entries}");
    let subjects = judge.arm(Arm::Trial).subjects + judge.arm(Arm::Control).subjects;
    assert!(subjects <= 11_000, "{subjects}");
    let calls = judge.calls.values().count();
    assert!(calls <= 1_024, "{calls}");
}

#[test]
fn step_ends_after_enough_requests_or_in_time() {
    let (judge, _) = run(14, |_, _| false);
    assert_eq!(judge.step_state(Moment(14_000)), StepState::Measuring);
    let (judge, _) = run(15, |_, _| false);
    assert_eq!(judge.step_state(Moment(15_000)), StepState::Done);
    let mut empty = TrialJudge::new(settings(), Moment(0));
    empty.begin_step(Moment(0), 0.1, 6);
    empty.advance(Moment(121_000));
    assert_eq!(empty.step_state(Moment(119_000)), StepState::Measuring);
    assert_eq!(empty.step_state(Moment(121_000)), StepState::TimedOut);
}
