//! What the judge can detect with given settings: for checking settings, not releases.

use std::time::Duration;

use crate::judge::block::{BLOCK, BLOCK_MS};
use crate::judge::e_process::EProcess;
use crate::judge::slo::{Objective, SloSettings};
use crate::model::Moment;

/// Bad requests in each block of the simulated trouble.
const BAD_PER_BLOCK: u64 = 100;
/// Simulated blocks besides those of the burst.
const BLOCKS_MAX: u32 = 10_000;
/// No expectation is longer.
const EXPECTED_MAX: Duration = Duration::from_hours(24);

/// How soon trouble at the smallest rate worth a rollback is detected, with unlimited
/// requests. None if it is never detected inside the bake.
pub fn soonest_detection(limits: &SloSettings, objective: &Objective) -> Option<Duration> {
    let mut process = new_process(limits, objective);
    let requests = BAD_PER_BLOCK as f64 / (objective.error_budget * limits.min_effect).min(1.0);
    // Halfway to the next alternative, so that the mildest one surely has something to see.
    let bad = BAD_PER_BLOCK + BAD_PER_BLOCK / 4;
    let blocks = blocks(limits.bake).min(BLOCKS_MAX.saturating_add(blocks(limits.burst)));
    for block in 1..=blocks {
        add_block(&mut process, requests as u64, bad);
        if process.is_broken() {
            return Some(BLOCK * block);
        }
    }
    None
}

/// How long it takes until trouble is found that is there from the start and makes a share `bad`
/// of the requests bad, at a steady `rate` of requests a second. None if it is too mild to be
/// found, or takes more than a day.
///
/// The requests come evenly, and the bad ones among them too, through the process itself: so the
/// caps for bursts count, which a bound from information theory does not know. Where requests are
/// rare they cost as much again.
pub fn expected_detection(
    limits: &SloSettings,
    objective: &Objective,
    rate: f64,
    bad: f64,
) -> Option<Duration> {
    let mut process = new_process(limits, objective);
    let (mut requests_sent, mut failed) = (0.0, 0.0);
    for block in 1..=blocks(EXPECTED_MAX) {
        let n = (f64::from(block) * BLOCK.as_secs_f64() * rate - requests_sent).floor().max(0.0);
        let k = ((requests_sent + n) * bad - failed).floor().max(0.0);
        (requests_sent, failed) = (requests_sent + n, failed + k);
        add_block(&mut process, n as u64, k as u64);
        if process.is_broken() {
            return Some(BLOCK * block);
        }
    }
    None
}

/// Requests without a bad one that it takes until a release counts as verified: the upper 95 %
/// bound of the failure rate is then `1 - 0.05^(1/n)`.
pub fn requests_to_verify(objective: &Objective, min_effect: f64) -> u64 {
    let worst = (objective.error_budget * min_effect).min(1.0);
    (0.05_f64.ln() / (-worst).ln_1p()).ceil() as u64
}

fn new_process(limits: &SloSettings, objective: &Objective) -> EProcess {
    let weights: f64 = limits.objectives.iter().map(|objective| objective.weight).sum();
    let alpha = limits.max_false_rollback * objective.weight / weights;
    EProcess::new(objective.error_budget, alpha, limits)
}

fn add_block(process: &mut EProcess, requests: u64, bad: u64) {
    process.update(Moment(0), BLOCK_MS, requests, bad);
}

fn blocks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / BLOCK.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Indicator, beta};

    fn limits(max_false_rollback: f64) -> SloSettings {
        SloSettings {
            objectives: vec![Objective {
                indicator: Indicator::Availability,
                error_budget: 0.005,
                weight: 0.5,
            }],
            max_false_rollback,
            ..SloSettings::default()
        }
    }

    #[test]
    fn usual_limits_find_trouble_soon_after_the_burst() {
        let limits = limits(0.001);
        let soonest = soonest_detection(&limits, &limits.objectives[0]).unwrap();
        assert!((5..=8).contains(&soonest.as_secs()), "{soonest:?}");
    }

    #[test]
    fn more_certainty_than_evidence_can_give_is_never_reached() {
        let limits = limits(1e-13);
        assert_eq!(soonest_detection(&limits, &limits.objectives[0]), None);
    }

    #[test]
    fn what_is_expected_is_what_simulation_found() {
        let limits = limits(0.001);
        let objective = &limits.objectives[0];
        // Medians of the bench, from the switch to the verdict.
        for (rate, bad, median) in [(1.0, 0.05, 127.0), (1.0, 0.2, 19.0), (10.0, 0.05, 15.0)] {
            let expected = expected_detection(&limits, objective, rate, bad).unwrap().as_secs_f64();
            assert!((0.6..1.6).contains(&(expected / median)), "{rate} {bad}: {expected}");
        }
        let rare = expected_detection(&limits, objective, 0.05, 0.05).unwrap();
        assert!((30..=60).contains(&(rare.as_secs() / 60)), "{rare:?} at three a minute");
    }

    #[test]
    fn what_is_too_mild_or_never_asked_is_never_found() {
        let limits = limits(0.001);
        let objective = &limits.objectives[0];
        assert_eq!(expected_detection(&limits, objective, 100.0, 0.005), None);
        assert_eq!(expected_detection(&limits, objective, 0.0, 0.5), None);
        assert_eq!(expected_detection(&limits, objective, f64::NAN, f64::NAN), None);
        let busy = expected_detection(&limits, objective, 1e9, 0.1).unwrap();
        assert!((5..=7).contains(&busy.as_secs()), "{busy:?}: the burst and its margin");
    }

    #[test]
    fn verified_after_as_many_requests_as_the_judge_asks_for() {
        let objective = &limits(0.001).objectives[0];
        let n = requests_to_verify(objective, 2.0);
        assert_eq!(n, 299);
        assert!(beta::upper_bound(0, n, 0.05) <= 0.01);
        assert!(beta::upper_bound(0, n - 1, 0.05) > 0.01);
    }
}
