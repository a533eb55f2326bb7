//! Properties of the evidence for any input, and its statistical guarantees.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use proptest::prelude::*;
use rollbackd::judge::e_process::EProcess;
use rollbackd::judge::{BLOCK, BLOCK_MS, Indicator, Judge, Objective, SloSettings};
use rollbackd::model::{
    Counts, Finding, History, Moment, Observation, ProbeResult, ReleaseNumber, Signal, Verdict,
};

const BUDGET: f64 = 0.005;
const ALPHA: f64 = 0.001;
/// 100 requests a second.
const REQUESTS_PER_BLOCK: u64 = 25;

fn limits(bake_blocks: u32) -> SloSettings {
    let objective =
        |about, budget| Objective { indicator: about, error_budget: budget, weight: 1.0 };
    SloSettings {
        objectives: vec![
            objective(Indicator::Availability, BUDGET),
            objective(Indicator::Latency, 0.01),
            objective(Indicator::Tools, 0.05),
        ],
        bake: BLOCK * bake_blocks,
        ..SloSettings::default()
    }
}

fn process(blocks: u32) -> EProcess {
    EProcess::new(BUDGET, ALPHA, &limits(blocks))
}

fn at(block: usize) -> Moment {
    Moment(block as u64 * 250)
}

/// Pairs: the number of requests in a block, and how many of them are bad.
fn blocks() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let block = (0_u64..200, 0.0..=1.0_f64).prop_map(|(n, share)| (n, (n as f64 * share) as u64));
    prop::collection::vec(block, 1..120)
}

fn process_with(blocks: &[(u64, u64)]) -> EProcess {
    let mut process = process(7_200);
    for (index, &(n, bad)) in blocks.iter().enumerate() {
        process.update(at(index), BLOCK_MS, n, bad);
    }
    process
}

proptest! {
    #[test]
    fn one_more_bad_request_never_lowers_the_evidence(
        before in blocks(), n in 1_u64..1_000, share in 0.0..1.0_f64
    ) {
        let bad = (n as f64 * share) as u64;
        let mut process = process_with(&before);
        let mut worse = process.clone();
        process.update(at(before.len()), BLOCK_MS, n, bad);
        worse.update(at(before.len()), BLOCK_MS, n, bad + 1);
        prop_assert!(process.e_value() <= worse.e_value(), "{} and {}", process.e_value(), worse.e_value());
        prop_assert!(!process.is_broken() || worse.is_broken());
    }

    #[test]
    fn one_more_good_request_never_raises_the_evidence(
        before in blocks(), n in 1_u64..1_000, share in 0.0..1.0_f64
    ) {
        let bad = (n as f64 * share) as u64;
        let mut process = process_with(&before);
        let mut better = process.clone();
        process.update(at(before.len()), BLOCK_MS, n, bad);
        better.update(at(before.len()), BLOCK_MS, n + 1, bad);
        prop_assert!(better.e_value() <= process.e_value(), "{} and {}", better.e_value(), process.e_value());
    }

    #[test]
    fn reset_clears_all_evidence(before in blocks()) {
        let mut process = process_with(&before);
        let was = process.e_value();
        process.reset_evidence();
        prop_assert!(process.e_value() <= was);
        prop_assert_eq!(process.e_value(), 0.0);
        prop_assert!(!process.is_broken());
    }

    #[test]
    fn single_burst_never_trips(before in 0_usize..400, n in 1_u64..5_000, bad in 1_u64..1_000) {
        // Above about half, the check for near-total failure trips without patience.
        let bad = bad.min(n * 2 / 5);
        let mut process = process_with(&vec![(REQUESTS_PER_BLOCK, 0); before]);
        for block in 0..19 {
            process.update(at(before + block), BLOCK_MS, n, bad);
            prop_assert!(!process.is_broken(), "after {} blocks", block + 1);
        }
    }

    #[test]
    fn extreme_counts_stay_finite(counts in prop::collection::vec(any::<[u64; 7]>(), 1..40)) {
        let mut judge = Judge::new(ReleaseNumber(2), Some(ReleaseNumber(1)), limits(7_200), History::default(), Moment(0));
        for (index, [ok, server_fault, tool_fault, client_fault, neutral, slow, with_latency])
            in counts.into_iter().enumerate()
        {
            let counts =
                Counts { ok, server_fault, tool_fault, client_fault, neutral, slow, with_latency, ..Counts::default() };
            judge.observe(at(index), &Signal { release: ReleaseNumber(2), observation: Observation::Block(BLOCK_MS, counts) });
            assert_consistent(&judge, at(index))?;
        }
    }

    #[test]
    fn any_signals_give_a_consistent_verdict(
        signals in prop::collection::vec((0_u8..6, 1_u32..4, any::<u64>(), 0_u64..50), 1..80)
    ) {
        let mut judge = Judge::new(ReleaseNumber(2), Some(ReleaseNumber(1)), limits(40), History::default(), Moment(0));
        for (kind, release, now, n) in signals {
            let ok = 50 - n;
            let observation = match kind {
                0 | 1 => Observation::Block(BLOCK_MS, Counts { ok, server_fault: n, with_latency: 50, slow: n, ..Counts::default() }),
                2 => Observation::Probe(ProbeResult::Ok),
                3 => Observation::Probe(ProbeResult::Refused),
                4 => Observation::Probe(ProbeResult::Unexpected("500".to_owned())),
                _ => Observation::Exited("signal 9".to_owned()),
            };
            judge.observe(Moment(now), &Signal { release: ReleaseNumber(release), observation });
            assert_consistent(&judge, Moment(now))?;
        }
    }
}

/// A verdict survives serialization: it contains no NaN and no infinite number.
fn assert_consistent(judge: &Judge, now: Moment) -> Result<(), TestCaseError> {
    let verdict = judge.verdict(now);
    let line = serde_json::to_string(&verdict).unwrap();
    let read: Verdict = serde_json::from_str(&line).expect("no null in it");
    prop_assert_eq!(&read, &verdict);
    prop_assert!(
        (0.0..=1.0).contains(&verdict.failure_rate_lower),
        "{}",
        verdict.failure_rate_lower
    );
    prop_assert!(
        verdict.request_rate.is_finite() && 0.0 <= verdict.request_rate,
        "{}",
        verdict.request_rate
    );
    let evidence = judge.evidence();
    prop_assert!(evidence.e_value.is_finite() && 0.0 <= evidence.e_value, "{}", evidence.e_value);
    prop_assert!((0.0..=1.0).contains(&evidence.progress()));
    Ok(())
}

/// 2,000 releases that fail exactly at the limit. The bakes take 15 minutes, not 30, so that a
/// debug build takes seconds. The bound holds for every length.
///
/// If every bake tripped with the full 0.1 %, more than 7 of 2,000 would trip with probability
/// 0.0011. The seeds are fixed, so the result is the same each time.
#[test]
fn release_at_the_limit_is_not_rolled_back() {
    const BLOCKS: u32 = 3_600;
    let mut dice = Rng(1);
    let draw = BinomialTable::new(BUDGET);
    let mut tripped = 0;
    for _ in 0..2_000 {
        let mut process = process(BLOCKS);
        let trips = (0..BLOCKS).any(|block| {
            process.update(at(block as usize), BLOCK_MS, REQUESTS_PER_BLOCK, draw.bad(&mut dice));
            process.is_broken()
        });
        tripped += u32::from(trips);
    }
    assert!(tripped <= 7, "{tripped} of 2000 bakes tripped");
}

#[test]
fn total_failure_is_detected_within_four_blocks() {
    let found = detection_delays(1.0, 0);
    assert!(found.iter().all(|blocks| *blocks <= 4), "{found:?}");
}

#[test]
fn twenty_percent_failures_are_detected_within_seven_seconds() {
    let early = median(detection_delays(0.2, 0));
    assert!((20..=28).contains(&early), "{early} blocks");
}

#[test]
fn late_regression_is_detected_within_twice_the_time() {
    for share in [1.0, 0.2, 0.05, 0.02] {
        let (early, late) =
            (median(detection_delays(share, 0)), median(detection_delays(share, 2_400)));
        assert!(late <= 2 * early, "{share}: {early} blocks at once, {late} blocks later");
    }
}

#[test]
fn shared_outage_leaves_no_evidence_against_the_deploy() {
    let mut judge = Judge::new(
        ReleaseNumber(2),
        Some(ReleaseNumber(1)),
        limits(7_200),
        History::default(),
        Moment(0),
    );
    let counts = Counts { server_fault: REQUESTS_PER_BLOCK, ..Counts::default() };
    for block in 1..40 {
        let signal = |release, seen| Signal { release: ReleaseNumber(release), observation: seen };
        judge.observe(at(block), &signal(1, Observation::Probe(ProbeResult::Refused)));
        judge.observe(at(block), &signal(2, Observation::Probe(ProbeResult::Refused)));
        judge.observe(at(block), &signal(2, Observation::Block(BLOCK_MS, counts)));
        let finding = judge.verdict(at(block)).finding;
        assert!(!matches!(finding, Finding::Breach(_)), "block {block}: {finding}");
        judge.observe(at(block), &signal(3, Observation::Probe(ProbeResult::Ok)));
    }
    assert_eq!(judge.verdict(at(40)).finding, Finding::SharedOutage);
    for number in [1, 2] {
        judge.observe(
            at(40),
            &Signal {
                release: ReleaseNumber(number),
                observation: Observation::Probe(ProbeResult::Ok),
            },
        );
    }
    assert_eq!(judge.verdict(at(40)).finding, Finding::Undecided);
    assert_eq!(judge.evidence().progress(), 0.0);
}

#[test]
fn failed_warm_probe_suppresses_blame_for_five_seconds() {
    let mut judge = Judge::new(
        ReleaseNumber(2),
        Some(ReleaseNumber(1)),
        limits(7_200),
        History::default(),
        Moment(0),
    );
    judge.observe(
        Moment(0),
        &Signal {
            release: ReleaseNumber(1),
            observation: Observation::Probe(ProbeResult::TimedOut),
        },
    );
    for at in [0, 1_000, 2_000] {
        judge.observe(
            Moment(at),
            &Signal {
                release: ReleaseNumber(2),
                observation: Observation::Probe(ProbeResult::TimedOut),
            },
        );
    }
    assert_eq!(judge.verdict(Moment(5_000)).finding, Finding::SharedOutage);
    assert!(matches!(judge.verdict(Moment(5_001)).finding, Finding::Breach(_)));
}

/// Blocks from the onset of failures with this share to detection, for 41 seeds.
fn detection_delays(share: f64, onset: usize) -> Vec<usize> {
    let (well, ill) = (BinomialTable::new(BUDGET / 10.0), BinomialTable::new(share));
    let found = |seed| {
        let mut dice = Rng(seed);
        let mut process = process(7_200);
        for block in 0..onset {
            process.update(at(block), BLOCK_MS, REQUESTS_PER_BLOCK, well.bad(&mut dice));
            assert!(!process.is_broken(), "seed {seed}");
        }
        let blocks = 1..5_000_usize;
        let mut found = blocks.filter(|block| {
            process.update(at(onset + block), BLOCK_MS, REQUESTS_PER_BLOCK, ill.bad(&mut dice));
            process.is_broken()
        });
        found.next().unwrap_or_else(|| panic!("seed {seed}: never found"))
    };
    (0..41).map(found).collect()
}

fn median(mut of: Vec<usize>) -> usize {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap()
}

/// Cumulative binomial distribution of the bad requests among [`REQUESTS_PER_BLOCK`].
struct BinomialTable(Vec<f64>);

impl BinomialTable {
    fn new(p: f64) -> Self {
        let mut sum = 0.0;
        let mut choose = 1.0;
        let below = |k: u64| {
            let some = p.powi(k as i32) * (1.0 - p).powi((REQUESTS_PER_BLOCK - k) as i32);
            sum += choose * some;
            choose *= (REQUESTS_PER_BLOCK - k) as f64 / (k + 1) as f64;
            sum
        };
        Self((0..=REQUESTS_PER_BLOCK).map(below).collect())
    }

    fn bad(&self, dice: &mut Rng) -> u64 {
        let u = dice.next();
        self.0.iter().take_while(|sum| **sum <= u).count().min(REQUESTS_PER_BLOCK as usize) as u64
    }
}

/// SplitMix64, scaled to [0, 1).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
