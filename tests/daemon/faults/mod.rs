//! One fault after another under a steady load of sessions. A fault that is not the release's leaves it in
//! charge, one that is leads back, sessions keep their ids, and no client sees an error without a fault.
//!
//! `FAULTS_COUNT=100 FAULTS_RATE=200 cargo test --test daemon faults -- --nocapture` takes 20 minutes;
//! `FAULTS_COUNT=200 FAULTS_ONLY=daemon-killed ...` kills the daemon two hundred times, in five.
//! `FAULTS_SEED` replays; `FAULTS_ONLY=daemon-killed,handover` chooses, `FAULTS_ONLY=nulls` takes those that
//! happen around a healthy release. A table is printed at the end.

mod kinds;
mod stage;
mod table;

use kinds::{ALL, Fault, SHORT};
use stage::FaultStage;

use crate::support::{Rng, in_own_namespace};

/// Requests a second of both eras, half of them in sessions.
const RATE: u64 = 60;

#[test]
fn faults_leave_a_good_release_in_charge_and_lead_back_from_a_bad_one() {
    if in_own_namespace(
        "faults::faults_leave_a_good_release_in_charge_and_lead_back_from_a_bad_one",
    ) {
        return;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str| variable(name).map(|it| it.parse::<u64>().unwrap());
    let only = variable("FAULTS_ONLY");
    let chosen: Vec<_> = match &only {
        Some(names) if names == "nulls" => kinds::nulls(),
        Some(names) => names.split(',').map(|name| Fault::named(name).unwrap()).collect(),
        None if number("FAULTS_COUNT").is_none() => SHORT.iter().map(Fault::of_name).collect(),
        None => ALL.iter().collect(),
    };
    let count = number("FAULTS_COUNT").unwrap_or(chosen.len() as u64);
    let seed = number("FAULTS_SEED").unwrap_or(1);
    let rate = number("FAULTS_RATE").unwrap_or(RATE);
    println!("FAULTS_SEED={seed}, {count} faults at {rate} requests/s");
    let mut stage = FaultStage::start(Rng(seed), u32::try_from(rate).unwrap());
    let mut left = Vec::new();
    for _ in 0..count {
        if left.is_empty() {
            left.clone_from(&chosen);
        }
        // Each once, in a random order.
        let next = stage.rng.below(left.len() as u64);
        stage.play(left.remove(usize::try_from(next).unwrap()));
    }
    let wrong = stage.finish();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
