//! Chance that can be repeated: a seed gives the same bake on every machine.

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// Seeds that differ in one bit give unrelated streams.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to below 1.
    pub fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number between the two.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    /// A time with this mean, by the exponential distribution.
    pub fn wait(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }

    /// How many of `n` come out bad, each with probability `p`; for small `n`.
    pub fn binomial(&mut self, n: u32, p: f64) -> u32 {
        (0..n).map(|_| u32::from(self.share() < p)).sum()
    }
}

/// Counts of a Poisson distribution; the last mean's tables are kept.
#[derive(Default)]
pub struct Poisson {
    mean: f64,
    /// exp(-mean), or 0 where the mean is large.
    none: f64,
    /// Hörmann's PTRS constants: b, a, 1/alpha, v_r, ln(mean).
    ptrs: [f64; 5],
}

impl Poisson {
    /// Above this, counting up from zero takes longer than rejection.
    const SMALL: f64 = 12.0;

    /// A count with this mean.
    pub fn draw(&mut self, mean: f64, dice: &mut Dice) -> u32 {
        if mean <= 0.0 {
            return 0;
        }
        if self.mean != mean {
            self.prepare(mean);
        }
        if mean < Self::SMALL { self.count_up(dice) } else { self.reject(dice) }
    }

    fn prepare(&mut self, mean: f64) {
        self.mean = mean;
        self.none = (-mean).exp();
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.024_83 * b;
        self.ptrs = [b, a, 1.123_9 + 1.132_8 / (b - 3.4), 0.927_7 - 3.622_4 / (b - 2.0), mean.ln()];
    }

    /// Inversion: the chances of 0, 1, 2 and so on are summed up.
    fn count_up(&self, dice: &mut Dice) -> u32 {
        let u = dice.share();
        let (mut count, mut chance, mut sum) = (0, self.none, self.none);
        while sum <= u && count < 1_000 {
            count += 1;
            chance *= self.mean / f64::from(count);
            sum += chance;
        }
        count
    }

    /// Transformed rejection (Hörmann 1993, algorithm PTRS).
    fn reject(&self, dice: &mut Dice) -> u32 {
        let [b, a, inverse_alpha, v_r, ln_mean] = self.ptrs;
        loop {
            let u = dice.share() - 0.5;
            let v = dice.share();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + self.mean + 0.43).floor();
            if us >= 0.07 && v <= v_r {
                return k as u32;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let left = (v * inverse_alpha / (a / (us * us) + b)).ln();
            if left <= k * ln_mean - self.mean - libm::lgamma(k + 1.0) {
                return k as u32;
            }
        }
    }
}
