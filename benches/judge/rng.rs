//! Chance that can be repeated: a seed gives the same bake on every machine.

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// Seeds that differ in one bit give unrelated streams.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to below 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number between the two.
    pub fn uniform_between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// A time with this mean, by the exponential distribution.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    /// How many of `n` come out bad, each with probability `p`; for small `n`.
    pub fn binomial(&mut self, n: u32, p: f64) -> u32 {
        (0..n).map(|_| u32::from(self.uniform() < p)).sum()
    }
}

/// Counts of a Poisson distribution; the last mean's tables are kept.
#[derive(Default)]
pub struct Poisson {
    mean: f64,
    /// exp(-mean), or 0 where the mean is large.
    exp_neg_mean: f64,
    /// Hörmann's PTRS constants: b, a, 1/alpha, v_r, ln(mean).
    ptrs_constants: [f64; 5],
}

impl Poisson {
    /// Above this, counting up from zero takes longer than rejection.
    const INVERSION_MAX_MEAN: f64 = 12.0;

    /// A count with this mean.
    pub fn sample(&mut self, mean: f64, dice: &mut Rng) -> u32 {
        if mean <= 0.0 {
            return 0;
        }
        if self.mean != mean {
            self.set_mean(mean);
        }
        if mean < Self::INVERSION_MAX_MEAN {
            self.sample_by_inversion(dice)
        } else {
            self.sample_by_ptrs(dice)
        }
    }

    fn set_mean(&mut self, mean: f64) {
        self.mean = mean;
        self.exp_neg_mean = (-mean).exp();
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.024_83 * b;
        self.ptrs_constants =
            [b, a, 1.123_9 + 1.132_8 / (b - 3.4), 0.927_7 - 3.622_4 / (b - 2.0), mean.ln()];
    }

    /// Inversion: the chances of 0, 1, 2 and so on are summed up.
    fn sample_by_inversion(&self, dice: &mut Rng) -> u32 {
        let u = dice.uniform();
        let (mut count, mut chance, mut sum) = (0, self.exp_neg_mean, self.exp_neg_mean);
        while sum <= u && count < 1_000 {
            count += 1;
            chance *= self.mean / f64::from(count);
            sum += chance;
        }
        count
    }

    /// Transformed rejection (Hörmann 1993, algorithm PTRS).
    fn sample_by_ptrs(&self, dice: &mut Rng) -> u32 {
        let [b, a, inverse_alpha, v_r, ln_mean] = self.ptrs_constants;
        loop {
            let u = dice.uniform() - 0.5;
            let v = dice.uniform();
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
