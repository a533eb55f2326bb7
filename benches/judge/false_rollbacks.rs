//! Bakes that must not end in a rollback, and how many do.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::time::{Duration, Instant};

use super::peers::Peer;
use super::rollbackd_judge::{Baseline, RollbackdJudge};
use super::traffic::{BAKE_BLOCKS, Block, Scenario};
use super::{confidence_bound, parallel};

/// A null: its name, what happens, the rates, and the settings of the judge that are tried.
pub struct NullScenario {
    pub name: &'static str,
    pub scenario: Scenario,
    /// Requests a second.
    pub rates: &'static [f64],
    pub judges: Vec<RollbackdJudge>,
}

const ALL_RATES: &[f64] = &[1.0, 10.0, 100.0, 1_000.0];
const SOME_RATES: &[f64] = &[10.0, 100.0];
/// Bakes between two looks at the clock.
const MIN_BAKES: u64 = 100;
/// A row takes no longer than this, and says how many bakes it had.
const ROW_TIME: Duration = Duration::from_secs(17);

/// All of them.
///
/// Where only the new release is in question, requests alone decide: what the warm release says
/// can only excuse.
pub fn all() -> Vec<NullScenario> {
    let alone = || vec![RollbackdJudge::with(Baseline::Absent, 5)];
    let long = || {
        vec![RollbackdJudge::with(Baseline::Absent, 5), RollbackdJudge::with(Baseline::Absent, 10)]
    };
    let both = || {
        vec![RollbackdJudge::with(Baseline::Traffic, 5), RollbackdJudge::with(Baseline::Shadow, 5)]
    };
    let null =
        |name, scene, rates, ours| NullScenario { name, scenario: scene, rates, judges: ours };
    vec![
        null("healthy", Scenario::Healthy, ALL_RATES, alone()),
        null("exactly at the SLO", Scenario::AtLimit, ALL_RATES, alone()),
        null("three bursts", Scenario::Bursty, ALL_RATES, long()),
        null("the same, at most 5 s", Scenario::ShortBursts(5.0), ALL_RATES, alone()),
        null("retry clusters", Scenario::Retries, SOME_RATES, alone()),
        null("cold start", Scenario::ColdStart, SOME_RATES, alone()),
        null("benign: +50 %", Scenario::BelowMinEffect, SOME_RATES, alone()),
        null("both fail 30 %", Scenario::SharedEqual, SOME_RATES, both()),
        null("new 45 %, old 30 %", Scenario::SharedUneven, SOME_RATES, both()),
        null("both ramp and wave", Scenario::SharedWave, SOME_RATES, both()),
    ]
}

impl NullScenario {
    /// False rollbacks by each setting, and by each peer, on the bakes of these seeds, each so
    /// many blocks long.
    pub fn rollbacks(&self, rate: f64, seeds: std::ops::Range<u64>, blocks: usize) -> Vec<u64> {
        let tripped = parallel::run_seeds(seeds.end - seeds.start, |seed| {
            let seed = Self::seed(rate) + seeds.start + seed;
            self.outcomes(&self.scenario.generate(rate, seed, blocks), rate)
        });
        let columns = self.judges.len() + Peer::ALL.len();
        let tripped = &tripped;
        let column = |index: usize| tripped.iter().filter_map(move |row| row.get(index));
        (0..columns).map(|index| column(index).filter(|it| **it).count() as u64).collect()
    }

    fn outcomes(&self, bake: &[Block], rate: f64) -> Vec<bool> {
        let ours = self.judges.iter().map(|ours| ours.detection_block(bake).is_some());
        let peers = Peer::ALL.into_iter().map(|peer| peer.detection_block(bake, rate).is_some());
        ours.chain(peers).collect()
    }

    /// As many bakes as there is time for, at most so many: how many, and what came of them.
    fn measure(&self, rate: f64, most: u64) -> (u64, Vec<u64>) {
        let begun = Instant::now();
        let (mut bakes, mut sums) = (0, vec![0; self.judges.len() + Peer::ALL.len()]);
        while bakes < most && begun.elapsed() < ROW_TIME {
            let next = (bakes + MIN_BAKES).min(most);
            let more = self.rollbacks(rate, bakes..next, BAKE_BLOCKS);
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            bakes = next;
        }
        (bakes, sums)
    }

    /// The first of its seeds.
    fn seed(rate: f64) -> u64 {
        (rate as u64) << 32
    }
}

/// The table, row by row, from at most so many bakes each.
pub fn report(bakes: u64, mut print: impl FnMut(&str)) {
    print(&format!(
        "Nulls: false rollbacks in {bakes} bakes of 1800 s, fewer where a row would take more than \
         {} s. Ours with the 95 % upper bound of the rate (Clopper-Pearson), by baseline and burst; \
         peers on the same bakes. Seeds from requests/s * 2^32.\n",
        ROW_TIME.as_secs(),
    ));
    let peers: String = Peer::ALL.iter().map(|peer| format!(" {:>8}", peer.name())).collect();
    print(&format!("{:<22} {:>6} {:>6} {peers}  ours", "", "req/s", "bakes"));
    for null in all() {
        for rate in null.rates {
            let (bakes, sums) = null.measure(*rate, bakes);
            let (ours, peers) = sums.split_at(null.judges.len());
            let peers: String = peers.iter().map(|tripped| format!(" {tripped:>8}")).collect();
            let mut row = format!("{:<22} {rate:>6} {bakes:>6} {peers}", null.name);
            for (setting, tripped) in null.judges.iter().zip(ours) {
                let upper = confidence_bound::upper_confidence_bound(*tripped, bakes);
                row.push_str(&format!("  {}: {tripped} (<= {upper:.1e})", setting.name()));
            }
            print(&row);
        }
    }
}
