//! What the judge hears besides requests on trial, and whom it blames.

use std::time::Duration;

use rollbackd::judge::{About, BLOCK_MS, Baseline, Judge, Limits, Objective};
use rollbackd::model::{
    Call, Counts, Finding, History, Moment, Number, Reply, Seen, Severity, Signal, Verdict,
};

const NEW: Number = Number(2);
const WARM: Number = Number(1);
/// Blocks in a second.
const SECOND: u64 = 4;

fn limits() -> Limits {
    let objective = |about, budget, weight| Objective { about, budget, weight };
    Limits {
        objectives: vec![
            objective(About::Availability, 0.005, 0.85),
            objective(About::Tools, 0.05, 0.05),
            objective(About::Calls, 0.05, 0.03),
            objective(About::Streams, 0.05, 0.02),
        ],
        max_false_rollback: 0.001,
        min_effect: 2.0,
        burst: Duration::from_secs(5),
        bake: Duration::from_mins(30),
        probes: 3,
        baseline: Baseline::Probes,
        shadow: true,
        scrape: None,
    }
}

fn open(limits: Limits, history: History) -> Judge {
    Judge::new(NEW, Some(WARM), limits, history, Moment(0))
}

fn counts(ok: u64, server_fault: u64) -> Counts {
    let safe = ok + server_fault;
    Counts { ok, server_fault, safe, safe_bad: server_fault, ..Counts::default() }
}

/// Plays blocks until the judge says something else than undecided or healthy, at most so many.
fn play(
    judge: &mut Judge,
    blocks: u64,
    mut block: impl FnMut(u64, bool) -> Vec<(Number, Seen)>,
) -> Option<(Moment, Verdict)> {
    (1..=blocks).find_map(|index| {
        let now = Moment(index * u64::from(BLOCK_MS));
        for (release, seen) in block(index, judge.suspicious(now)) {
            judge.hear(now, &Signal { release, seen });
        }
        let verdict = judge.verdict(now);
        let quiet = [Finding::Undecided, Finding::Healthy, Finding::Measuring];
        let found = !quiet.contains(&verdict.finding);
        found.then_some((now, verdict))
    })
}

fn block(release: Number, counts: Counts) -> (Number, Seen) {
    (release, Seen::Block(BLOCK_MS, counts))
}

/// 10 requests a second on trial, some bad; shadow calls while it is suspicious.
fn shadowed(index: u64, suspicious: bool, bad: u64, shadow_bad: u64) -> Vec<(Number, Seen)> {
    let n = 2 + index % 2;
    let bad = bad.min(n);
    let mut seen = vec![block(NEW, counts(n - bad, bad))];
    if suspicious {
        seen.push((WARM, Seen::Shadow(10, 2 * shadow_bad)));
    }
    seen
}

#[test]
fn shadow_calls_blame_the_deploy_for_a_total_failure_within_two_seconds() {
    let mut judge = open(limits(), History::default());
    let (at, verdict) = play(&mut judge, 100, |index, near| shadowed(index, near, 9, 0)).unwrap();
    assert_eq!(verdict.finding, Finding::Breach(Severity::Critical), "{verdict:?}");
    assert!(at <= Moment(2_000), "{at}: {}", verdict.because);
    assert!(judge.attribution().unwrap() >= 10.0, "{:?}", judge.attribution());
}

#[test]
fn shadow_calls_that_fail_too_tell_of_a_shared_outage() {
    let mut judge = open(limits(), History::default());
    let (_, verdict) = play(&mut judge, 400, |index, near| shadowed(index, near, 9, 5)).unwrap();
    assert_eq!(verdict.finding, Finding::SharedOutage, "{}", verdict.because);
}

#[test]
fn a_fifth_of_failures_is_attributed_before_it_is_proven() {
    let mut judge = open(limits(), History::default());
    let bad = |index: u64| u64::from(index.is_multiple_of(2));
    let fails = |index: u64, near| shadowed(index, near, bad(index), 0);
    play(&mut judge, 12, fails);
    assert!(judge.attribution().unwrap() >= 10.0, "{:?} after 3 s", judge.attribution());
    let (at, _) = play(&mut open(limits(), History::default()), 100, fails).unwrap();
    assert!(at <= Moment(9_000), "{at}");
}

#[test]
fn without_a_baseline_the_operator_chooses() {
    let total = |_, _| vec![block(NEW, Counts { server_fault: 25, ..Counts::default() })];
    let mut judge = open(limits(), History::default());
    let (_, verdict) = play(&mut judge, 100, total).unwrap();
    assert_eq!(verdict.finding, Finding::Breach(Severity::Critical));
    let mut judge = open(Limits { baseline: Baseline::Required, ..limits() }, History::default());
    let (_, verdict) = play(&mut judge, 100, total).unwrap();
    assert_eq!(verdict.finding, Finding::Unattributed);
    assert!(verdict.because.contains("baseline = \"required\""), "{}", verdict.because);
}

#[test]
fn what_the_release_before_failed_too_is_no_breach() {
    let hour = counts(97_000, 3_000);
    let history = History { hour, ..History::default() };
    // 3 % here, 3 % there, of which the objective allows half a percent.
    let three_percent = |index: u64, _| {
        let bad = u64::from(index.is_multiple_of(4)) * 3;
        vec![block(NEW, counts(25 - bad, bad))]
    };
    assert!(play(&mut open(limits(), history.clone()), 1_200, three_percent).is_none());
    assert!(play(&mut open(limits(), History::default()), 1_200, three_percent).is_some());
    let worse = |_, _| vec![block(NEW, counts(20, 5))];
    let (_, verdict) = play(&mut open(limits(), history), 1_200, worse).unwrap();
    assert!(verdict.because.contains("the release before failed 3000 of 100000"), "{verdict:?}");
}

#[test]
fn a_call_that_is_no_longer_understood_is_found_and_named() {
    let call = |name: &str| -> Call { ("tools/call".into(), name.into()) };
    let used = Counts { ok: 990, client_fault: 10, ..Counts::default() };
    let calls = vec![(call("search"), used), (call("fetch"), used)];
    let history = History { calls, ..History::default() };
    let second = |faults: u64| {
        move |index: u64, _: bool| {
            let ten =
                |client_fault| Counts { ok: 10 - client_fault, client_fault, ..Counts::default() };
            let heard = vec![(call("search"), ten(0)), (call("fetch"), ten(faults))];
            let all = Counts { ok: 5, ..Counts::default() };
            let mut seen = vec![block(NEW, all)];
            if index.is_multiple_of(SECOND) {
                seen.push((NEW, Seen::Calls(heard)));
            }
            seen
        }
    };
    let (at, verdict) = play(&mut open(limits(), history.clone()), 400, second(9)).unwrap();
    assert_eq!(verdict.finding, Finding::Breach(Severity::Degraded), "{}", verdict.because);
    assert!(verdict.because.starts_with("client faults of tools/call fetch: "), "{verdict:?}");
    assert!(at <= Moment(20_000), "{at}");
    assert!(play(&mut open(limits(), history), 1_200, second(0)).is_none());
}

#[test]
fn streams_that_break_are_a_breach() {
    let broken = |broken| {
        move |_: u64, _: bool| {
            vec![block(NEW, Counts { ok: 5, streams: 2, broken, ..Counts::default() })]
        }
    };
    let (_, verdict) = play(&mut open(limits(), History::default()), 400, broken(1)).unwrap();
    assert!(verdict.because.starts_with("streams: "), "{}", verdict.because);
    assert!(play(&mut open(limits(), History::default()), 1_200, broken(0)).is_none());
}

#[test]
fn a_release_that_takes_requests_and_answers_none_is_down_within_a_second_of_slow() {
    let slow = Duration::from_millis(500);
    let objective = Objective { about: About::Latency, budget: 0.01, weight: 0.15 };
    let mut with = limits();
    with.objectives.push(objective);
    let hang = |index: u64, _: bool| {
        // 40 requests a second hang; each is overdue half a second later.
        let overdue = if Moment(index * 250) <= Moment(0) + slow { 0 } else { 10 };
        vec![block(NEW, Counts { slow: overdue, timed: overdue, ..Counts::default() })]
    };
    let (at, verdict) = play(&mut open(with, History::default()), 40, hang).unwrap();
    assert!(at <= Moment(1_500), "{at}: {}", verdict.because);
    assert_eq!(verdict.finding, Finding::Breach(Severity::Down), "{}", verdict.because);
    assert!(verdict.because.contains("answers none"), "{}", verdict.because);
}

#[test]
fn slow_tools_alone_are_no_silence_but_with_a_failed_probe_they_are() {
    let hang = |index: u64, probe: bool| {
        let mut seen = vec![block(NEW, Counts { slow: 2, timed: 2, ..Counts::default() })];
        if probe && index == 8 {
            seen.push((NEW, Seen::Probe(Reply::Late)));
        }
        seen
    };
    let alone = play(&mut open(limits(), History::default()), 200, |index, _| hang(index, false));
    assert!(alone.is_none(), "{alone:?}");
    let (at, verdict) =
        play(&mut open(limits(), History::default()), 200, |index, _| hang(index, true)).unwrap();
    assert_eq!((at, verdict.finding), (Moment(2_000), Finding::Breach(Severity::Down)));
}

#[test]
fn no_traffic_is_neither_good_nor_bad_and_is_said() {
    let mut judge = open(limits(), History::default());
    let silent = play(&mut judge, 400, |_, _| vec![(NEW, Seen::Probe(Reply::Ok))]);
    assert!(silent.is_none());
    let verdict = judge.verdict(Moment(100_000));
    assert_eq!(verdict.finding, Finding::Undecided);
    assert!(verdict.because.contains("no traffic"), "{}", verdict.because);
}

#[test]
fn a_breach_that_can_not_be_explained_wakes_somebody_within_a_minute_and_a_half() {
    let mut judge = open(limits(), History::default());
    // Two in a hundred fail; the warm release gets a request in three seconds, and its first fails.
    let block_at = |index: u64, _| {
        let bad = u64::from(index.is_multiple_of(2));
        let mut seen = vec![block(NEW, Counts { safe: 0, safe_bad: 0, ..counts(25 - bad, bad) })];
        if index.is_multiple_of(12) {
            let first = u64::from(index == 12 * 3);
            seen.push(block(WARM, counts(1 - first, first)));
        }
        seen
    };
    let (at, verdict) = play(&mut judge, 1_200, block_at).unwrap();
    assert!(at <= Moment(90_000), "{at}: {}", verdict.because);
    assert!(
        matches!(verdict.finding, Finding::Unattributed | Finding::SharedOutage),
        "{verdict:?}"
    );
}
