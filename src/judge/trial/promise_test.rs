//! The promise test: whether the trial arm fails more than its objective allows.
//!
//! A cell is one subject, call and second of start times, with X = failed / started. For an alternative
//! q > p0 with lam = (q - p0) / (p0 (1 - p0)), a cell multiplies the e-value by (1-q)/(1-p0) when it
//! starts, and, as far as its failures are known, by [1 + lam (X - p0)] (1-p0)/(1-q).
//!
//! **Why E <= 1.** 1 + lam (X - p0) has expectation <= 1 where E[X | past] <= p0, and grows with X.
//! Unknown failures count as successes, so at every time the value is at most the expectation of its
//! final value: counting at the start makes slow successes and fast failures the ordinary case. The
//! alternatives q = `min_effect` p0 {1, 2, 4, ...}, 0.99 are averaged by weight, and onsets by prior mass
//! (judge.rs of a bake: [`crate::judge::e_process`]); the masses sum to less than 1. A subject and a
//! block each cover at most a part of the way ([`super::clip`]), net of what their successes cost.

use std::collections::BTreeMap;

use crate::judge::trial::clip;
use crate::judge::trial::number_map::ByNumber;

/// Evidence above this adds nothing, and would take long to forget.
const EVIDENCE_MAX: f64 = 1e12;
/// Prior mass of a regression that is there from the start.
pub(super) const MASS_AT_START: f64 = 0.3;
/// The same for each later step of the ramp.
pub(super) const MASS_AT_STEP: f64 = 0.1;
/// The same for all other times of the bake.
pub(super) const MASS_SPREAD: f64 = 0.4;
const WEIGHTS: [f64; 7] = [0.3, 0.15, 0.15, 0.1, 0.1, 0.1, 0.05];
const LAST_WEIGHT: f64 = 0.05;
const LAST_ALTERNATIVE: f64 = 0.99;
const GEOMETRIC_MAX: f64 = 0.9;
const COMPONENTS_MAX: usize = 8;
/// The net gain of a block does not fall below this: an onset inside it still counts.
const BLOCK_GAIN_MIN: f64 = -1.0;
/// Below this e-value, what single subjects contributed is forgotten.
const FORGET_BELOW: f64 = 0.5;
/// Subjects whose contribution is kept; the last ones share one entry, which only lowers it.
const SUBJECTS_MAX: usize = 1_000;

type Gains = [f32; COMPONENTS_MAX];

/// One alternative.
#[derive(Debug, Clone, Copy)]
struct Component {
    weight: f64,
    /// What a cell costs when it starts, in nats; negative. And the factor that this is.
    start: f64,
    start_factor: f64,
    lambda: f64,
    nats_to_threshold: f64,
    likelihood: f64,
    block_gain: f64,
}

/// The state of one promise test.
#[derive(Debug, Clone)]
pub(super) struct PromiseTest {
    allowed: f64,
    components: Vec<Component>,
    gains: ByNumber<Gains>,
    threshold: f64,
}

impl PromiseTest {
    /// A test that at most `allowed` of the requests fail, with this error probability.
    pub(super) fn new(allowed: f64, min_effect: f64, alpha: f64) -> Self {
        let geometric = std::iter::successors(Some(allowed * min_effect), |q| Some(2.0 * q))
            .take_while(|q| *q < GEOMETRIC_MAX)
            .take(COMPONENTS_MAX - 1);
        let mut alternatives: Vec<(f64, f64)> = geometric.zip(WEIGHTS).collect();
        alternatives.push((LAST_ALTERNATIVE.max(allowed), LAST_WEIGHT));
        let sum: f64 = alternatives.iter().map(|it| it.1).sum();
        let component = |(q, weight): (f64, f64)| Component {
            weight: weight / sum,
            start: ((1.0 - q) / (1.0 - allowed)).ln(),
            start_factor: (1.0 - q) / (1.0 - allowed),
            lambda: (q - allowed) / (allowed * (1.0 - allowed)),
            nats_to_threshold: clip::nats_to_threshold(alpha, MASS_AT_START * weight / sum),
            likelihood: 0.0,
            block_gain: 0.0,
        };
        Self {
            allowed,
            components: alternatives.into_iter().map(component).collect(),
            gains: ByNumber::default(),
            threshold: 1.0 / alpha,
        }
    }

    /// Begins a block of time.
    pub(super) fn begin_block(&mut self) {
        self.components.iter_mut().for_each(|it| it.block_gain = 0.0);
    }

    /// A second in which `cells` cells started, and a regression may have begun with this mass.
    pub(super) fn start(&mut self, cells: u32, mass: f64) {
        let (power, cells) = (i32::try_from(cells).unwrap_or(i32::MAX), f64::from(cells));
        for it in &mut self.components {
            it.likelihood = (it.likelihood + mass) * it.start_factor.powi(power);
            it.block_gain = (it.block_gain + cells * it.start).max(BLOCK_GAIN_MIN);
        }
        if !self.gains.is_empty() && self.e_value() < FORGET_BELOW {
            self.gains.clear();
        }
    }

    /// A cell of this subject started: what it contributed before counts that much less.
    pub(super) fn credit(&mut self, subject: u16) {
        let Some(gains) = self.gains.get_mut(&subject) else { return };
        for (gain, it) in gains.iter_mut().zip(&self.components) {
            *gain = (*gain + to_f32(it.start)).max(0.0);
        }
    }

    /// The failed part of a cell that has started is now `share`, and was `before`.
    pub(super) fn fail(&mut self, subject: u16, before: f64, share: f64, on_trial: usize) {
        let key = if self.gains.len() < SUBJECTS_MAX { subject } else { u16::MAX };
        let gains = self.gains.entry(key).or_default();
        for (it, gain) in self.components.iter_mut().zip(gains) {
            let bet = |x: f64| (it.lambda * (x - self.allowed)).ln_1p();
            let mut step = bet(share) - bet(before);
            let subject_max = clip::subject_share(on_trial) * it.nats_to_threshold;
            step = step.min((subject_max - f64::from(*gain)).max(0.0));
            step = step.min((clip::THREE * it.nats_to_threshold - it.block_gain).max(0.0));
            *gain += to_f32(step);
            it.block_gain += step;
            it.likelihood = (it.likelihood * step.exp()).min(EVIDENCE_MAX);
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

    /// The evidence that the promise is broken.
    pub(super) fn e_value(&self) -> f64 {
        self.components.iter().map(|it| it.weight * it.likelihood).sum()
    }

    /// Whether the evidence is enough.
    pub(super) fn is_reached(&self) -> bool {
        self.threshold <= self.e_value()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a bound needs no precision")]
fn to_f32(value: f64) -> f32 {
    value as f32
}
