use crate::judge::{Indicator, Judge, Objective, SloSettings};
use crate::model::{
    Counts, Finding, History, Moment, Observation, ProbeResult, ReleaseNumber, Severity, Signal,
    StartCause,
};

#[test]
fn when_the_warm_release_answers_first_after_a_shared_outage_the_other_gets_a_fresh_look() {
    let objective =
        Objective { indicator: Indicator::Availability, error_budget: 0.005, weight: 1.0 };
    let limits = SloSettings { objectives: vec![objective], ..SloSettings::default() };
    let (new, warm) = (ReleaseNumber(2), ReleaseNumber(1));
    let mut judge = Judge::new(new, Some(warm), limits, History::default(), Moment(0));
    let mut probe = |at, release, reply| {
        judge.observe(Moment(at), &Signal { release, observation: Observation::Probe(reply) });
        judge.verdict(Moment(at)).finding
    };
    for at in 0..3 {
        probe(1_000 * at, warm, ProbeResult::Refused);
        probe(1_000 * at, new, ProbeResult::Refused);
    }
    assert_eq!(probe(2_700, new, ProbeResult::Refused), Finding::SharedOutage);
    assert_eq!(probe(2_800, warm, ProbeResult::Ok), Finding::Undecided);
    assert_eq!(probe(2_900, new, ProbeResult::Ok), Finding::Undecided);
    for at in [3_100, 4_100] {
        assert_eq!(probe(at, new, ProbeResult::Refused), Finding::Undecided);
    }
    assert_eq!(probe(5_100, new, ProbeResult::Refused), Finding::Breach(Severity::Down));
}

/// A judge of a release with a warm one, and a way to give it signals.
fn judge() -> Judge {
    let objective =
        Objective { indicator: Indicator::Availability, error_budget: 0.005, weight: 1.0 };
    let limits = SloSettings { objectives: vec![objective], ..SloSettings::default() };
    Judge::new(ReleaseNumber(2), Some(ReleaseNumber(1)), limits, History::default(), Moment(0))
}

fn give(judge: &mut Judge, at: u64, observation: Observation) -> Finding {
    judge.observe(Moment(at), &Signal { release: ReleaseNumber(2), observation });
    judge.verdict(Moment(at)).finding
}

fn failing() -> Observation {
    Observation::Block(250, Counts { server_fault: 50, ..Counts::default() })
}

#[test]
fn quick_probes_that_fail_count_once_in_an_interval() {
    let mut judge = judge();
    let mut found = None;
    for at in (0..5_000).step_by(100) {
        let finding = give(&mut judge, at, Observation::Probe(ProbeResult::Refused));
        found = found.or(matches!(finding, Finding::Breach(_)).then_some(at));
    }
    assert!(found.is_some_and(|at| (1_800..=2_200).contains(&at)), "{found:?}");
}

#[test]
fn a_release_that_starts_after_a_boot_is_not_down() {
    let mut judge = judge();
    give(&mut judge, 0, Observation::Starting(StartCause::External, 12_000));
    for at in (0..11_900).step_by(250) {
        give(&mut judge, at, failing());
        let finding = give(&mut judge, at, Observation::Probe(ProbeResult::Refused));
        assert_eq!(finding, Finding::Undecided, "{at}");
    }
    let down = (12_000..16_000).step_by(250).find(|at| {
        let finding = give(&mut judge, *at, Observation::Probe(ProbeResult::Refused));
        matches!(finding, Finding::Breach(Severity::Down))
    });
    assert!(down.is_some_and(|at| at <= 14_250), "its time is over: {down:?}");
}

#[test]
fn a_release_that_answered_after_a_boot_is_judged() {
    let mut judge = judge();
    give(&mut judge, 0, Observation::Starting(StartCause::External, 60_000));
    give(&mut judge, 500, Observation::Probe(ProbeResult::Ok));
    let found = (750..5_000).step_by(250).find(|at| {
        let seen =
            Signal { release: ReleaseNumber(1), observation: Observation::Probe(ProbeResult::Ok) };
        judge.observe(Moment(*at), &seen);
        matches!(give(&mut judge, *at, failing()), Finding::Breach(_))
    });
    assert!(found.is_some_and(|at| at < 3_000), "{found:?}");
}

#[test]
fn requests_that_fail_after_an_exit_are_its_own() {
    let mut judge = judge();
    give(&mut judge, 0, Observation::Exited("exit status 1".to_owned()));
    give(&mut judge, 0, Observation::Starting(StartCause::Exit, 60_000));
    for at in (0..5_000).step_by(250) {
        let finding = give(&mut judge, at, Observation::Probe(ProbeResult::Refused));
        assert_eq!(finding, Finding::Undecided, "one crash that is restarted: {at}");
    }
    let found = (5_000..9_000)
        .step_by(250)
        .find(|at| matches!(give(&mut judge, *at, failing()), Finding::Breach(_)));
    assert!(found.is_some_and(|at| at < 7_000), "{found:?}");
}
