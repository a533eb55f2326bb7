//! Which release the judge blames, with signals of other releases and of shadow calls.

use std::time::Duration;

use rollbackd::judge::{BLOCK_MS, Baseline, Indicator, Judge, Objective, SloSettings};
use rollbackd::model::{
    CallKey, Counts, Finding, History, Moment, Observation, ProbeResult, ReleaseNumber, Severity,
    Signal, Verdict,
};

const TRIAL: ReleaseNumber = ReleaseNumber(2);
const WARM: ReleaseNumber = ReleaseNumber(1);
/// Blocks per second.
const SECOND: u64 = 4;

fn limits() -> SloSettings {
    let objective =
        |about, budget, weight| Objective { indicator: about, error_budget: budget, weight };
    SloSettings {
        objectives: vec![
            objective(Indicator::Availability, 0.005, 0.85),
            objective(Indicator::Tools, 0.05, 0.05),
            objective(Indicator::ClientFaults, 0.05, 0.03),
            objective(Indicator::Streams, 0.05, 0.02),
        ],
        ..SloSettings::default()
    }
}

fn new_judge(limits: SloSettings, history: History) -> Judge {
    Judge::new(TRIAL, Some(WARM), limits, history, Moment(0))
}

fn counts(ok: u64, server_fault: u64) -> Counts {
    let safe = ok + server_fault;
    Counts {
        ok,
        server_fault,
        repeatable: safe,
        repeatable_failed: server_fault,
        ..Counts::default()
    }
}

/// Runs at most `blocks` blocks. Returns the first finding that is not in `quiet`.
fn run_blocks(
    judge: &mut Judge,
    blocks: u64,
    mut block: impl FnMut(u64, bool) -> Vec<(ReleaseNumber, Observation)>,
) -> Option<(Moment, Verdict)> {
    (1..=blocks).find_map(|index| {
        let now = Moment(index * u64::from(BLOCK_MS));
        for (release, seen) in block(index, judge.is_suspicious(now)) {
            judge.observe(now, &Signal { release, observation: seen });
        }
        let verdict = judge.verdict(now);
        let quiet = [Finding::Undecided, Finding::Healthy, Finding::Measuring];
        let found = !quiet.contains(&verdict.finding);
        found.then_some((now, verdict))
    })
}

fn observation(release: ReleaseNumber, counts: Counts) -> (ReleaseNumber, Observation) {
    (release, Observation::Block(BLOCK_MS, counts))
}

/// 10 requests per second on trial, some bad; shadow calls while the judge is suspicious.
fn shadow_observation(
    index: u64,
    suspicious: bool,
    bad: u64,
    shadow_bad: u64,
) -> Vec<(ReleaseNumber, Observation)> {
    let n = 2 + index % 2;
    let bad = bad.min(n);
    let mut seen = vec![observation(TRIAL, counts(n - bad, bad))];
    if suspicious {
        seen.push((WARM, Observation::Shadow(10, 2 * shadow_bad)));
    }
    seen
}

#[test]
fn shadow_calls_attribute_a_total_failure_within_two_seconds() {
    let mut judge = new_judge(limits(), History::default());
    let (at, verdict) =
        run_blocks(&mut judge, 100, |index, near| shadow_observation(index, near, 9, 0)).unwrap();
    assert_eq!(verdict.finding, Finding::Breach(Severity::Critical), "{verdict:?}");
    assert!(at <= Moment(2_000), "{at}: {}", verdict.because);
    assert!(judge.attribution_e_value().unwrap() >= 10.0, "{:?}", judge.attribution_e_value());
}

#[test]
fn failing_shadow_calls_indicate_a_shared_outage() {
    let mut judge = new_judge(limits(), History::default());
    let (_, verdict) =
        run_blocks(&mut judge, 400, |index, near| shadow_observation(index, near, 9, 5)).unwrap();
    assert_eq!(verdict.finding, Finding::SharedOutage, "{}", verdict.because);
}

#[test]
fn twenty_percent_failures_are_attributed_before_the_breach() {
    let mut judge = new_judge(limits(), History::default());
    let bad = |index: u64| u64::from(index.is_multiple_of(2));
    let fails = |index: u64, near| shadow_observation(index, near, bad(index), 0);
    run_blocks(&mut judge, 12, fails);
    assert!(
        judge.attribution_e_value().unwrap() >= 10.0,
        "{:?} after 3 s",
        judge.attribution_e_value()
    );
    let (at, _) = run_blocks(&mut new_judge(limits(), History::default()), 100, fails).unwrap();
    assert!(at <= Moment(9_000), "{at}");
}

#[test]
fn missing_baseline_follows_the_configured_choice() {
    let total = |_, _| vec![observation(TRIAL, Counts { server_fault: 25, ..Counts::default() })];
    let mut judge = new_judge(limits(), History::default());
    let (_, verdict) = run_blocks(&mut judge, 100, total).unwrap();
    assert_eq!(verdict.finding, Finding::Breach(Severity::Critical));
    let mut judge =
        new_judge(SloSettings { baseline: Baseline::Required, ..limits() }, History::default());
    let (_, verdict) = run_blocks(&mut judge, 100, total).unwrap();
    assert_eq!(verdict.finding, Finding::Unattributed);
    assert!(verdict.because.contains("baseline = \"required\""), "{}", verdict.because);
}

/// Requests from before the switch end on the warm release; then it has none. Tool calls are not repeated.
#[test]
fn the_last_requests_of_the_warm_release_are_no_baseline_to_wait_for() {
    for stragglers in [4, 12, 80] {
        let mut judge = new_judge(limits(), History::default());
        let (at, verdict) = run_blocks(&mut judge, 60 * SECOND, |index, _| {
            let trial = Counts { ok: 6, tool_fault: 6, ..Counts::default() };
            let warm = Counts { ok: if index == 1 { stragglers } else { 0 }, ..Counts::default() };
            vec![observation(TRIAL, trial), observation(WARM, warm)]
        })
        .unwrap_or_else(|| panic!("{stragglers}: no verdict"));
        assert!(matches!(verdict.finding, Finding::Breach(_)), "{stragglers}: {verdict:?}");
        assert!(at <= Moment(8_000), "{stragglers}: {at:?}");
    }
}

#[test]
fn failures_of_the_previous_release_are_no_breach() {
    let hour = counts(97_000, 3_000);
    let history = History { last_hour: hour, ..History::default() };
    // Both releases fail 3 % of requests; the objective allows 0.5 %.
    let three_percent = |index: u64, _| {
        let bad = u64::from(index.is_multiple_of(4)) * 3;
        vec![observation(TRIAL, counts(25 - bad, bad))]
    };
    assert!(run_blocks(&mut new_judge(limits(), history.clone()), 1_200, three_percent).is_none());
    assert!(
        run_blocks(&mut new_judge(limits(), History::default()), 1_200, three_percent).is_some()
    );
    let worse = |_, _| vec![observation(TRIAL, counts(20, 5))];
    let (_, verdict) = run_blocks(&mut new_judge(limits(), history), 1_200, worse).unwrap();
    assert!(verdict.because.contains(", allowed 6.18 % as before)"), "{verdict:?}");
}

#[test]
fn call_rejected_by_the_new_release_is_reported_by_name() {
    let call = |name: &str| -> CallKey { ("tools/call".into(), name.into()) };
    let used = Counts { ok: 990, client_fault: 10, ..Counts::default() };
    let calls = vec![(call("search"), used), (call("fetch"), used)];
    let history = History { calls, ..History::default() };
    let second = |faults: u64| {
        move |index: u64, _: bool| {
            let ten =
                |client_fault| Counts { ok: 10 - client_fault, client_fault, ..Counts::default() };
            let heard = vec![(call("search"), ten(0)), (call("fetch"), ten(faults))];
            let all = Counts { ok: 5, ..Counts::default() };
            let mut seen = vec![observation(TRIAL, all)];
            if index.is_multiple_of(SECOND) {
                seen.push((TRIAL, Observation::Calls(heard)));
            }
            seen
        }
    };
    let (at, verdict) =
        run_blocks(&mut new_judge(limits(), history.clone()), 400, second(9)).unwrap();
    assert_eq!(verdict.finding, Finding::Breach(Severity::Degraded), "{}", verdict.because);
    assert!(verdict.because.starts_with("client faults of tools/call fetch: "), "{verdict:?}");
    assert!(at <= Moment(20_000), "{at}");
    assert!(run_blocks(&mut new_judge(limits(), history), 1_200, second(0)).is_none());
}

#[test]
fn broken_streams_are_a_breach() {
    let broken = |streams_broken| {
        move |_: u64, _: bool| {
            vec![observation(
                TRIAL,
                Counts { ok: 5, streams_ended: 2, streams_broken, ..Counts::default() },
            )]
        }
    };
    let (_, verdict) =
        run_blocks(&mut new_judge(limits(), History::default()), 400, broken(1)).unwrap();
    assert!(verdict.because.starts_with("streams: "), "{}", verdict.because);
    assert!(run_blocks(&mut new_judge(limits(), History::default()), 1_200, broken(0)).is_none());
}

/// The warm release is probed each second, and answers.
fn warm_probe(block: u64) -> Option<(ReleaseNumber, Observation)> {
    block.is_multiple_of(4).then_some((WARM, Observation::Probe(ProbeResult::Ok)))
}

/// 60 requests a second; a second after both releases stand still, those that wait begin to fail. They stand
/// still for this many blocks.
fn both_stand_still(blocks: u64) -> Option<(Moment, Verdict)> {
    let mut with = limits();
    with.objectives.push(Objective {
        indicator: Indicator::Latency,
        error_budget: 0.01,
        weight: 0.15,
    });
    let block = |index: u64, is_fast: bool| {
        let stands_still = (40..40 + blocks).contains(&index);
        let counts = match stands_still {
            false => Counts { ok: 15, with_latency: 15, ..Counts::default() },
            true if index < 44 => Counts::default(),
            true => Counts { server_fault: 15, with_latency: 15, slow: 15, ..Counts::default() },
        };
        let mut seen = vec![observation(TRIAL, counts)];
        if index == 45 {
            seen.push((TRIAL, Observation::Probe(ProbeResult::TimedOut)));
        }
        let is_probed = is_fast || index.is_multiple_of(4);
        if is_probed && !stands_still {
            seen.insert(0, (WARM, Observation::Probe(ProbeResult::Ok)));
        }
        seen
    };
    run_blocks(&mut new_judge(with, History::default()), 400, block)
}

#[test]
fn a_host_that_stands_still_for_a_moment_is_not_the_deploy() {
    for blocks in [5, 8, 10, 14, 18] {
        let found = both_stand_still(blocks);
        assert!(found.is_none(), "{blocks} blocks: {found:?}");
    }
    // Nothing shows that the warm release stands still, too, for longer than a burst.
    assert!(both_stand_still(100).is_some());
}

#[test]
fn unresponsive_release_is_down_within_a_second_of_slow() {
    let slow = Duration::from_millis(500);
    let objective = Objective { indicator: Indicator::Latency, error_budget: 0.01, weight: 0.15 };
    let mut with = limits();
    with.objectives.push(objective);
    let hang = |index: u64, _: bool| {
        // 40 requests per second hang; each is overdue after half a second.
        let overdue = if Moment(index * 250) <= Moment(0) + slow { 0 } else { 10 };
        let late = Counts { slow: overdue, with_latency: overdue, ..Counts::default() };
        let mut seen = vec![observation(TRIAL, late)];
        seen.extend(warm_probe(index));
        seen
    };
    let (at, verdict) = run_blocks(&mut new_judge(with, History::default()), 40, hang).unwrap();
    assert!(at <= Moment(1_500), "{at}: {}", verdict.because);
    assert_eq!(verdict.finding, Finding::Breach(Severity::Down), "{}", verdict.because);
    assert!(verdict.because.contains("answers none"), "{}", verdict.because);
}

#[test]
fn slow_tools_need_a_failed_probe_to_count_as_unresponsive() {
    let hang = |index: u64, probe: bool| {
        let mut seen =
            vec![observation(TRIAL, Counts { slow: 2, with_latency: 2, ..Counts::default() })];
        seen.extend(warm_probe(index));
        if probe && index == 8 {
            seen.push((TRIAL, Observation::Probe(ProbeResult::TimedOut)));
        }
        seen
    };
    let alone = run_blocks(&mut new_judge(limits(), History::default()), 200, |index, _| {
        hang(index, false)
    });
    assert!(alone.is_none(), "{alone:?}");
    let (at, verdict) =
        run_blocks(&mut new_judge(limits(), History::default()), 200, |index, _| hang(index, true))
            .unwrap();
    assert_eq!((at, verdict.finding), (Moment(2_000), Finding::Breach(Severity::Down)));
}

#[test]
fn no_traffic_is_reported_as_undecided() {
    let mut judge = new_judge(limits(), History::default());
    let silent =
        run_blocks(&mut judge, 400, |_, _| vec![(TRIAL, Observation::Probe(ProbeResult::Ok))]);
    assert!(silent.is_none());
    let verdict = judge.verdict(Moment(100_000));
    assert_eq!(verdict.finding, Finding::Undecided);
    assert!(verdict.because.contains("no traffic"), "{}", verdict.because);
}

#[test]
fn unattributed_breach_pages_within_ninety_seconds() {
    let mut judge = new_judge(limits(), History::default());
    // 2 % fail. The warm release receives one request every 3 seconds, and one of them fails.
    let block_at = |index: u64, _| {
        let bad = u64::from(index.is_multiple_of(2));
        let mut seen = vec![observation(
            TRIAL,
            Counts { repeatable: 0, repeatable_failed: 0, ..counts(25 - bad, bad) },
        )];
        if index.is_multiple_of(12) {
            let first = u64::from(index == 12 * 3);
            seen.push(observation(WARM, counts(1 - first, first)));
        }
        seen
    };
    let (at, verdict) = run_blocks(&mut judge, 1_200, block_at).unwrap();
    assert!(at <= Moment(90_000), "{at}: {}", verdict.because);
    assert!(
        matches!(verdict.finding, Finding::Unattributed | Finding::SharedOutage),
        "{verdict:?}"
    );
}
