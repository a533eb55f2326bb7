//! From the onset of a regression to the verdict, for the judge and its peers.

use std::fmt::Write;

use super::peers::Peer;
use super::rollbackd_judge::{Baseline, RollbackdJudge};
use super::traffic::{BAKE_BLOCKS, BLOCKS_PER_SECOND, Block, Scenario};
use super::{oracle, parallel};

/// Requests a second.
pub const RATES: [f64; 4] = [1.0, 10.0, 100.0, 1_000.0];
/// Failure rates of the new release.
pub const SHARES: [f64; 4] = [0.01, 0.05, 0.2, 1.0];
/// Seconds after the switch.
pub const ONSETS: [usize; 2] = [0, 600];

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Detector {
    Oracle,
    Rollbackd(RollbackdJudge),
    /// The same, but what counts is when the deploy is blamed.
    Attribution(RollbackdJudge),
    Peer(Peer),
}

/// One kind of regression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regression {
    /// Requests a second on each release.
    pub rate: f64,
    /// Share of requests that fail.
    pub error_rate: f64,
    /// Seconds after the switch.
    pub onset_block: usize,
}

/// Seconds from the onset to the verdict for each seed, in ascending order; infinite where the
/// bake ended first.
#[derive(Debug, Clone)]
pub struct DelaySample {
    seconds: Vec<f64>,
    /// Verdicts before there was any trouble. They count as missed.
    false_alarms: usize,
    /// What was left of the bake at the onset.
    censored_at: f64,
}

impl Detector {
    /// All of them, in the order of the columns.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Oracle];
        for burst in [5, 1] {
            for baseline in
                [Baseline::Traffic, Baseline::Shadow, Baseline::Probes, Baseline::Absent]
            {
                all.push(Self::Rollbackd(RollbackdJudge::with(baseline, burst)));
            }
        }
        all.extend(Peer::ALL.map(Self::Peer));
        all
    }

    /// The head of its column.
    pub fn name(self) -> String {
        match self {
            Self::Oracle => "SPRT".to_owned(),
            Self::Rollbackd(ours) | Self::Attribution(ours) => ours.name(),
            Self::Peer(peer) => peer.name().to_owned(),
        }
    }

    fn trips(self, bake: &[Block], trouble: Regression) -> Option<usize> {
        match self {
            Self::Oracle => oracle::detection_block(bake, trouble.error_rate, trouble.onset_block),
            Self::Rollbackd(ours) => ours.detection_block(bake),
            Self::Attribution(ours) => ours.attribution_block(bake),
            Self::Peer(peer) => peer.detection_block(bake, trouble.rate),
        }
    }
}

impl Regression {
    /// How long each detector takes, on the same `seeds` bakes of so many blocks.
    pub fn delays(self, detectors: &[Detector], seeds: u64, blocks: usize) -> Vec<DelaySample> {
        let scene = Scenario::Regression(self.error_rate, self.onset_block);
        let found = parallel::run_seeds(seeds, |seed| {
            let bake = scene.generate(self.rate, self.seed() + seed, blocks);
            detectors.iter().map(|it| it.trips(&bake, self)).collect::<Vec<_>>()
        });
        let column = |index: usize| found.iter().filter_map(move |row| row.get(index).copied());
        (0..detectors.len())
            .map(|index| DelaySample::new(column(index), self.onset_block, blocks))
            .collect()
    }

    /// The first of its seeds.
    fn seed(self) -> u64 {
        (self.rate as u64) * 1_000_000_000 + (self.error_rate * 100.0) as u64 * 1_000_000
    }
}

impl DelaySample {
    fn new(found: impl Iterator<Item = Option<usize>>, onset: usize, blocks: usize) -> Self {
        let begin = onset * BLOCKS_PER_SECOND;
        let mut false_alarms = 0;
        let mut seconds: Vec<f64> = found
            .map(|index| match index {
                Some(index) if begin <= index => {
                    (index + 1 - begin) as f64 / BLOCKS_PER_SECOND as f64
                }
                Some(_) => {
                    false_alarms += 1;
                    f64::INFINITY
                }
                None => f64::INFINITY,
            })
            .collect();
        seconds.sort_unstable_by(f64::total_cmp);
        Self {
            seconds,
            false_alarms,
            censored_at: (blocks - begin) as f64 / BLOCKS_PER_SECOND as f64,
        }
    }

    /// The delay that so large a part stays within; infinite if the bake ends first.
    pub fn quantile_of(&self, part: f64) -> f64 {
        let rank = (part * self.seconds.len() as f64).ceil() as usize;
        self.seconds.get(rank.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile_of(0.5)
    }

    /// The mean, where those missed count as found at the end of the bake. Infinite if more than
    /// half are missed.
    pub fn mean(&self) -> f64 {
        if self.median().is_infinite() {
            return f64::INFINITY;
        }
        let sum: f64 = self.seconds.iter().map(|it| it.min(self.censored_at)).sum();
        sum / self.seconds.len() as f64
    }
}

/// How soon the deploy is blamed where the warm release has no traffic of its own.
pub fn attribution_report(seeds: u64) -> String {
    let shadow = Detector::Attribution(RollbackdJudge::with(Baseline::Shadow, 5));
    let mut text = "Seconds from the onset until shadow calls blame the deploy (evidence 10), \
                    median/p95, at 10 requests/s:\n"
        .to_owned();
    for onset in ONSETS {
        for share in [0.2, 1.0] {
            let trouble = Regression { rate: 10.0, error_rate: share, onset_block: onset };
            for of in trouble.delays(&[shadow], seeds, BAKE_BLOCKS) {
                let (median, p95) = (format_short(of.median()), format_short(of.quantile_of(0.95)));
                let percent = 100.0 * share;
                _ = writeln!(text, "onset {onset:>3}s {percent:>4} %  {median}/{p95}");
            }
        }
    }
    text
}

/// The tables, from so many seeds for each row.
pub fn report(seeds: u64) -> String {
    let detectors = Detector::all();
    let mut rows = Vec::new();
    for onset in ONSETS {
        for rate in RATES {
            for share in SHARES {
                let trouble = Regression { rate, error_rate: share, onset_block: onset };
                rows.push((trouble, trouble.delays(&detectors, seeds, BAKE_BLOCKS)));
            }
        }
    }
    let mut text = format!(
        "Delays: seconds from the onset to the verdict, {seeds} bakes a row, seeds from \
         {}. \"-\": more than half (p95: 5 %) missed in the bake of 1800 s. Means count a missed \
         one as found at the end.\n",
        Regression { rate: RATES[0], error_rate: SHARES[0], onset_block: 0 }.seed(),
    );
    table(&mut text, "median / p95", &rows, |_, of, _| {
        format!("{}/{}", format_short(of.median()), format_short(of.quantile_of(0.95)))
    });
    table(&mut text, "mean", &rows, |_, of, _| format_short(of.mean()));
    table(&mut text, "mean over the mean of the SPRT that knows all", &rows, |_, of, oracle| {
        format_short(of.mean() / oracle.mean())
    });
    table(&mut text, "mean over the information bound", &rows, |trouble, of, _| {
        format_short(of.mean() / oracle::expected_seconds(trouble.rate, trouble.error_rate))
    });
    _ = writeln!(text, "\nverdicts before the onset, in all rows (they count as missed):");
    for (index, detector) in detectors.iter().enumerate() {
        let early: usize =
            rows.iter().filter_map(|(_, all)| all.get(index)).map(|of| of.false_alarms).sum();
        _ = write!(text, " {}: {early} ", detector.name());
    }
    text.push('\n');
    text
}

fn table(
    text: &mut String,
    title: &str,
    rows: &[(Regression, Vec<DelaySample>)],
    cell: impl Fn(Regression, &DelaySample, &DelaySample) -> String,
) {
    _ = write!(text, "\n{title}\n{:<18}", "onset req/s bad");
    for detector in Detector::all() {
        _ = write!(text, " {:>11}", detector.name());
    }
    for (trouble, all) in rows {
        let Regression { rate, error_rate: share, onset_block: onset } = *trouble;
        _ = write!(text, "\n{onset:>4}s {rate:>5} {:>4} %", 100.0 * share);
        for of in all {
            let Some(oracle) = all.first() else { continue };
            _ = write!(text, " {:>11}", cell(*trouble, of, oracle));
        }
    }
    text.push('\n');
}

/// Three digits are enough.
fn format_short(number: f64) -> String {
    match number {
        it if !it.is_finite() => "-".to_owned(),
        it if it < 9.95 => format!("{it:.1}"),
        it => format!("{it:.0}"),
    }
}
