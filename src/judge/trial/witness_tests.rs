//! A client is one witness, however many sessions it has, and the whole judge stays fair.

use crate::judge::trial::validity_tests::{Rng, cell, settings};
use crate::judge::trial::{TrialJudge, to_f64};
use crate::model::{Arm, Moment, TrialCell, coin};

/// A hundred clients with a session each, a tenth of them on trial, at 1 request a second; and one client
/// that always fails, with twenty sessions in this arm.
fn run_with_hostile(seconds: u64, arm: Arm, mut fails: impl FnMut(Arm) -> bool) -> Option<u64> {
    let mut judge = TrialJudge::new(settings(), Moment(0));
    judge.begin_step(Moment(0), 0.1, 10);
    for second in 0..seconds {
        for subject in 0..100_u64 {
            let arm = if subject < 10 { Arm::Trial } else { Arm::Control };
            judge.observe(&cell(arm, subject << 40, second, 1, u32::from(fails(arm))));
        }
        for session in 0..20_u64 {
            let hostile = cell(arm, (session + 1_000) << 40, second, 1, 1);
            judge.observe(&TrialCell { client: 7, ..hostile });
        }
        judge.advance(Moment(second * 1000 + 1250));
        if judge.breach().is_some() {
            return Some(second + 1);
        }
    }
    None
}

#[test]
fn one_client_with_many_sessions_is_one_witness() {
    assert_eq!(run_with_hostile(600, Arm::Trial, |_| false), None);
    // Nor does it hide a broken release by failing on the control.
    let mut rng = Rng(5);
    let found = run_with_hostile(600, Arm::Control, |arm| arm == Arm::Trial && rng.uniform() < 0.2);
    assert!(found.is_some_and(|second| second < 60), "{found:?}");
}

/// At a low rate few clients are active at first, and the sessions of one look like many.
#[test]
fn one_client_is_one_witness_of_a_total_failure_before_six_are_active() {
    let mut judge = TrialJudge::new(settings(), Moment(0));
    judge.begin_step(Moment(0), 0.1, 3);
    for second in 0..120_u64 {
        // A request a second, of eleven clients in turn; one of them is on trial.
        let subject = second / 2 % 11;
        let arm = if subject == 10 { Arm::Trial } else { Arm::Control };
        judge.observe(&cell(arm, (subject + 100) << 40, second, 1, 0));
        for session in 0..20_u64 {
            let hostile = cell(Arm::Trial, session << 40, second, 1, 1);
            judge.observe(&TrialCell { client: 7, ..hostile });
        }
        judge.advance(Moment(second * 1000 + 1250));
        assert_eq!(judge.breach(), None, "after {second} s");
    }
}

/// Clients become the witnesses once six of them are active: what their sessions had contributed is not
/// forgotten then.
#[test]
fn clients_take_over_what_their_sessions_contributed() {
    let mut judge = TrialJudge::new(settings(), Moment(0));
    judge.begin_step(Moment(0), 0.1, 6);
    for second in 0..300_u64 {
        let others = if second < 60 { 4 } else { 40 };
        for subject in 0..others {
            judge.observe(&cell(Arm::Control, (subject + 100) << 40, second, 1, 0));
        }
        for session in 0..2_u64 {
            let failed = u32::from(20 < second);
            let hostile = cell(Arm::Trial, session << 40, second, 1, failed);
            judge.observe(&TrialCell { client: 7, ..hostile });
        }
        judge.advance(Moment(second * 1000 + 1250));
        assert_eq!(judge.breach(), None, "after {second} s");
    }
    assert!(judge.subjects.by_client());
}

/// The whole judge on healthy streams in which clients have several sessions and very different rates:
/// the mean of the share test at the end, and where one stops at the first high value, is at most 1.
#[test]
fn judge_has_mean_at_most_one_at_stopping_times() {
    const STREAMS: u64 = 300;
    const CLIENTS: u64 = 24;
    for stop_at in [3.0, f64::INFINITY] {
        let mut rng = Rng(11);
        let values: Vec<f64> = (0..STREAMS)
            .map(|_| {
                let mut judge = TrialJudge::new(settings(), Moment(0));
                let sessions: Vec<(u64, u64, f64)> = (0..3 * CLIENTS)
                    .map(|n| ((rng.uniform() * 2_f64.powi(40)) as u64, n / 3, 1.0 / to_f64(1 + n)))
                    .map(|(coin, client, weight)| (coin << 24, client, weight))
                    .collect();
                judge.begin_step(Moment(0), 0.25, 18);
                for second in 0..120_u64 {
                    for (subject, client, weight) in &sessions {
                        let started = u32::from(rng.uniform() < weight.sqrt());
                        let arm = if coin(*subject) < 0.25 { Arm::Trial } else { Arm::Control };
                        if 0 < started {
                            let failed = u32::from(rng.uniform() < 0.03);
                            let cell = cell(arm, *subject, second, started, failed);
                            judge.observe(&TrialCell { client: *client, ..cell });
                        }
                    }
                    judge.advance(Moment(second * 1000 + 1250));
                    if stop_at <= judge.e_values()[0] {
                        break;
                    }
                }
                judge.e_values()[0]
            })
            .collect();
        let n = to_f64(STREAMS);
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / n;
        let error = (variance / n).sqrt();
        assert!(mean <= 1.0 + 4.0 * error + 0.01, "{mean} +- {error}, stopped at {stop_at}");
        assert!(error < 0.25, "the test says nothing: +- {error}");
    }
}
