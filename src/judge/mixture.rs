//! One alternative of the evidence, and how fast it may rise.

use std::time::Duration;

use crate::judge::block::BLOCK;
use crate::model::Moment;

/// Evidence above this adds nothing, and would take long to forget.
const EVIDENCE_MAX: f64 = 1e12;
/// The blocks and the bad requests that "nearly everything fails" needs.
const TOTAL_FAILURE_BLOCKS: u32 = 3;
const TOTAL_FAILURE_BAD_MIN: f64 = 12.0;
/// However many requests fail in it, a block covers at most this fraction of the way, or what
/// one bad request covers: requests that fail together (retries, a broken connection) are one event.
const BLOCKS_TO_THRESHOLD_MIN: f64 = 5.0;
/// The allowance outlasts the burst by this many seconds.
const BURST_MARGIN_S: f64 = 2.0;
/// The part of a rise that may come at once.
const INITIAL_SHARE: f64 = 0.5;

/// One alternative: the failure rate is `q` since some onset.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) weight: f64,
    /// What a bad request adds, and a good one, in nats.
    pub(super) bad_gain: f64,
    pub(super) good_gain: f64,
    pub(super) cap: EvidenceCap,
    /// The distance to the threshold, in nats; set when a rise begins.
    pub(super) nats_to_threshold: f64,
    /// What the next block may gain, in nats.
    pub(super) allowance: f64,
    /// Sum over onsets of prior mass times likelihood ratio.
    pub(super) weighted_likelihood: f64,
    /// When the rise began, and the requests since.
    pub(super) since_onset: SinceOnset,
}

/// How much of a rise one block may contribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct EvidenceCap {
    /// Blocks before which there is no verdict.
    pub(super) blocks_min: u32,
    /// Blocks in which the allowance grows to the threshold.
    pub(super) blocks_to_threshold: f64,
    /// The part of the distance that can be saved; available when a rise begins.
    pub(super) allowance_max: f64,
    /// The part of the way that one block may make; one bad request always counts.
    pub(super) per_block_max: f64,
    /// The part of the way that one bad request may make, where nearly everything fails.
    pub(super) per_bad_request_max: f64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SinceOnset {
    pub(super) onset: Moment,
    pub(super) blocks: u32,
    pub(super) n: f64,
    pub(super) bad: f64,
    /// The start of the first block with a bad request; `None` before one.
    pub(super) first_bad: Option<Moment>,
}

impl EvidenceCap {
    /// For bursts up to this long.
    pub(super) fn for_burst(burst: Duration) -> Self {
        let blocks_per_second = 1.0 / BLOCK.as_secs_f64();
        let burst = burst.as_secs_f64();
        Self {
            blocks_min: (burst * blocks_per_second).ceil().max(1.0) as u32,
            blocks_to_threshold: (burst + BURST_MARGIN_S) * blocks_per_second,
            allowance_max: INITIAL_SHARE,
            per_block_max: 1.0 / BLOCKS_TO_THRESHOLD_MIN,
            per_bad_request_max: 1.0 / TOTAL_FAILURE_BAD_MIN,
        }
    }

    /// "Nearly everything fails" needs no more than a few blocks, but more than a few requests.
    pub(super) fn for_total_failure(self) -> Self {
        let blocks_min = TOTAL_FAILURE_BLOCKS.min(self.blocks_min);
        let full = f64::from(TOTAL_FAILURE_BLOCKS).min(self.blocks_to_threshold);
        Self {
            blocks_min,
            blocks_to_threshold: full,
            allowance_max: 1.0 / full,
            per_block_max: 1.0,
            per_bad_request_max: self.per_bad_request_max,
        }
    }
}

impl Component {
    /// The failure rate is `q`, not `p0`.
    pub(super) fn new(q: f64, p0: f64, weight: f64, cap: EvidenceCap) -> Self {
        Self {
            weight,
            bad_gain: (q / p0).ln(),
            good_gain: ((1.0 - q) / (1.0 - p0)).ln(),
            cap,
            nats_to_threshold: 0.0,
            allowance: 0.0,
            weighted_likelihood: 0.0,
            since_onset: SinceOnset::default(),
        }
    }

    /// Drops what was gathered.
    pub(super) fn reset_evidence(&mut self) {
        self.weighted_likelihood = 0.0;
        self.since_onset = SinceOnset::default();
    }

    /// Takes in one block.
    pub(super) fn update(&mut self, start: Moment, mass: f64, alpha: f64, n: f64, bad: f64) {
        // Where new mass outweighs what is left of the old, a rise can only begin now. What it
        // may gain looks at the past alone, so the bound on false alarms holds for it.
        let EvidenceCap {
            blocks_to_threshold: full,
            allowance_max: saved,
            per_bad_request_max: bad_max,
            ..
        } = self.cap;
        if self.weighted_likelihood <= mass {
            self.since_onset = SinceOnset { onset: start, ..SinceOnset::default() };
            let from = (self.weight * (self.weighted_likelihood + mass)).max(f64::MIN_POSITIVE);
            self.nats_to_threshold = (1.0 / alpha).ln() - from.ln();
            self.allowance = saved * self.nats_to_threshold;
        }
        self.since_onset.blocks = self.since_onset.blocks.saturating_add(1);
        self.since_onset.n += n;
        self.since_onset.bad += bad;
        if 0.0 < bad {
            self.since_onset.first_bad.get_or_insert(start);
        }
        let gain =
            bad * self.bad_gain.min(bad_max * self.nats_to_threshold) + (n - bad) * self.good_gain;
        let block_max = self.bad_gain.max(self.cap.per_block_max * self.nats_to_threshold);
        let gain = gain.min(block_max).min(self.allowance);
        let refill = (1.0 - saved) * self.nats_to_threshold / (full - 1.0).max(1.0);
        self.allowance = (self.allowance - gain + refill).min(saved * self.nats_to_threshold);
        self.weighted_likelihood =
            ((self.weighted_likelihood + mass) * gain.exp()).min(EVIDENCE_MAX);
    }
}
