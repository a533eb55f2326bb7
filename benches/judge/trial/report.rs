//! Harm of broken releases, and false rollbacks of healthy ones, by the number of users and the rate.
#![expect(clippy::print_stdout, reason = "a report prints")]

use std::fmt::Write;

use super::super::{confidence_bound, parallel};
use super::bake::{self, Outcome};
use super::peers::{self, Peer};
use super::population::Size;
use super::scene::{Scene, Trouble};
use super::{hold_out, scenes};

/// Users, and requests a second.
pub const SIZES: [Size; 6] = [
    Size { subjects: 3_000, rate: 100.0 },
    Size { subjects: 3_000, rate: 10.0 },
    Size { subjects: 30, rate: 10.0 },
    Size { subjects: 30, rate: 1.0 },
    Size { subjects: 3, rate: 10.0 },
    Size { subjects: 3, rate: 1.0 },
];
/// Seconds of total failure that convict without a test, where they are compared.
const TOTAL_FAILURE: [u64; 3] = [5, 6, 7];
/// The default.
pub const TOTAL_FAILURE_DEFAULT: u64 = 6;

/// Failed requests, and seconds from the onset to the verdict.
pub fn harm(scenes: &[Scene], sizes: &[Size], bakes: u64, first_seed: u64) {
    println!("failed requests and seconds until the verdict, median/95 %; * some bakes had none");
    for size in sizes {
        for scene in scenes {
            let outcomes = run(*scene, *size, bakes, first_seed, TOTAL_FAILURE_DEFAULT);
            let mut row =
                format!("{} {:34} {}", size_name(*size), scene.name, summary(*scene, &outcomes));
            for peer in Peer::ALL {
                let outcomes = parallel::run_seeds(bakes, |seed| {
                    peers::run(peer, *scene, *size, first_seed + seed)
                });
                let _ = write!(row, " | {} {}", peer.name(), peer_summary(&outcomes));
            }
            println!("{row}");
        }
    }
}

/// Bakes of healthy releases that ended in a rollback.
pub fn false_rollbacks(scenes: &[Scene], sizes: &[Size], bakes: u64, first_seed: u64) {
    println!(
        "false rollbacks [upper 95 % bound]: number by (shares, promise, call, total failure)"
    );
    for size in sizes {
        for scene in scenes {
            let outcomes = run(*scene, *size, bakes, first_seed, TOTAL_FAILURE_DEFAULT);
            println!("{} {:40} {}", size_name(*size), scene.name, false_summary(&outcomes));
        }
    }
}

/// Harm and false rollbacks by the seconds of total failure.
pub fn total_failure(bakes: u64) {
    println!("total failure for 5, 6, 7 s: failed requests, then false rollbacks");
    let broken = scenes::BROKEN.iter().filter(|it| it.name == "all" || it.name == "late: all");
    let healthy = scenes::HEALTHY_SCENES
        .iter()
        .filter(|it| matches!(it.trouble, Trouble::Outage { .. } | Trouble::ColdStart { .. }));
    for scene in broken.chain(healthy) {
        for size in &SIZES[..3] {
            let rows = TOTAL_FAILURE.map(|seconds| {
                let outcomes = run(*scene, *size, bakes, 0, seconds);
                let found = outcomes.iter().filter(|it| it.verdict.is_some()).count();
                let [median, high] = harm_quantiles(outcomes.iter().map(|it| it.harm));
                format!("{found}/{bakes} {median}/{high}")
            });
            println!("{} {:34} {}", size_name(*size), scene.name, rows.join(" | "));
        }
    }
}

/// Seeds and scenes that no parameter was chosen on.
pub fn hold_out(bakes: u64) {
    println!("held-out seeds, the known scenes, then held-out scenes");
    let seed = hold_out::FIRST_SEED;
    harm(scenes::BROKEN, &SIZES[..3], bakes, seed);
    false_rollbacks(scenes::HEALTHY_SCENES, &SIZES[..3], bakes, seed);
    harm(hold_out::BROKEN, &SIZES[..3], bakes, seed);
    false_rollbacks(hold_out::HEALTHY_SCENES, &SIZES[..3], bakes, seed);
}

/// So many bakes from this seed on.
pub fn run(
    scene: Scene,
    size: Size,
    bakes: u64,
    first_seed: u64,
    total_failure: u64,
) -> Vec<Outcome> {
    let requests = (size.rate * 3_600.0) as u64;
    let failed = (requests as f64 * scene.failed_before()) as u64;
    let settings = bake::settings(total_failure, (requests, failed));
    parallel::run_seeds(bakes, |seed| bake::run(scene, size, first_seed + seed + 1, settings))
}

fn size_name(size: Size) -> String {
    format!("{:5} users {:4}/s", size.subjects, size.rate)
}

fn onset(scene: Scene) -> f64 {
    match scene.trouble {
        Trouble::Regression { onset, .. } => onset,
        _ => 0.0,
    }
}

fn summary(scene: Scene, outcomes: &[Outcome]) -> String {
    let [median, high] = harm_quantiles(outcomes.iter().map(|it| it.harm));
    let mut found: Vec<f64> =
        outcomes.iter().filter_map(|it| Some(it.verdict?.0 as f64 - onset(scene))).collect();
    found.sort_by(f64::total_cmp);
    let missed = outcomes.len() - found.len();
    let [delay, late] = quantiles(&found).map(|it| it.copied().unwrap_or(f64::NAN));
    let mark = if missed > 0 { format!(" *{missed} missed") } else { String::new() };
    format!("{median}/{high} failed, {delay:.0}/{late:.0} s{mark}")
}

fn peer_summary(outcomes: &[(Option<u64>, u64)]) -> String {
    let [median, high] = harm_quantiles(outcomes.iter().map(|it| it.1));
    let missed = outcomes.iter().filter(|it| it.0.is_none()).count();
    let mark = if missed > 0 { format!(" *{missed}") } else { String::new() };
    format!("{median}/{high}{mark}")
}

fn false_summary(outcomes: &[Outcome]) -> String {
    use rollbackd::judge::trial::TrialTest;
    let tests = outcomes.iter().filter_map(|it| Some(it.verdict?.1));
    let mut by_test = [0_u64; 4];
    for test in tests {
        let index = match test {
            TrialTest::Shares => 0,
            TrialTest::Promise => 1,
            TrialTest::Call(_) => 2,
            TrialTest::TotalFailure => 3,
        };
        by_test.iter_mut().skip(index).take(1).for_each(|it| *it += 1);
    }
    let (bad, n) = (by_test.iter().sum(), outcomes.len() as u64);
    let bound = confidence_bound::upper_confidence_bound(bad, n);
    format!("{bad}/{n} [{bound:.4}] {by_test:?}")
}

fn harm_quantiles(harm: impl Iterator<Item = u64>) -> [u64; 2] {
    let mut harm: Vec<u64> = harm.collect();
    harm.sort_unstable();
    quantiles(&harm).map(|it| it.copied().unwrap_or_default())
}

fn quantiles<T>(sorted: &[T]) -> [Option<&T>; 2] {
    [0.5, 0.95].map(|q| sorted.get((sorted.len() as f64 * q) as usize))
}
