//! Requests against an objective: a one-sided e-process with an onset mixture and a burst cap.
//!
//! The null: each request is bad with probability at most `p0`, given the past, at any drifting
//! rate. For an alternative `q > p0` the factor `(q/p0)^k ((1-q)/(1-p0))^(n-k)` of a block of `n`
//! requests with `k` bad has expectation at most 1 under the null, so products of factors, sums of
//! them over starting times with prior masses that sum to 1, and averages over several `q` are
//! e-processes. By Ville's inequality the chance that one ever reaches `1/alpha` is at most
//! `alpha`: once per trial, for every stopping rule.
//! (Ville 1939; Robbins 1970; Shin, Ramdas and Rinaldo, "E-detectors".)
//!
//! Four changes keep that and make it fit for operation, because lowering a factor, or asking for
//! more than the threshold, never breaks a bound from above. An allowance limits each rise of the evidence:
//! a part of the way at once, so that rare requests count in full, and the rest spread over the
//! burst and two seconds more, with a limit for each block; what good requests take away can be gained again. No verdict comes
//! before the rise has lasted for the burst. "Nearly everything fails" needs only three blocks,
//! but at least twelve bad requests. And a sum is bounded, so that old evidence is soon forgotten.
//!
//! A longer block (a scrape, a second of a recording) counts as several blocks of 250 ms with an
//! even share of its requests: a power `t <= 1` of a factor with expectation at most 1 has
//! expectation at most 1 (Jensen), so the bound holds for it, too.

use std::time::Duration;

use crate::judge::beta;
use crate::judge::block::{BLOCK, BLOCK_MS};
use crate::judge::mixture::{Component, EvidenceCap, SinceOnset};
use crate::judge::num::to_f64;
use crate::judge::slo::SloSettings;
use crate::model::{Moment, ObjectiveNumbers};

/// Half of the prior: the trouble was there from the first block.
const FIRST_BLOCK_PRIOR: f64 = 0.5;
/// The alternative for "nearly everything fails".
const TOTAL_FAILURE_RATE: f64 = 0.99;
/// A longer block is not cut into more than this: two hours.
const STEPS_MAX: u32 = 28_800;
/// Prior weights of the alternatives, mildest first; the last one belongs to [`TOTAL_FAILURE_RATE`].
const WEIGHTS: [f64; 8] = [0.30, 0.15, 0.15, 0.10, 0.10, 0.10, 0.05, 0.05];

/// The evidence against one objective.
#[derive(Debug, Clone)]
pub struct EProcess {
    p0: f64,
    alpha: f64,
    /// Prior mass of an onset in one of the blocks after the first.
    later_block_prior: f64,
    blocks: u64,
    blocks_max: u64,
    components: Vec<Component>,
}

impl EProcess {
    /// Evidence against "at most `p0` of the requests are bad", with `alpha` for a false alarm.
    pub fn new(p0: f64, alpha: f64, limits: &SloSettings) -> Self {
        let blocks_max = to_count(limits.bake.as_secs_f64() / BLOCK.as_secs_f64());
        let patience = EvidenceCap::for_burst(limits.burst);
        Self::with_cap(p0, alpha, limits.min_effect, patience, blocks_max)
    }

    fn with_cap(
        p0: f64,
        alpha: f64,
        min_effect: f64,
        patience: EvidenceCap,
        blocks_max: u64,
    ) -> Self {
        let cap = EvidenceCap { per_bad_request_max: 1.0, ..patience };
        let caps = (cap, patience.for_total_failure());
        Self::with_caps(p0, alpha, min_effect, caps, blocks_max)
    }

    /// The same where bursts up to this long are healthy, also those in which nearly all requests are bad.
    pub(super) fn patient(p0: f64, alpha: f64, limits: &SloSettings, burst: Duration) -> Self {
        let blocks_max = to_count(limits.bake.as_secs_f64() / BLOCK.as_secs_f64());
        let patience = EvidenceCap::for_burst(burst);
        let cap = EvidenceCap { per_bad_request_max: 1.0, ..patience };
        Self::with_caps(p0, alpha, limits.min_effect, (cap, cap), blocks_max)
    }

    /// With the caps of most alternatives, and of [`TOTAL_FAILURE_RATE`].
    fn with_caps(
        p0: f64,
        alpha: f64,
        min_effect: f64,
        (cap, total_failure_cap): (EvidenceCap, EvidenceCap),
        blocks_max: u64,
    ) -> Self {
        let rates = alternative_rates(p0, min_effect);
        let weights = prior_weights(rates.len());
        let components = rates
            .iter()
            .zip(weights)
            .map(|(&q, weight)| {
                let cap = if q == TOTAL_FAILURE_RATE { total_failure_cap } else { cap };
                Component::new(q, p0, weight, cap)
            })
            .collect();
        let later = blocks_max.saturating_sub(1).max(1);
        let later_block_prior = (1.0 - FIRST_BLOCK_PRIOR) / to_f64(later);
        Self { p0, alpha, later_block_prior, blocks: 0, blocks_max, components }
    }

    /// Takes in one block, begun at `start` and `ms` milliseconds long: `n` requests, `bad` of them
    /// bad.
    pub fn update(&mut self, start: Moment, ms: u32, n: u64, bad: u64) {
        let steps = (ms.saturating_add(BLOCK_MS / 2) / BLOCK_MS).clamp(1, STEPS_MAX);
        let parts = f64::from(steps);
        let (n, bad) = (to_f64(n) / parts, to_f64(bad.min(n)) / parts);
        for step in 0..steps {
            let mass = self.onset_prior();
            self.blocks += 1;
            for component in &mut self.components {
                component.update(start + BLOCK * step, mass, self.alpha, n, bad);
            }
        }
    }

    /// Drops what was gathered. Always allowed: it only lowers the evidence.
    pub fn reset_evidence(&mut self) {
        self.components.iter_mut().for_each(Component::reset_evidence);
    }

    /// The e-value now.
    pub fn e_value(&self) -> f64 {
        self.components
            .iter()
            .map(|component| component.weight * component.weighted_likelihood)
            .sum()
    }

    /// The e-value that makes a verdict.
    pub fn threshold(&self) -> f64 {
        1.0 / self.alpha
    }

    /// Whether the evidence is enough, now.
    pub fn is_broken(&self) -> bool {
        let lasted_long_enough =
            self.leading_component().is_some_and(|it| it.cap.blocks_min <= it.since_onset.blocks);
        lasted_long_enough && self.e_value() >= self.threshold()
    }

    /// When the trouble began: the first bad request since the leading alternative last started from
    /// its prior. The start itself can be seconds earlier, because good requests lower the evidence
    /// slowly.
    pub fn onset(&self) -> Moment {
        let SinceOnset { onset, first_bad, .. } = self.since_onset();
        first_bad.unwrap_or(onset)
    }

    /// Lower 5 % bound of the failure rate since the onset.
    pub fn failure_rate_lower(&self) -> f64 {
        let SinceOnset { n, bad, .. } = self.since_onset();
        beta::lower_bound(to_u64(bad), to_u64(n), 0.05)
    }

    /// Requests a second since the onset.
    pub fn request_rate(&self, now: Moment) -> f64 {
        let SinceOnset { n, onset, .. } = self.since_onset();
        n / now.since(onset).max(BLOCK).as_secs_f64()
    }

    /// The numbers since the onset, under this name.
    pub fn numbers(&self, name: &str) -> ObjectiveNumbers {
        let SinceOnset { n, bad, .. } = self.since_onset();
        ObjectiveNumbers {
            name: name.to_owned(),
            requests: to_u64(n),
            bad: to_u64(bad),
            allowed: self.p0,
            allowed_as_before: false,
            e_value: self.e_value(),
            threshold: self.threshold(),
        }
    }

    fn onset_prior(&self) -> f64 {
        if self.blocks == 0 {
            FIRST_BLOCK_PRIOR
        } else if self.blocks < self.blocks_max {
            self.later_block_prior
        } else {
            0.0
        }
    }

    fn since_onset(&self) -> SinceOnset {
        self.leading_component().map(|component| component.since_onset).unwrap_or_default()
    }

    fn leading_component(&self) -> Option<&Component> {
        self.components.iter().max_by(|a, b| {
            (a.weight * a.weighted_likelihood).total_cmp(&(b.weight * b.weighted_likelihood))
        })
    }
}

/// The alternatives: doubling from the smallest rate worth a rollback, and "nearly everything".
fn alternative_rates(p0: f64, min_effect: f64) -> Vec<f64> {
    let mut rates = Vec::new();
    let mut q = p0 * min_effect;
    while q < 0.9 && rates.len() < 24 {
        rates.push(q);
        q *= 2.0;
    }
    rates.push(TOTAL_FAILURE_RATE);
    rates
}

fn prior_weights(count: usize) -> Vec<f64> {
    let milder = count.saturating_sub(1);
    let mut weights: Vec<f64> =
        WEIGHTS.into_iter().take(7).chain(std::iter::repeat(0.05)).take(milder).collect();
    weights.push(0.05);
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn to_u64(count: f64) -> u64 {
    count.round() as u64
}

fn to_count(real: f64) -> u64 {
    real.max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors were made with blocks of one second and a cap for each.
    const ONE_SECOND: EvidenceCap = EvidenceCap {
        blocks_min: 1,
        blocks_to_threshold: 5.0,
        allowance_max: 0.2,
        per_block_max: 1.0,
        per_bad_request_max: 1.0,
    };
    /// A burst of five seconds in blocks of 250 ms.
    const FIVE_SECOND_BURST: EvidenceCap = EvidenceCap {
        blocks_min: 20,
        blocks_to_threshold: 28.0,
        allowance_max: 0.6,
        per_block_max: 0.08,
        per_bad_request_max: 1.0 / 12.0,
    };

    /// `n, bad` of each block, and the e-value after it, from an independent implementation.
    type Vector = (&'static str, &'static [(u64, u64, f64)]);
    const VECTORS: &[Vector] = &[
        (
            "nothing works, 10 requests a block",
            &[
                (10, 10, 4.025_499_502_371_796),
                (10, 10, 50.632_291_510_450_51),
                (10, 10, 1_145.885_700_077_593_4),
                (10, 10, 35_205.349_992_571_65),
            ],
        ),
        (
            "30 % fail",
            &[
                (10, 3, 3.170_511_531_043_345),
                (10, 3, 21.391_639_135_004_457),
                (10, 3, 145.868_980_541_286_53),
                (10, 3, 1_005.258_783_945_886_3),
            ],
        ),
        (
            "one request a block, every other one bad, some blocks empty",
            &[
                (1, 0, 0.427_386_934_673_366_9),
                (1, 1, 2.051_962_091_972_455_5),
                (0, 0, 2.052_239_869_750_233),
                (1, 1, 12.400_822_882_012_44),
                (1, 0, 10.459_855_888_606_25),
            ],
        ),
    ];

    #[test]
    fn follows_the_vectors() {
        for (name, rows) in VECTORS {
            let mut process = EProcess::with_cap(0.005, 1e-3, 2.0, ONE_SECOND, 1800);
            for (block, &(n, bad, want)) in rows.iter().enumerate() {
                process.update(Moment(block as u64 * 1000), BLOCK_MS, n, bad);
                let got = process.e_value();
                assert!(
                    (got / want - 1.0).abs() < 1e-3,
                    "{name}, block {block}: {got}, not {want}"
                );
            }
        }
    }

    #[test]
    fn expectation_at_the_boundary_is_at_most_one() {
        // Every sequence of up to 14 blocks of one request, weighted with its probability.
        let p0 = 0.2;
        for length in 1..=14_u32 {
            let mut expected = 0.0;
            for bits in 0..1_u32 << length {
                let mut process = EProcess::with_cap(p0, 0.01, 2.0, FIVE_SECOND_BURST, 14);
                let mut probability = 1.0;
                for block in 0..length {
                    let bad = u64::from(bits >> block & 1);
                    probability *= if bad == 1 { p0 } else { 1.0 - p0 };
                    process.update(Moment(0), BLOCK_MS, 1, bad);
                }
                expected += probability * process.e_value();
            }
            assert!(expected <= 1.0 + 1e-9, "{length} blocks: {expected}");
        }
    }

    #[test]
    fn a_burst_of_five_seconds_never_trips_however_late_and_high() {
        for onset in [0, 40, 4_000] {
            let mut process = EProcess::with_cap(0.005, 1e-3, 2.0, FIVE_SECOND_BURST, 7_200);
            for _ in 0..onset {
                process.update(Moment(0), BLOCK_MS, 25, 0);
            }
            let mut blocks = 0;
            while !process.is_broken() {
                process.update(Moment(0), BLOCK_MS, 1_000, 300);
                blocks += 1;
            }
            assert!((20..=28).contains(&blocks), "onset {onset}: {blocks} blocks");
        }
    }

    #[test]
    fn late_trouble_is_found_as_fast_as_early_trouble() {
        for onset in [0, 2_400] {
            let mut process = EProcess::with_cap(0.005, 1e-3, 2.0, FIVE_SECOND_BURST, 7_200);
            for _ in 0..onset {
                process.update(Moment(0), BLOCK_MS, 25, 0);
            }
            let mut blocks = 0;
            while !process.is_broken() {
                process.update(Moment(77), BLOCK_MS, 25, 25);
                blocks += 1;
            }
            assert_eq!(blocks, 3, "onset {onset}");
            assert_eq!(process.onset(), Moment(77), "onset {onset}");
        }
    }

    #[test]
    fn absurd_counts_stay_finite() {
        let mut process = EProcess::with_cap(0.005, 1e-3, 2.0, FIVE_SECOND_BURST, 7_200);
        for _ in 0..1_000 {
            process.update(Moment(0), BLOCK_MS, u64::MAX / 2, u64::MAX);
            assert!(process.e_value().is_finite());
            process.update(Moment(0), BLOCK_MS, u64::MAX / 2, 0);
            assert!(process.e_value().is_finite());
            process.reset_evidence();
        }
    }
}
