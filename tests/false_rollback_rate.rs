//! A small version of the benchmark: healthy releases are not rolled back, and bad releases are
//! detected in time. `cargo bench --bench judge` measures the full numbers.
//!
//! Most bakes take five minutes or one, not thirty, so that a debug build takes seconds. Of the
//! 300 bakes in a test, two may trip. More than two trip with probability 0.0036 if each trips with
//! the guaranteed 0.1 %. At most two trip with probability 0.006 if 3 % do. The seeds are fixed, so
//! the result is the same each time.

#[expect(dead_code, unreachable_pub, reason = "the bench uses the rest")]
#[path = "../benches/judge/mod.rs"]
mod judge;

use std::time::Duration;

use judge::detection_delay::{Detector, Regression};
use judge::rng::{Poisson, Rng};
use judge::rollbackd_judge::{Baseline, RollbackdJudge};
use judge::traffic::{BLOCKS_PER_SECOND, Scenario};
use judge::trial::population::Size;
use judge::trial::scene::Scene;
use judge::trial::{bake, report, scenes};
use judge::{confidence_bound, oracle, parallel};

const BAKES: u64 = 300;
const FALSE_ROLLBACKS_MAX: usize = 2;
const RATES: [f64; 2] = [10.0, 100.0];
const SEEDS: u64 = 41;

/// Runs the judge on scenarios without a regression, [`BAKES`] in all.
fn assert_no_rollback(scenes: &[Scenario], baseline: Baseline, bake: Duration) {
    let ours = RollbackdJudge::with(baseline, 5).with_bake(bake);
    let blocks = bake.as_secs() as usize * BLOCKS_PER_SECOND;
    let seeds = BAKES / (scenes.len() * RATES.len()) as u64;
    let mut tripped = Vec::new();
    for scene in scenes {
        for rate in RATES {
            let trips =
                |seed| ours.detection_block(&scene.generate(rate, seed, blocks)).map(|_| seed);
            let found = parallel::run_seeds(seeds, trips).into_iter().flatten();
            tripped.extend(found.map(|seed| (*scene, rate, seed)));
        }
    }
    let first = tripped.first();
    assert!(tripped.len() <= FALSE_ROLLBACKS_MAX, "{} of {BAKES}, first: {first:?}", tripped.len());
}

/// Judges the new release without a baseline that could excuse its failures.
fn assert_no_rollback_alone(scene: Scenario) {
    assert_no_rollback(&[scene], Baseline::Absent, Duration::from_mins(5));
}

/// Failures of both releases. They cost computing time while they last, so the bakes are shorter.
fn assert_no_rollback_shared(baseline: Baseline) {
    let scenes = [Scenario::SharedEqual, Scenario::SharedUneven, Scenario::SharedWave];
    assert_no_rollback(&scenes, baseline, Duration::from_mins(1));
}

#[test]
fn healthy_release_is_not_rolled_back() {
    assert_no_rollback_alone(Scenario::Healthy);
}

#[test]
fn release_exactly_at_its_limit_is_not_rolled_back() {
    assert_no_rollback_alone(Scenario::AtLimit);
}

#[test]
fn bursts_within_the_configured_length_are_not_rolled_back() {
    // In a short bake, three bursts often merge into one that is longer.
    let bake = Duration::from_mins(30);
    assert_no_rollback(&[Scenario::ShortBursts(5.0)], Baseline::Absent, bake);
}

#[test]
fn retried_failures_are_not_rolled_back() {
    assert_no_rollback_alone(Scenario::Retries);
}

#[test]
fn cold_start_is_not_rolled_back() {
    assert_no_rollback_alone(Scenario::ColdStart);
}

#[test]
fn failures_below_min_effect_are_not_rolled_back() {
    assert_no_rollback_alone(Scenario::BelowMinEffect);
}

#[test]
fn shared_failures_with_traffic_baseline_are_not_rolled_back() {
    assert_no_rollback_shared(Baseline::Traffic);
}

#[test]
fn shared_failures_with_shadow_baseline_are_not_rolled_back() {
    assert_no_rollback_shared(Baseline::Shadow);
}

/// Requests per second, share of bad requests, burst, and the limit of the median delay in seconds.
const TARGETS: [(f64, f64, u64, f64); 9] = [
    (100.0, 1.0, 5, 1.0),
    (100.0, 0.2, 5, 6.0),
    (100.0, 0.05, 5, 8.0),
    (100.0, 0.01, 5, 60.0),
    (100.0, 0.2, 1, 2.0),
    (100.0, 0.05, 1, 4.0),
    (10.0, 1.0, 5, 2.0),
    (10.0, 0.2, 5, 9.0),
    (10.0, 0.05, 5, 25.0),
];

/// A regression `onset` seconds after the switch is detected within a multiple of the targets.
fn assert_detected_in_time(onset: usize, multiple: f64) {
    for (rate, share, burst, target) in TARGETS {
        let target = target * multiple;
        let trouble = Regression { rate, error_rate: share, onset_block: onset };
        let baselines = [Baseline::Traffic, Baseline::Shadow];
        let detectors = baselines.map(|it| Detector::Rollbackd(RollbackdJudge::with(it, burst)));
        let blocks = (onset + target.ceil() as usize + 1) * BLOCKS_PER_SECOND;
        for (of, detector) in trouble.delays(&detectors, SEEDS, blocks).iter().zip(detectors) {
            let median = of.median();
            assert!(median <= target, "{trouble:?}, {}: {median} s", detector.name());
        }
    }
}

#[test]
fn early_regression_is_detected_in_time() {
    assert_detected_in_time(0, 1.0);
}

#[test]
fn late_regression_is_detected_within_twice_the_time() {
    assert_detected_in_time(600, 2.0);
}

#[test]
fn bench_sampling_interval_misses_no_verdict() {
    for scene in [Scenario::Regression(0.05, 5), Scenario::SharedEqual, Scenario::ColdStart] {
        for baseline in [Baseline::Traffic, Baseline::Shadow, Baseline::Absent] {
            for seed in 0..3 {
                let bake = scene.generate(100.0, seed, 25 * BLOCKS_PER_SECOND);
                let ours = RollbackdJudge::with(baseline, 5);
                assert_eq!(
                    ours.detection_block(&bake),
                    ours.detection_block_sampled(&bake),
                    "{scene:?}, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn failing_probes_do_not_delay_the_verdict() {
    for seed in 0..10 {
        let bake = Scenario::Regression(1.0, 5).generate(10.0, seed, 15 * BLOCKS_PER_SECOND);
        let quiet = RollbackdJudge::with(Baseline::Shadow, 5);
        let honest = RollbackdJudge { probes_reflect_failures: true, ..quiet };
        let [with, without] = [honest, quiet].map(|ours| ours.detection_block(&bake));
        assert!(with.is_some() && with <= without, "seed {seed}: {with:?}, {without:?}");
    }
}

#[test]
fn bench_traffic_has_its_stated_distribution() {
    const DRAWS: u32 = 40_000;
    for mean in [0.025, 2.5, 11.9, 25.0, 250.0] {
        let (mut dice, mut poisson) = (Rng::new(7), Poisson::default());
        let drawn: Vec<f64> =
            (0..DRAWS).map(|_| f64::from(poisson.sample(mean, &mut dice))).collect();
        let got = drawn.iter().sum::<f64>() / f64::from(DRAWS);
        let square = drawn.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / f64::from(DRAWS);
        // Five standard errors of the mean and the variance of a Poisson distribution.
        let error = 5.0 * (mean / f64::from(DRAWS)).sqrt();
        assert!((got - mean).abs() <= error, "mean {got}, not {mean}");
        let error = error * (1.0 + 2.0 * mean).sqrt();
        assert!((square - mean).abs() <= error, "variance {square}, not {mean}");
    }
}

#[test]
fn confidence_bounds_match_published_tables() {
    // scipy.stats.beta.ppf(0.95, bad + 1, n - bad)
    for (bad, n, want) in
        [(0, 10_000, 2.995_284e-4), (3, 1_000, 7.735_245e-3), (114, 500, 0.261_021), (5, 5, 1.0)]
    {
        let got = confidence_bound::upper_confidence_bound(bad, n);
        assert!((got / want - 1.0).abs() <= 1e-4, "{bad} of {n}: {got}, not {want}");
    }
    for (share, want) in [(0.01, 3_553.0), (0.05, 97.0), (0.2, 12.3), (1.0, 1.304)] {
        let got = oracle::expected_seconds(1.0, share);
        assert!((got / want - 1.0).abs() <= 0.01, "{share}: {got} requests, not {want}");
    }
}

/// Bakes of one scene of the randomized trial, of thirty minutes each.
const TRIAL_BAKES: u64 = 11;
const TRIAL_SIZES: [Size; 2] =
    [Size { subjects: 3_000, rate: 10.0 }, Size { subjects: 30, rate: 10.0 }];

fn trial_bakes(scene: &Scene, size: Size) -> Vec<bake::Outcome> {
    report::run(*scene, size, TRIAL_BAKES, SEEDS, report::TOTAL_FAILURE_DEFAULT)
}

/// The scenes of which less than one in a hundred ends in a rollback: none of 66 bakes may.
#[test]
fn trial_without_a_difference_is_not_rolled_back() {
    let names = [
        "at the promise",
        "bursts in step",
        "cold start 1 s of nothing",
        "one client retries, 50/s",
        "one failing client on the control",
        "outage, trial leads 2 s",
    ];
    for name in names {
        let scene = scenes::HEALTHY_SCENES.iter().find(|it| it.name == name).unwrap();
        for size in &TRIAL_SIZES[1..] {
            let false_ones =
                trial_bakes(scene, *size).iter().filter(|it| it.verdict.is_some()).count();
            assert_eq!(false_ones, 0, "{name}, {size:?}");
        }
    }
}

/// A broken release is found in every bake; the median harm is what is printed for 400 bakes, with room.
#[test]
fn broken_trial_is_found_at_little_harm() {
    let harm_max = [("all", 20), ("20 %", 20), ("late: all", 120)];
    for (name, harm_max) in harm_max {
        let scene = scenes::BROKEN.iter().find(|it| it.name == name).unwrap();
        for size in TRIAL_SIZES {
            let outcomes = trial_bakes(scene, size);
            assert!(outcomes.iter().all(|it| it.verdict.is_some()), "{name}, {size:?}: missed");
            let mut harm: Vec<u64> = outcomes.iter().map(|it| it.harm).collect();
            harm.sort_unstable();
            let median = harm[harm.len() / 2];
            assert!(median <= harm_max, "{name}, {size:?}: {median} failed requests");
        }
    }
}
