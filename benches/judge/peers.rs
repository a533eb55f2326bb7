//! What others do, from their documentation and source. Each is given the traffic it asks for, at
//! once, and without scrape or query delay.

use super::mann_whitney;
use super::traffic::{BLOCKS_PER_SECOND, BUDGET, Block, HEALTHY_ERROR_RATE};

/// Minutes that Kayenta needs to reach its confidence.
const KAYENTA_MIN: usize = 5;
const MINUTE: usize = 60 * BLOCKS_PER_SECOND;

/// A rule that rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Argo Rollouts (`analysis/analysis.go`, 9f8d111d): a measurement fails unless at least 95 %
    /// of the minute's requests succeed, and one more than `failureLimit` = 3 fails the run. The
    /// documented example, but for its interval of five minutes. Without requests the result is
    /// NaN, which fails.
    Argo,
    /// Flagger (`pkg/controller/scheduler.go`, 15bd6ad5): a check each minute that at least 99 % of
    /// the requests succeed; no values fail it. After `threshold` = 5 failed checks in all, the
    /// next tick rolls back.
    Flagger,
    /// The multiwindow burn rates of the SRE workbook, chapter 5, table 5-8: 14.4 times the budget
    /// in 1 h and 5 min, or 6 times in 6 h and 30 min. Evaluated every 30 s; before the switch the
    /// service was healthy.
    BurnRate,
    /// The same with every window divided by 120, so that an hour becomes 30 s of the bake. Our
    /// choice: nobody publishes such a rule.
    BurnRateScaled,
    /// Kayenta (`NetflixACAJudge.scala`, `MannWhitneyClassifier.scala`, a69573be): Mann-Whitney on
    /// the error ratios of each minute against those of the baseline, tolerance 0.25, confidence
    /// 0.98, a critical metric. Judged again each minute on all minutes since the switch, from the
    /// fifth on: with fewer the interval is the range of all differences, and the smallest
    /// difference is a finding.
    Kayenta,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Argo, Self::Flagger, Self::BurnRate, Self::BurnRateScaled, Self::Kayenta];

    /// A short name for a column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Argo => "Argo",
            Self::Flagger => "Flagger",
            Self::BurnRate => "burn",
            Self::BurnRateScaled => "burn/120",
            Self::Kayenta => "Kayenta",
        }
    }

    /// The block in which it rolls back; `rate` is what the service had before the switch.
    pub fn detection_block(self, bake: &[Block], rate: f64) -> Option<usize> {
        match self {
            Self::Argo => first_failed_minute(bake, 0.05, 4).map(end_of),
            Self::Flagger => first_failed_minute(bake, 0.01, 5)
                .map(|minute| end_of(minute + 1))
                .filter(|block| *block < bake.len()),
            Self::BurnRate => burn_rate_alert(bake, rate, 30 * BLOCKS_PER_SECOND, 1),
            Self::BurnRateScaled => burn_rate_alert(bake, rate, 1, 120),
            Self::Kayenta => kayenta(bake).map(end_of),
        }
    }
}

/// The minute that fails as the `limit`th one.
fn first_failed_minute(bake: &[Block], allowed: f64, limit: usize) -> Option<usize> {
    let minutes = bake.chunks_exact(MINUTE).enumerate();
    let failed = |minute: &[Block]| {
        let [n, bad, ..] = sums(minute);
        // Without requests 0/0 is not above any bound, but not below it either: it fails.
        n == 0.0 || allowed < bad / n
    };
    minutes.filter(|(_, minute)| failed(minute)).nth(limit - 1).map(|(index, _)| index)
}

fn end_of(minute: usize) -> usize {
    (minute + 1) * MINUTE - 1
}

/// Requests and bad ones, of the new release and of the warm one.
fn sums(blocks: &[Block]) -> [f64; 4] {
    blocks.iter().fold([0.0; 4], |[n, bad, warm_n, warm_bad], block| {
        [
            n + f64::from(block.requests),
            bad + f64::from(block.failures),
            warm_n + f64::from(block.warm_requests),
            warm_bad + f64::from(block.warm_failures),
        ]
    })
}

/// Burn rates over windows divided by `scale`, evaluated after every `step` blocks.
fn burn_rate_alert(bake: &[Block], rate: f64, step: usize, scale: usize) -> Option<usize> {
    let hour = 3_600 * BLOCKS_PER_SECOND / scale / step;
    let windows = [(hour, hour / 12, 14.4), (6 * hour, hour / 2, 6.0)];
    let past = 6 * hour;
    let n = rate * step as f64 / BLOCKS_PER_SECOND as f64;
    // Sums from the beginning of the past to the end of each step.
    let mut so_far = vec![(0.0, 0.0)];
    for _ in 0..past {
        push_cumulative(&mut so_far, n, n * HEALTHY_ERROR_RATE);
    }
    bake.chunks_exact(step)
        .position(|blocks| {
            let [n, bad, ..] = sums(blocks);
            push_cumulative(&mut so_far, n, bad);
            windows.into_iter().any(|(long, short, factor)| {
                [long, short].into_iter().all(|window| factor < burn_rate_over(&so_far, window))
            })
        })
        .map(|index| (index + 1) * step - 1)
}

fn push_cumulative(so_far: &mut Vec<(f64, f64)>, n: f64, bad: f64) {
    let (all, all_bad) = so_far.last().copied().unwrap_or_default();
    so_far.push((all + n, all_bad + bad));
}

/// How many times the budget the last steps failed.
fn burn_rate_over(so_far: &[(f64, f64)], window: usize) -> f64 {
    let mut back = so_far.iter().rev();
    let now = back.next().copied().unwrap_or_default();
    let then = back.nth(window - 1).copied().unwrap_or_default();
    let n = now.0 - then.0;
    if n < 0.5 { 0.0 } else { (now.1 - then.1) / n / BUDGET }
}

fn kayenta(bake: &[Block]) -> Option<usize> {
    let (mut new, mut warm) = (Vec::new(), Vec::new());
    bake.chunks_exact(MINUTE).position(|minute| {
        let [n, bad, warm_n, warm_bad] = sums(minute);
        if n > 0.0 {
            new.push(bad / n);
        }
        if warm_n > 0.0 {
            warm.push(warm_bad / warm_n);
        }
        let enough = KAYENTA_MIN <= new.len().min(warm.len());
        enough && mann_whitney::is_higher(&new, &warm, 0.98, 0.25)
    })
}
