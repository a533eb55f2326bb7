//! The share test: whether failures fall on the trial arm more than its share of the active
//! subjects explains.
//!
//! A block has n_T active subjects on trial and n_C on the control, pi = n_T / (n_T + n_C). Each
//! active subject has a mark X in [0, 1], the failed part of its requests. For an odds ratio rho,
//! with d = rho pi + 1 - pi, a subject multiplies the e-value by
//!
//! ```text
//! on trial:    1 + X (rho / d - 1)
//! on control:  1 + X (1 / d - 1)
//! ```
//!
//! **Why E <= 1.** pi (rho/d) + (1 - pi)(1/d) = 1. Null: given the past and whatever affects both
//! arms in the block, the marks of active subjects are independent with one mean m. Then
//! E prod = (1 + m (rho/d - 1))^n_T (1 + m (1/d - 1))^n_C
//! <= exp(m [n_T (rho/d - 1) + n_C (1/d - 1)]) = exp(0) = 1, for any m, also a random one. So an outage
//! that affects both arms in the same block is no evidence, whatever its shape. An average over
//! [`ODDS_RATIOS`] keeps it. Gains are clipped from above only ([`super::clip`]); losses never are.
//!
//! The floor is a restart with mass 1e-6 per block with failures, applied once to the whole block: it
//! adds at most that much to the expectation, and after a shared outage the test recovers within seconds.

use std::collections::BTreeMap;

use crate::judge::trial::blocks::Mark;
use crate::judge::trial::clip;
use crate::judge::trial::number_map::ByNumber;
use crate::model::Arm;

/// The odds ratios that are tested, with equal weights.
const ODDS_RATIOS: [f64; 3] = [3.0, 10.0, 100.0];
const WEIGHT: f64 = 1.0 / 3.0;
/// ln(1e-6).
const FLOOR: f64 = -13.815_510_557_964_274;
/// Below this e-value, what single subjects contributed is forgotten.
const FORGET_BELOW: f64 = 0.05;
/// Subjects whose contribution is kept; the last ones share one entry, which only lowers it.
const SUBJECTS_MAX: usize = 4_000;

/// What one witness adds in a block: what speaks against the release, and what speaks for it.
#[derive(Debug, Clone, Copy, Default)]
struct Steps {
    gain: [f64; 3],
    loss: [f64; 3],
}

/// The state of one share test.
#[derive(Debug, Clone)]
pub(super) struct ShareTest {
    log_e: [f64; 3],
    /// What each subject added since the evidence began.
    gains: ByNumber<[f32; 3]>,
    /// What the marks of the current block add, by witness.
    block: BTreeMap<u16, Steps>,
    nats_to_threshold: f64,
    /// The part of the way that one block may cover.
    block_share: f64,
    threshold: f64,
}

impl ShareTest {
    /// A test with this error probability, in which one block covers at most `block_share`.
    pub(super) fn new(alpha: f64, block_share: f64) -> Self {
        Self {
            log_e: [0.0; 3],
            gains: ByNumber::default(),
            block: BTreeMap::new(),
            nats_to_threshold: clip::nats_to_threshold(alpha, WEIGHT),
            block_share,
            threshold: 1.0 / alpha,
        }
    }

    /// Takes the mark of one active subject, weakened by `fade`; `on_trial` subjects are on trial. It
    /// counts when the block ends. Marks of one witness add up, to no more than its part of the way.
    pub(super) fn update(&mut self, mark: &Mark, fade: f64, on_trial: usize) {
        let Mark { subject, arm, share, pi } = *mark;
        let mark = share * fade;
        if pi <= 0.0 || 1.0 <= pi || mark <= 0.0 {
            return;
        }
        let gains = self.gains.get(&self.key(subject)).copied().unwrap_or_default();
        let subject_max = clip::subject_share(on_trial) * self.nats_to_threshold;
        let Steps { gain, loss } = self.block.entry(subject).or_default();
        let sums = gain.iter_mut().zip(loss);
        for (((gain, loss), rho), before) in sums.zip(ODDS_RATIOS).zip(gains) {
            let d = rho * pi + 1.0 - pi;
            let odds = match arm {
                Arm::Trial => rho / d,
                Arm::Control => 1.0 / d,
            };
            let step = (mark * (odds - 1.0)).ln_1p();
            *loss += step.min(0.0);
            let room = (subject_max - f64::from(before)).max(0.0);
            *gain = (*gain + step.max(0.0)).min(room);
        }
    }

    /// Ends a block that covers at most this part of the way, and no more than others do: its marks
    /// count, together, whatever their order.
    pub(super) fn end_block(&mut self, block_share: f64) {
        let block_max = block_share.min(self.block_share) * self.nats_to_threshold;
        let block = std::mem::take(&mut self.block);
        let sum = |index: usize, of: fn(&Steps) -> &[f64; 3]| -> f64 {
            block.values().filter_map(|steps| of(steps).get(index)).sum()
        };
        let mut kept = [1.0; 3];
        for (index, (log_e, kept)) in self.log_e.iter_mut().zip(&mut kept).enumerate() {
            let (gain, loss) = (sum(index, |it| &it.gain), sum(index, |it| &it.loss));
            if block_max < gain + loss {
                *kept = (block_max - loss) / gain;
            }
            *log_e = (*log_e + (gain + loss).min(block_max)).max(FLOOR);
        }
        for (subject, steps) in &block {
            let key = self.key(*subject);
            let gains = self.gains.entry(key).or_default();
            for ((gain, step), kept) in gains.iter_mut().zip(steps.gain).zip(kept) {
                #[expect(clippy::cast_possible_truncation, reason = "a bound needs no precision")]
                let rounded = (step * kept) as f32;
                *gain += rounded;
            }
        }
        if self.e_value() < FORGET_BELOW {
            self.gains.clear();
        }
    }

    /// From now on these witnesses stand for the ones before: their contributions add up.
    pub(super) fn regroup(&mut self, witnesses: &BTreeMap<u16, u16>) {
        for (before, gains) in std::mem::take(&mut self.gains) {
            let witness = witnesses.get(&before).copied().unwrap_or(u16::MAX);
            let sums = self.gains.entry(witness).or_default();
            sums.iter_mut().zip(gains).for_each(|(sum, gain)| *sum += gain);
        }
    }

    fn key(&self, subject: u16) -> u16 {
        let is_kept = self.gains.len() < SUBJECTS_MAX || self.gains.contains_key(&subject);
        if is_kept { subject } else { u16::MAX }
    }

    /// Drops all evidence: the next episode is tested on its own.
    pub(super) fn reset(&mut self) {
        self.log_e = [0.0; 3];
        self.gains.clear();
    }

    /// The evidence that the trial arm fails more.
    pub(super) fn e_value(&self) -> f64 {
        self.log_e.iter().map(|log_e| WEIGHT * log_e.exp()).sum()
    }

    /// Whether the evidence is enough.
    pub(super) fn is_reached(&self) -> bool {
        self.threshold <= self.e_value()
    }
}
