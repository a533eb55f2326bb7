//! One alternative of the evidence, and how fast it may climb.

use std::time::Duration;

use crate::model::Moment;

use super::BLOCK;

/// Evidence above this says nothing more, and would take long to forget.
pub(super) const CEILING: f64 = 1e12;
/// The blocks that have to testify for "nearly everything fails", and the bad requests.
const HARD_BLOCKS: u32 = 3;
const HARD_BAD: f64 = 12.0;
/// However many requests fail in it, a block makes no more of the way than one in so many, or than
/// one bad request makes: those that fail together (retries, a connection that broke) are one event.
const BLOCKS_MIN: f64 = 5.0;
/// The allowance outlasts the burst by this many seconds.
const MARGIN: f64 = 2.0;
/// The part of a climb that may come at once.
const AT_ONCE: f64 = 0.5;

/// One alternative: the failure rate is `q` since some onset.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) weight: f64,
    /// What a bad request adds, and a good one, in nats.
    pub(super) bad: f64,
    pub(super) good: f64,
    pub(super) patience: Patience,
    /// The way to the threshold, in nats; set when a climb begins.
    pub(super) way: f64,
    /// What the next block may gain, in nats.
    pub(super) allowance: f64,
    /// Sum over onsets of prior mass times likelihood ratio.
    pub(super) sum: f64,
    /// When the climb began, and the requests since.
    pub(super) since: Since,
}

/// How much of a climb one block may make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Blocks before which there is no verdict.
    pub(super) blocks_min: u32,
    /// Blocks in which the allowance grows to the threshold.
    pub(super) full: f64,
    /// The part of the way that can be saved, and is there when a climb begins.
    pub(super) saved: f64,
    /// The part of the way that one block may make; one bad request always counts.
    pub(super) block_max: f64,
    /// The part of the way that one bad request may make, where nearly everything fails.
    pub(super) bad_max: f64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Since {
    pub(super) onset: Moment,
    pub(super) blocks: u32,
    pub(super) n: f64,
    pub(super) bad: f64,
}

impl Patience {
    /// For bursts up to this long.
    pub(super) fn usual(burst: Duration) -> Self {
        let second = 1.0 / BLOCK.as_secs_f64();
        let burst = burst.as_secs_f64();
        Self {
            blocks_min: (burst * second).ceil().max(1.0) as u32,
            full: (burst + MARGIN) * second,
            saved: AT_ONCE,
            block_max: 1.0 / BLOCKS_MIN,
            bad_max: 1.0 / HARD_BAD,
        }
    }

    /// "Nearly everything fails" needs no more than a few blocks, but more than a few requests.
    pub(super) fn hard(self) -> Self {
        let blocks_min = HARD_BLOCKS.min(self.blocks_min);
        let full = f64::from(HARD_BLOCKS).min(self.full);
        Self { blocks_min, full, saved: 1.0 / full, block_max: 1.0, bad_max: self.bad_max }
    }
}

impl Component {
    /// The failure rate is `q`, not `p0`.
    pub(super) fn new(q: f64, p0: f64, weight: f64, patience: Patience) -> Self {
        Self {
            weight,
            bad: (q / p0).ln(),
            good: ((1.0 - q) / (1.0 - p0)).ln(),
            patience,
            way: 0.0,
            allowance: 0.0,
            sum: 0.0,
            since: Since::default(),
        }
    }

    /// Drops what was gathered.
    pub(super) fn forget(&mut self) {
        self.sum = 0.0;
        self.since = Since::default();
    }

    /// Takes in one block.
    pub(super) fn update(&mut self, start: Moment, mass: f64, alpha: f64, n: f64, bad: f64) {
        // Where new mass outweighs what is left of the old, a climb can only begin now. What it
        // may gain looks at the past alone, so the bound on false alarms holds for it.
        let Patience { full, saved, bad_max, .. } = self.patience;
        if self.sum <= mass {
            self.since = Since { onset: start, ..Since::default() };
            let from = (self.weight * (self.sum + mass)).max(f64::MIN_POSITIVE);
            self.way = (1.0 / alpha).ln() - from.ln();
            self.allowance = saved * self.way;
        }
        self.since.blocks = self.since.blocks.saturating_add(1);
        self.since.n += n;
        self.since.bad += bad;
        let gain = bad * self.bad.min(bad_max * self.way) + (n - bad) * self.good;
        let block_max = self.bad.max(self.patience.block_max * self.way);
        let gain = gain.min(block_max).min(self.allowance);
        let more = (1.0 - saved) * self.way / (full - 1.0).max(1.0);
        self.allowance = (self.allowance - gain + more).min(saved * self.way);
        self.sum = ((self.sum + mass) * gain.exp()).min(CEILING);
    }
}
