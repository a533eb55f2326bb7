//! No source speaks for all others, on either release.

use std::time::Duration;

use proptest::prelude::*;

use crate::judge::slo::{Indicator, Objective, SloSettings};
use crate::judge::{BLOCK, BLOCK_MS, Judge};
use crate::model::{
    BlockSources, Counts, Finding, History, Moment, Observation, ReleaseNumber, Severity, Signal,
    SourceCounts, Verdict,
};

const TRIAL: ReleaseNumber = ReleaseNumber(2);
const WARM: ReleaseNumber = ReleaseNumber(1);

fn judge(warm: Option<ReleaseNumber>) -> Judge {
    let objective = |indicator, error_budget| Objective { indicator, error_budget, weight: 1.0 };
    let limits = SloSettings {
        objectives: vec![
            objective(Indicator::Availability, 0.005),
            objective(Indicator::Tools, 0.02),
            objective(Indicator::ClientFaults, 0.05),
        ],
        burst: Duration::from_secs(2),
        probe_interval: Duration::from_secs(5),
        shadow_calls: false,
        ..SloSettings::default()
    };
    let calm = Counts { ok: 10_000, ..Counts::default() };
    let history = History {
        last_hour: calm,
        calls: vec![(("tools/call".into(), "t".into()), calm)],
        ..History::default()
    };
    Judge::new(TRIAL, warm, limits, history, Moment(0))
}

/// What the sources of a release do in each block.
struct Traffic {
    release: ReleaseNumber,
    sources: Vec<Counts>,
    known_failing: Counts,
    active: u16,
}

impl Traffic {
    fn of(release: ReleaseNumber, sources: &[Counts]) -> Self {
        let (sources, known_failing) = (sources.to_vec(), Counts::default());
        Self { release, active: sources.len() as u16, sources, known_failing }
    }

    /// A block; only the sources that fail are named.
    fn signals(&self) -> [Signal; 3] {
        let Self { release, known_failing, .. } = *self;
        let all = self.sources.iter().fold(known_failing, |sum, counts| sum + *counts);
        let named = (1..).zip(&self.sources).filter(|(_, counts)| counts.has_faults());
        let call = crate::model::call_number("tools/call", "t");
        let sources = BlockSources {
            sources_active: self.active,
            known_failing,
            sources: named
                .map(|(source, counts)| SourceCounts { source, call, counts: *counts })
                .collect(),
            ..BlockSources::default()
        };
        let calls = vec![(("tools/call".into(), "t".into()), all)];
        [
            Observation::Sources(sources),
            Observation::Block(BLOCK_MS, all),
            Observation::Calls(calls),
        ]
        .map(|observation| Signal { release, observation })
    }
}

/// Feeds the judge for some seconds; the verdict, and when it was first a breach.
fn run(judge: &mut Judge, seconds: u32, traffic: &[Traffic]) -> (Verdict, Option<Moment>) {
    let (mut now, mut breach) = (Moment(0), None);
    for _ in 0..seconds * 4 {
        now = now + BLOCK;
        let signals = traffic.iter().flat_map(Traffic::signals);
        signals.for_each(|signal| judge.observe(now, &signal));
        if matches!(judge.verdict(now).finding, Finding::Breach(_)) {
            breach = breach.or(Some(now));
        }
    }
    (judge.verdict(now), breach)
}

fn ok(ok: u64) -> Counts {
    Counts { ok, ..Counts::default() }
}

fn failed(server_fault: u64) -> Counts {
    Counts { server_fault, ..Counts::default() }
}

#[test]
fn one_user_that_fails_is_no_breach_while_others_are_served() {
    for fault in [
        failed(2),
        Counts { tool_fault: 2, ..Counts::default() },
        Counts { client_fault: 2, ..Counts::default() },
    ] {
        let traffic = Traffic::of(TRIAL, &[ok(5), fault, ok(3)]);
        let (verdict, breach) = run(&mut judge(Some(WARM)), 60, &[traffic]);
        assert_eq!((verdict.finding, breach), (Finding::OneUser, None), "{}", verdict.because);
        assert!(verdict.because.contains("of one user, 0 of "), "{}", verdict.because);
    }
}

#[test]
fn the_same_failures_of_several_users_are_a_breach() {
    for faults in [1, 2, 20] {
        let traffic = Traffic::of(TRIAL, &[ok(5), failed(faults), failed(faults), ok(3)]);
        let (verdict, breach) = run(&mut judge(Some(WARM)), 20, &[traffic]);
        assert!(breach.is_some_and(|at| at < Moment(4_000)), "{breach:?} {}", verdict.because);
    }
}

#[test]
fn what_one_user_breaks_first_hides_nothing_that_all_meet_later() {
    let tool_fault = Counts { tool_fault: 2, ..Counts::default() };
    let (mut judge, mut now) = (judge(Some(WARM)), Moment(0));
    let one = Traffic::of(TRIAL, &[tool_fault, ok(5), ok(5)]);
    let all = Traffic::of(TRIAL, &[tool_fault, ok(3) + failed(2), ok(3) + failed(2)]);
    for (seconds, traffic, is_breach) in [(30, &one, false), (15, &all, true)] {
        for _ in 0..seconds * 4 {
            now = now + BLOCK;
            traffic.signals().iter().for_each(|signal| judge.observe(now, signal));
        }
        let verdict = judge.verdict(now);
        let found = matches!(verdict.finding, Finding::Breach(_));
        assert_eq!(found, is_breach, "{now}: {} {}", verdict.finding, verdict.because);
    }
}

#[test]
fn users_that_fail_a_little_later_are_no_one_user() {
    // A total failure: one sends most of the requests, and the others had some answered when it began.
    let mut judge = judge(Some(WARM));
    let begins = [Traffic::of(TRIAL, &[failed(2), ok(2), ok(2)])];
    let goes_on = [Traffic::of(TRIAL, &[failed(6), failed(1), failed(1)])];
    let mut now = Moment(0);
    for (blocks, traffic) in [(1, &begins), (20, &goes_on)] {
        for _ in 0..blocks {
            now = now + BLOCK;
            let signals = traffic.iter().flat_map(Traffic::signals);
            signals.for_each(|signal| judge.observe(now, &signal));
            let verdict = judge.verdict(now);
            assert_ne!(verdict.finding, Finding::OneUser, "{now}: {}", verdict.because);
        }
    }
    assert!(matches!(judge.verdict(now).finding, Finding::Breach(_)));
}

#[test]
fn the_only_user_is_all_there_is() {
    let (_, alone) = run(&mut judge(Some(WARM)), 20, &[Traffic::of(TRIAL, &[failed(5)])]);
    // A recording without sources says the same.
    let unknown = Traffic { active: 0, ..Traffic::of(TRIAL, &[failed(5)]) };
    let (_, without) = run(&mut judge(Some(WARM)), 20, &[unknown]);
    assert!(alone.is_some() && alone == without, "{alone:?} {without:?}");
    // Others are there, and say nothing for a while.
    let silent = Traffic { active: 3, ..Traffic::of(TRIAL, &[failed(5)]) };
    let (_, late) = run(&mut judge(Some(WARM)), 20, &[silent]);
    assert!(alone < late && late < Some(Moment(8_000)), "{late:?}");
}

#[test]
fn a_user_that_fails_hides_no_breach_of_others() {
    // It fails all the time; of the others one in ten does.
    let traffic = Traffic::of(TRIAL, &[failed(20), ok(9) + failed(1), ok(9) + failed(1)]);
    let (_, breach) = run(&mut judge(Some(WARM)), 20, &[traffic]);
    assert!(breach.is_some_and(|at| at < Moment(6_000)), "{breach:?}");
}

#[test]
fn what_failed_before_the_deploy_is_no_evidence() {
    let traffic = Traffic { known_failing: failed(5), ..Traffic::of(TRIAL, &[ok(2), ok(1)]) };
    let (verdict, breach) = run(&mut judge(Some(WARM)), 60, &[traffic]);
    assert_eq!((verdict.finding, breach), (Finding::Healthy, None), "{}", verdict.because);
    assert_eq!(judge(None).total().total(), 0);
}

#[test]
fn one_user_of_the_warm_release_excuses_nothing() {
    let trial = || Traffic::of(TRIAL, &[ok(4) + failed(1), ok(4) + failed(1)]);
    // It failed before the deploy, or began to fail since, while another one there is served.
    let known = Traffic { known_failing: failed(2), ..Traffic::of(WARM, &[]) };
    let began = Traffic::of(WARM, &[failed(2), ok(5)]);
    for warm in [known, began] {
        let (verdict, breach) = run(&mut judge(Some(WARM)), 40, &[warm, trial()]);
        assert!(breach.is_some(), "{}", verdict.because);
    }
    // A request of two fails there, and no more come.
    let mut judge_of_few = judge(Some(WARM));
    let few = [Traffic::of(WARM, &[ok(1), failed(1)]), trial()];
    run(&mut judge_of_few, 1, &few[1..]);
    let first = few.iter().flat_map(Traffic::signals);
    first.for_each(|signal| judge_of_few.observe(Moment(1_000), &signal));
    let (verdict, breach) = run(&mut judge_of_few, 30, &few[1..]);
    assert!(breach.is_some(), "{}", verdict.because);
    // Where all of its users fail, it is the outage of both.
    let warm = Traffic::of(WARM, &[ok(4) + failed(1), ok(4) + failed(1)]);
    let (verdict, breach) = run(&mut judge(Some(WARM)), 40, &[warm, trial()]);
    assert_eq!((verdict.finding, breach), (Finding::SharedOutage, None), "{}", verdict.because);
}

#[test]
fn one_user_that_fails_far_more_does_not_turn_a_drain_into_a_cut() {
    let traffic = |retries| {
        let others = ok(8) + failed(2);
        vec![Traffic::of(TRIAL, &[failed(retries), others, others, others])]
    };
    for (retries, severity) in [(0, Severity::Degraded), (200, Severity::Degraded)] {
        let (verdict, breach) = run(&mut judge(Some(WARM)), 30, &traffic(retries));
        assert!(breach.is_some(), "{}", verdict.because);
        assert_eq!(verdict.finding, Finding::Breach(severity), "{}", verdict.because);
        assert!((0.15..0.25).contains(&verdict.failure_rate_lower), "{verdict:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one user does, on whichever release: what the others get is served, and stays served.
    #[test]
    fn no_user_alone_convicts(
        blocks in prop::collection::vec(prop_oneof![3 => Just(0_u64), 1 => 0..40_u64], 240),
        mixed in 0..10_u64,
        others in prop::collection::vec(1..20_u64, 1..5),
    ) {
        let (mut judge, mut now) = (judge(Some(WARM)), Moment(0));
        let call = crate::model::call_number("tools/call", "t");
        let all_others = others.iter().sum();
        for bad in blocks {
            now = now + BLOCK;
            let own = failed(bad) + ok(if 0 < bad { mixed } else { 0 });
            let source = SourceCounts { source: 1, call, counts: own };
            let sources = BlockSources {
                sources_active: 1 + others.len() as u16,
                sources: if own.total() == 0 { Vec::new() } else { vec![source] },
                ..BlockSources::default()
            };
            let block = Observation::Block(BLOCK_MS, own + ok(all_others));
            for observation in [Observation::Sources(sources), block] {
                judge.observe(now, &Signal { release: TRIAL, observation });
            }
            let finding = judge.verdict(now).finding;
            prop_assert!(!matches!(finding, Finding::Breach(_)), "{finding} at {now}");
        }
    }
}
