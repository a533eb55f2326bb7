//! What a release on trial and the warm one live through in a bake, in blocks of 250 ms.

use super::rng::{Poisson, Rng};

/// Blocks in a second, and in the bake of 30 minutes.
pub const BLOCKS_PER_SECOND: usize = 4;
/// The whole bake.
pub const BAKE_BLOCKS: usize = 1_800 * BLOCKS_PER_SECOND;
/// What a healthy release fails.
pub const HEALTHY_ERROR_RATE: f64 = 0.001;
/// What the objective of 99.5 % allows.
pub const BUDGET: f64 = 0.005;
/// Shadow calls in a block, while the judge is suspicious: as many as there are requests, but at
/// least 40 and at most 100 a second.
pub fn shadow_calls(rate: f64) -> u32 {
    (rate / BLOCKS_PER_SECOND as f64).clamp(10.0, 25.0) as u32
}

/// What happens in a bake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scenario {
    /// The new release fails this share of requests from this second on.
    Regression(f64, usize),
    /// Both are healthy.
    Healthy,
    /// Both fail exactly as often as they may.
    AtLimit,
    /// Both are healthy but for three bursts each, independent: exponential with a mean of 2 s, at
    /// 5 to 30 %.
    Bursty,
    /// The same, but no burst is longer than this many seconds.
    ShortBursts(f64),
    /// Each failed request is repeated 1 to 5 times at once, and fails again.
    Retries,
    /// The new release fails half of the requests of its first two seconds.
    ColdStart,
    /// Half as many failures again: 0.15 %, not 0.10 %.
    BelowMinEffect,
    /// Both fail 30 % from a random moment on.
    SharedEqual,
    /// From a random moment on the new release fails 45 %, the old one 30 %.
    SharedUneven,
    /// A common rate that ramps from 0 to 60 % over the bake, in waves of a minute.
    SharedWave,
}

/// One block, of both releases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block {
    /// Requests on the new release, and bad ones among them.
    pub requests: u32,
    pub failures: u32,
    /// The same on the warm release, if it has traffic.
    pub warm_requests: u32,
    pub warm_failures: u32,
    /// Shadow calls on the warm release, if any are sent, and the bad ones.
    pub shadow_requests: u32,
    pub shadow_failures: u32,
    /// Nothing is answered at all.
    pub process_dead: bool,
}

impl Scenario {
    /// One bake of it, so many blocks long, at so many requests a second on each release.
    pub fn generate(self, rate: f64, seed: u64, blocks: usize) -> Vec<Block> {
        let mut dice = Rng::new(seed);
        let rates = self.rates(&mut dice, blocks);
        let mean = rate / BLOCKS_PER_SECOND as f64;
        let [mut good, mut bad, mut warm_good, mut warm_bad] =
            std::array::from_fn(|_| Poisson::default());
        rates
            .into_iter()
            .map(|(new, warm)| {
                // A thinned Poisson count: n is Poisson, and bad is binomial among n.
                let mut block = Block {
                    failures: bad.sample(mean * new, &mut dice),
                    warm_failures: warm_bad.sample(mean * warm, &mut dice),
                    shadow_requests: shadow_calls(rate),
                    shadow_failures: dice.binomial(shadow_calls(rate), warm),
                    process_dead: new >= 1.0,
                    ..Block::default()
                };
                if self == Self::Retries {
                    block.failures = retries(block.failures, &mut dice);
                    block.warm_failures = retries(block.warm_failures, &mut dice);
                }
                block.requests = block.failures + good.sample(mean * (1.0 - new), &mut dice);
                block.warm_requests =
                    block.warm_failures + warm_good.sample(mean * (1.0 - warm), &mut dice);
                block
            })
            .collect()
    }

    /// The failure rates of the new release and of the warm one, block by block.
    fn rates(self, dice: &mut Rng, blocks: usize) -> Vec<(f64, f64)> {
        let mut rates = vec![(HEALTHY_ERROR_RATE, HEALTHY_ERROR_RATE); blocks];
        let mut from = |block: usize, new: f64, warm: f64| {
            rates.iter_mut().skip(block).for_each(|at| *at = (new, warm));
        };
        let someday = |dice: &mut Rng| (dice.uniform_between(0.0, 0.9) * blocks as f64) as usize;
        match self {
            Self::Healthy | Self::Retries => (),
            Self::Regression(share, onset) => {
                from(onset * BLOCKS_PER_SECOND, share, HEALTHY_ERROR_RATE)
            }
            Self::AtLimit => from(0, BUDGET, BUDGET),
            Self::BelowMinEffect => from(0, 1.5 * HEALTHY_ERROR_RATE, HEALTHY_ERROR_RATE),
            Self::SharedEqual => from(someday(dice), 0.3, 0.3),
            Self::SharedUneven => from(someday(dice), 0.45, 0.3),
            Self::ColdStart => {
                from(0, 0.5, HEALTHY_ERROR_RATE);
                from(2 * BLOCKS_PER_SECOND, HEALTHY_ERROR_RATE, HEALTHY_ERROR_RATE);
            }
            Self::Bursty => bursts(&mut rates, dice, f64::INFINITY),
            Self::ShortBursts(longest) => bursts(&mut rates, dice, longest),
            Self::SharedWave => {
                let phase = dice.uniform_between(0.0, std::f64::consts::TAU);
                for (block, at) in rates.iter_mut().enumerate() {
                    let angle = phase
                        + std::f64::consts::TAU * block as f64 / (60 * BLOCKS_PER_SECOND) as f64;
                    let height = 0.6 * block as f64 / blocks as f64;
                    let rate = HEALTHY_ERROR_RATE.max(height * (0.6 + 0.4 * angle.sin()));
                    *at = (rate, rate);
                }
            }
        }
        rates
    }
}

fn bursts(rates: &mut [(f64, f64)], dice: &mut Rng, longest: f64) {
    for _ in 0..3 {
        burst(rates, dice, longest, |(new, _)| new);
        burst(rates, dice, longest, |(_, warm)| warm);
    }
}

/// A burst somewhere in the bake; a block that it covers in part gets a part.
fn burst(
    rates: &mut [(f64, f64)],
    dice: &mut Rng,
    longest: f64,
    of: impl Fn(&mut (f64, f64)) -> &mut f64,
) {
    let begin = dice.uniform_between(0.0, rates.len() as f64);
    let mut length = dice.exponential(2.0);
    while longest < length {
        length = dice.exponential(2.0);
    }
    let end = begin + length * BLOCKS_PER_SECOND as f64;
    let height = dice.uniform_between(0.05, 0.3);
    for (block, at) in rates.iter_mut().enumerate().skip(begin as usize) {
        let block = block as f64;
        if end <= block {
            break;
        }
        let covered = end.min(block + 1.0) - begin.max(block);
        *of(at) += covered * height;
    }
}

fn retries(bad: u32, dice: &mut Rng) -> u32 {
    (0..bad).map(|_| 2 + dice.uniform_between(0.0, 5.0) as u32).sum()
}
