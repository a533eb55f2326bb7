//! Two releases in the same moments: an e-process against "the deploy is not to blame".
//!
//! The null: in every block, given the past, the release on trial fails with probability at most
//! `rate_ratio_max` times that of the warm one: `p_T <= rho p_C`, at any level, drifting as it likes. A shared
//! outage is such a level. For `n_T` requests on trial and `n_C` on the warm release the factor is
//!
//! ```text
//! f_T(x) = (pa/theta_T)^x ((1-pa)/(1-theta_T))^(1-x),   f_C(x) likewise with pb and theta_C
//! ```
//!
//! where `(theta_T, theta_C)`, `theta_T = rho theta_C`, is the point of the null nearest to the
//! alternative `(pa, pb)` (reverse information projection). Proof sketch: with `N = n_T + n_C`, by
//! the inequality of means `E[f_T]^n_T E[f_C]^n_C <= ((n_T E f_T + n_C E f_C)/N)^N`, and the mean is
//! at most 1 everywhere in the convex null because the projection is optimal. `f_C` falls as the
//! warm release fails more, so its requests may come from several sources, each of which fails at
//! least as often as the null says. (Turner, Ly and Grünwald, "Generic E-variables for exact
//! sequential k-sample tests"; enumerated in a test below.)
//!
//! Two sources are contrasted with the release on trial. Its own traffic on the warm release:
//! sessions that began before the deploy. And **shadow calls**: requests that failed on trial and
//! are repeated on the warm one. How many are sent in a block is decided before the block; they
//! are held against the safe requests that end on trial in that same block, not against those that
//! they repeat, so selection does no harm: under a shared outage a request that just failed fails
//! again at least as likely as any other, which is all that the null asks of `p_C`. Bad there and
//! good here is evidence against the deploy; bad on both is evidence for a shared outage.
//!
//! A contrast gathers only while the trial is suspicious. The `i`-th time it begins it stakes
//! `1/(i (i+1))`, and these sum to at most 1: a late regression pays for the false alarms before
//! it, not for the time.

use crate::judge::block::BLOCK_MS;
use crate::judge::num::to_f64;

/// Blocks of 250 ms that a verdict needs.
const BLOCKS_TO_BLAME_MIN: f64 = 2.0;
/// A block closes after this many requests, or this many milliseconds.
const BLOCK_REQUESTS: u64 = 10;
const BLOCK_MS_MAX: u32 = 5_000;
/// The alternatives for the release on trial, equally likely.
const TRIAL_RATES: [f64; 8] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.99];
/// The part of a stake that goes on the beginning; the rest is spread over `STAKE_BLOCKS` blocks.
const INITIAL_STAKE_SHARE: f64 = 0.9;
const STAKE_BLOCKS: u32 = 240;
const TEST_SUM_MAX: f64 = 1e9;

/// The evidence that one release fails more than another.
#[derive(Debug, Clone)]
pub struct TwoSampleTest {
    rate_ratio_max: f64,
    threshold: f64,
    /// The warm release's failure rate as known before: bad requests, and all.
    baseline_counts: (f64, f64),
    sums: [f64; TRIAL_RATES.len()],
    /// How often it began.
    runs: u32,
    running: bool,
    blocks: u32,
    current_block: PairedCounts,
    current_block_ms: u32,
    /// Since it began.
    counts: PairedCounts,
}

/// Requests of both releases in one block, and the bad ones among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairedCounts {
    /// On trial: all, bad.
    pub trial: (u64, u64),
    /// On the warm release: all, bad.
    pub warm: (u64, u64),
}

impl TwoSampleTest {
    /// Nothing gathered. `baseline_counts` are the bad requests and all requests that the warm release is
    /// known for; `threshold` is where the evidence is enough.
    pub fn new(rate_ratio_max: f64, threshold: f64, baseline_counts: (f64, f64)) -> Self {
        Self {
            rate_ratio_max,
            threshold,
            baseline_counts,
            sums: [0.0; TRIAL_RATES.len()],
            runs: 0,
            running: false,
            blocks: 0,
            current_block: PairedCounts::default(),
            current_block_ms: 0,
            counts: PairedCounts::default(),
        }
    }

    /// Starts a run, or stops it and drops its evidence.
    pub fn set_running(&mut self, going: bool) {
        if self.running == going {
            return;
        }
        self.running = going;
        (self.current_block, self.current_block_ms, self.blocks) = (PairedCounts::default(), 0, 0);
        self.counts = PairedCounts::default();
        self.sums = [0.0; TRIAL_RATES.len()];
        if going {
            self.runs = self.runs.saturating_add(1);
            self.sums = [self.stake() * INITIAL_STAKE_SHARE; TRIAL_RATES.len()];
        }
    }

    /// Takes in what ended in the same `ms` milliseconds.
    pub fn update(&mut self, ms: u32, pair: PairedCounts) {
        let limit = |(n, bad): (u64, u64)| (n, bad.min(n));
        let pair = PairedCounts { trial: limit(pair.trial), warm: limit(pair.warm) };
        if self.running {
            self.current_block = self.current_block.saturating_add(pair);
            self.counts = self.counts.saturating_add(pair);
            self.current_block_ms = self.current_block_ms.saturating_add(ms);
            let (a, b) = (self.current_block.trial.0, self.current_block.warm.0);
            let enough =
                BLOCK_REQUESTS <= a.saturating_add(b) || BLOCK_MS_MAX <= self.current_block_ms;
            if 0 < a && 0 < b && enough {
                let block = std::mem::take(&mut self.current_block);
                let ms = std::mem::take(&mut self.current_block_ms);
                self.apply_block(block, ms);
                self.update_baseline(block.warm);
            }
        } else {
            self.update_baseline(pair.warm);
        }
    }

    fn update_baseline(&mut self, (n, bad): (u64, u64)) {
        self.baseline_counts.0 += to_f64(bad);
        self.baseline_counts.1 += to_f64(n);
    }

    fn apply_block(&mut self, block: PairedCounts, ms: u32) {
        let pb = (self.baseline_counts.0 / self.baseline_counts.1.max(1.0)).clamp(1e-4, 0.45);
        let added_stake = self.stake() * (1.0 - INITIAL_STAKE_SHARE) / f64::from(STAKE_BLOCKS);
        let more = if self.blocks < STAKE_BLOCKS { added_stake } else { 0.0 };
        self.blocks = self.blocks.saturating_add(1);
        let weight = 1.0 / TRIAL_RATES.len() as f64;
        let nats_to_threshold =
            (self.threshold / (weight * self.stake() * INITIAL_STAKE_SHARE)).ln();
        let cap = nats_to_threshold / BLOCKS_TO_BLAME_MIN
            * (f64::from(ms) / f64::from(BLOCK_MS)).max(1.0);
        for (sum, pa) in self.sums.iter_mut().zip(TRIAL_RATES) {
            let gain = log_factor(self.rate_ratio_max, block, pa, pb).min(cap);
            *sum = ((*sum + more) * gain.exp()).min(TEST_SUM_MAX);
        }
    }

    /// What this beginning may lose, as a share of everything.
    fn stake(&self) -> f64 {
        let times = f64::from(self.runs.max(1));
        1.0 / (times * (times + 1.0))
    }

    /// The e-value now; 1 while nothing is gathered.
    pub fn e_value(&self) -> f64 {
        if !self.running {
            return 1.0;
        }
        let sum = self.sums.iter().sum::<f64>() / self.sums.len() as f64;
        // What was staked before is lost; what was not staked yet is kept.
        sum + 1.0 / (f64::from(self.runs) + 1.0)
    }

    /// The counts of the current run.
    pub fn counts(&self) -> PairedCounts {
        self.counts
    }
}

impl PairedCounts {
    fn saturating_add(self, other: Self) -> Self {
        let plus =
            |a: (u64, u64), b: (u64, u64)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1));
        Self { trial: plus(self.trial, other.trial), warm: plus(self.warm, other.warm) }
    }
}

/// The logarithm of the factor of one block, in nats.
fn log_factor(rho: f64, block: PairedCounts, pa: f64, pb: f64) -> f64 {
    if pa <= 1.2 * rho * pb {
        return 0.0;
    }
    let ((nt, kt), (nc, kc)) = (block.trial, block.warm);
    let (nt, kt, nc, kc) = (to_f64(nt), to_f64(kt), to_f64(nc), to_f64(kc));
    let bad = nt * pa + nc * pb;
    let b = bad * (1.0 + rho) + nt * (1.0 - pa) * rho + nc * (1.0 - pb);
    let root = (b * b - 4.0 * rho * (nt + nc) * bad).max(0.0).sqrt();
    let theta = 2.0 * bad / (b + root);
    let trial =
        kt * (pa / (rho * theta)).ln() + (nt - kt) * ((1.0 - pa) / (1.0 - rho * theta)).ln();
    let warm = kc * (pb / theta).ln() + (nc - kc) * ((1.0 - pb) / (1.0 - theta)).ln();
    let gain = trial + warm;
    if gain.is_finite() { gain } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binomial(n: u64, k: u64, p: f64) -> f64 {
        let ways = (1..=k).fold(1.0, |ways, i| ways * to_f64(n + 1 - i) / to_f64(i));
        ways * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
    }

    #[test]
    fn the_expectation_is_at_most_one_everywhere_in_the_null() {
        let mut worst = 0.0_f64;
        for (nt, nc) in [(1, 1), (3, 5), (5, 3), (2, 10), (12, 2), (8, 8)] {
            for (pa, pb) in [(0.99, 1e-4), (0.2, 0.01), (0.1, 0.04), (0.7, 0.3), (0.4, 0.001)] {
                for level in 0..=20 {
                    let p_c = f64::from(level) / 40.0;
                    let mut expected = 0.0;
                    for kt in 0..=nt {
                        for kc in 0..=nc {
                            let pair = PairedCounts { trial: (nt, kt), warm: (nc, kc) };
                            expected += binomial(nt, kt, 2.0 * p_c)
                                * binomial(nc, kc, p_c)
                                * log_factor(2.0, pair, pa, pb).exp();
                        }
                    }
                    worst = worst.max(expected);
                }
            }
        }
        assert!(worst <= 1.0 + 1e-9, "{worst}");
        assert!(0.99 < worst, "{worst}: a test that sees nothing");
    }

    type Row = (u64, u64, u64, u64, f64);
    /// `n_T, k_T, n_C, k_C` of each block, and the e-value of a mixture over other alternatives and
    /// onsets after it, from an independent implementation.
    const VECTORS: [&[Row]; 2] = [
        &[
            (10, 10, 10, 0, 53.994_541_025_331_316),
            (10, 10, 10, 0, 26_962.725_328_001_36),
            (10, 10, 10, 0, 23_317_104.176_291_674),
        ],
        &[
            (10, 3, 10, 3, 0.008_402_093_643_779_938),
            (10, 3, 10, 3, 0.006_089_510_673_665_987),
            (10, 3, 10, 3, 0.006_141_755_590_011_89),
        ],
    ];

    #[test]
    fn follows_the_vectors() {
        let weights = [0.30, 0.15, 0.15, 0.10, 0.10, 0.10, 0.05, 0.05];
        let rates = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.99];
        for rows in VECTORS {
            let (mut sums, mut known, mut mass) = ([0.0; 8], (1.0, 1_000.0), 0.5);
            for &(nt, kt, nc, kc, want) in rows {
                let pair = PairedCounts { trial: (nt, kt), warm: (nc, kc) };
                for (sum, pa) in sums.iter_mut().zip(rates) {
                    *sum = (*sum + mass) * log_factor(2.0, pair, pa, known.0 / known.1).exp();
                }
                known = (known.0 + to_f64(kc), known.1 + to_f64(nc));
                mass = 0.5 / 1_799.0;
                let e: f64 = sums.iter().zip(weights).map(|(sum, weight)| sum * weight).sum();
                assert!((e / want - 1.0).abs() < 1e-4, "{pair:?}: {e}, not {want}");
            }
        }
    }

    #[test]
    fn bad_here_and_good_there_is_evidence_and_bad_on_both_is_none() {
        let e_value_after = |warm_bad| {
            let mut contrast = TwoSampleTest::new(2.0, 20.0, (1.0, 1_000.0));
            contrast.set_running(true);
            for _ in 0..12 {
                contrast.update(250, PairedCounts { trial: (10, 5), warm: (5, warm_bad) });
            }
            contrast.e_value()
        };
        assert!(1_000.0 < e_value_after(0), "{}", e_value_after(0));
        assert!(e_value_after(3) < 1.0, "{}", e_value_after(3));
    }

    #[test]
    fn stakes_sum_to_one() {
        let mut contrast = TwoSampleTest::new(2.0, 20.0, (0.0, 0.0));
        for _ in 0..50 {
            contrast.set_running(true);
            assert!(contrast.e_value() <= 1.0, "{}", contrast.e_value());
            for _ in 0..100 {
                contrast.update(250, PairedCounts { trial: (10, 3), warm: (10, 3) });
            }
            contrast.set_running(false);
        }
    }

    #[test]
    fn absurd_counts_stay_finite() {
        let mut contrast = TwoSampleTest::new(2.0, 20.0, (0.0, 0.0));
        contrast.set_running(true);
        for _ in 0..100 {
            let (most, half) = (u64::MAX, u64::MAX / 2);
            contrast.update(u32::MAX, PairedCounts { trial: (most, most), warm: (half, 0) });
            contrast.update(0, PairedCounts { trial: (1, 5), warm: (most, half) });
            assert!(contrast.e_value().is_finite());
        }
    }
}
