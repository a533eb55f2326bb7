//! The bench's nulls and delays, small: what may not be rolled back is not, and what must be is,
//! in time. `cargo bench --bench judge` has the numbers.
//!
//! Bakes of five minutes or one, mostly, not thirty, so that a debug build takes seconds. Of 300 bakes in a
//! test two may trip: more than that has probability 0.0036 if each trips with the promised 0.1 %,
//! and fewer has probability 0.006 if 3 % do. The seeds are fixed, so the test tells the same each
//! time.

#[expect(dead_code, unreachable_pub, reason = "the bench uses the rest")]
#[path = "../benches/judge/mod.rs"]
mod judge;

use std::time::Duration;

use judge::delays::{Detector, Trouble};
use judge::dice::{Dice, Poisson};
use judge::ours::{Baseline, Ours};
use judge::stream::{SECOND, Scene};
use judge::{bound, oracle, work};

const BAKES: u64 = 300;
const TRIPPED_MAX: usize = 2;
const RATES: [f64; 2] = [10.0, 100.0];
const SEEDS: u64 = 41;

/// Holds nulls against the judge, [`BAKES`] in all.
fn left_alone(scenes: &[Scene], baseline: Baseline, bake: Duration) {
    let ours = Ours::with(baseline, 5).baking(bake);
    let blocks = bake.as_secs() as usize * SECOND;
    let seeds = BAKES / (scenes.len() * RATES.len()) as u64;
    let mut tripped = Vec::new();
    for scene in scenes {
        for rate in RATES {
            let trips = |seed| ours.trips(&scene.bake(rate, seed, blocks)).map(|_| seed);
            let found = work::seeds(seeds, trips).into_iter().flatten();
            tripped.extend(found.map(|seed| (*scene, rate, seed)));
        }
    }
    let first = tripped.first();
    assert!(tripped.len() <= TRIPPED_MAX, "{} of {BAKES}, first: {first:?}", tripped.len());
}

/// Only the new release is in question: nothing excuses it.
fn alone(scene: Scene) {
    left_alone(&[scene], Baseline::Absent, Duration::from_mins(5));
}

/// What both releases suffer. Much of it is judged as long as it lasts, so the bakes are shorter.
fn both(baseline: Baseline) {
    let scenes = [Scene::BothEqual, Scene::BothUneven, Scene::BothWave];
    left_alone(&scenes, baseline, Duration::from_mins(1));
}

#[test]
fn a_healthy_release_is_left_alone() {
    alone(Scene::Healthy);
}

#[test]
fn a_release_exactly_at_its_promise_is_left_alone() {
    alone(Scene::AtLimit);
}

#[test]
fn bursts_within_the_promised_length_are_left_alone() {
    // In a short bake three bursts meet too often, and make one that is longer.
    let bake = Duration::from_mins(30);
    left_alone(&[Scene::ShortBursts(5.0)], Baseline::Absent, bake);
}

#[test]
fn retries_of_failed_requests_are_left_alone() {
    alone(Scene::Retries);
}

#[test]
fn a_cold_start_is_left_alone() {
    alone(Scene::ColdStart);
}

#[test]
fn half_as_many_failures_again_are_left_alone() {
    alone(Scene::Benign);
}

#[test]
fn what_both_suffer_is_left_alone_with_traffic_on_both() {
    both(Baseline::Traffic);
}

#[test]
fn what_both_suffer_is_left_alone_with_shadow_calls() {
    both(Baseline::Shadow);
}

/// Requests a second, share of bad ones, burst, and the seconds that the median delay may take.
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

/// Trouble that begins so many seconds after the switch is found within a multiple of the targets.
fn found_in_time(onset: usize, multiple: f64) {
    for (rate, share, burst, target) in TARGETS {
        let target = target * multiple;
        let trouble = Trouble { rate, share, onset };
        let baselines = [Baseline::Traffic, Baseline::Shadow];
        let detectors = baselines.map(|it| Detector::Ours(Ours::with(it, burst)));
        let blocks = (onset + target.ceil() as usize + 1) * SECOND;
        for (of, detector) in trouble.delays(&detectors, SEEDS, blocks).iter().zip(detectors) {
            let median = of.median();
            assert!(median <= target, "{trouble:?}, {}: {median} s", detector.name());
        }
    }
}

#[test]
fn early_trouble_is_found_in_time() {
    found_in_time(0, 1.0);
}

#[test]
fn late_trouble_is_found_within_twice_the_time() {
    found_in_time(600, 2.0);
}

#[test]
fn the_bench_misses_no_verdict_by_asking_seldom() {
    for scene in [Scene::Regression(0.05, 5), Scene::BothEqual, Scene::ColdStart] {
        for baseline in [Baseline::Traffic, Baseline::Shadow, Baseline::Absent] {
            for seed in 0..3 {
                let bake = scene.bake(100.0, seed, 25 * SECOND);
                let ours = Ours::with(baseline, 5);
                assert_eq!(ours.trips(&bake), ours.trips_slowly(&bake), "{scene:?}, seed {seed}");
            }
        }
    }
}

#[test]
fn probes_that_fail_too_make_no_verdict_later() {
    for seed in 0..10 {
        let bake = Scene::Regression(1.0, 5).bake(10.0, seed, 15 * SECOND);
        let quiet = Ours::with(Baseline::Shadow, 5);
        let honest = Ours { honest_probes: true, ..quiet };
        let [with, without] = [honest, quiet].map(|ours| ours.trips(&bake));
        assert!(with.is_some() && with <= without, "seed {seed}: {with:?}, {without:?}");
    }
}

#[test]
fn the_bench_draws_what_it_says() {
    const DRAWS: u32 = 40_000;
    for mean in [0.025, 2.5, 11.9, 25.0, 250.0] {
        let (mut dice, mut poisson) = (Dice::new(7), Poisson::default());
        let drawn: Vec<f64> =
            (0..DRAWS).map(|_| f64::from(poisson.draw(mean, &mut dice))).collect();
        let got = drawn.iter().sum::<f64>() / f64::from(DRAWS);
        let square = drawn.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / f64::from(DRAWS);
        // Five standard errors of a Poisson's mean and variance.
        let error = 5.0 * (mean / f64::from(DRAWS)).sqrt();
        assert!((got - mean).abs() <= error, "mean {got}, not {mean}");
        let error = error * (1.0 + 2.0 * mean).sqrt();
        assert!((square - mean).abs() <= error, "variance {square}, not {mean}");
    }
}

#[test]
fn the_bounds_are_those_of_the_tables() {
    // scipy.stats.beta.ppf(0.95, bad + 1, n - bad)
    for (bad, n, want) in
        [(0, 10_000, 2.995_284e-4), (3, 1_000, 7.735_245e-3), (114, 500, 0.261_021), (5, 5, 1.0)]
    {
        let got = bound::upper(bad, n);
        assert!((got / want - 1.0).abs() <= 1e-4, "{bad} of {n}: {got}, not {want}");
    }
    for (share, want) in [(0.01, 3_553.0), (0.05, 97.0), (0.2, 12.3), (1.0, 1.304)] {
        let got = oracle::seconds(1.0, share);
        assert!((got / want - 1.0).abs() <= 0.01, "{share}: {got} requests, not {want}");
    }
}
