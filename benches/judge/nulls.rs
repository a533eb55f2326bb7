//! Bakes that must not end in a rollback, and how many do.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::time::{Duration, Instant};

use super::bound;
use super::ours::{Baseline, Ours};
use super::peers::Peer;
use super::stream::{BAKE, Block, Scene};
use super::work;

/// A null: its name, what happens, the rates, and the settings of the judge that are tried.
pub struct Null {
    pub name: &'static str,
    pub scene: Scene,
    /// Requests a second.
    pub rates: &'static [f64],
    pub ours: Vec<Ours>,
}

const ALL: &[f64] = &[1.0, 10.0, 100.0, 1_000.0];
const SOME: &[f64] = &[10.0, 100.0];
/// Bakes between two looks at the clock.
const LEAST: u64 = 100;
/// A row takes no longer than this, and says how many bakes it had.
const ROW: Duration = Duration::from_secs(17);

/// All of them.
///
/// Where only the new release is in question, requests alone decide: what the warm release says
/// can only excuse.
pub fn all() -> Vec<Null> {
    let alone = || vec![Ours::with(Baseline::Absent, 5)];
    let long = || vec![Ours::with(Baseline::Absent, 5), Ours::with(Baseline::Absent, 10)];
    let both = || vec![Ours::with(Baseline::Traffic, 5), Ours::with(Baseline::Shadow, 5)];
    let null = |name, scene, rates, ours| Null { name, scene, rates, ours };
    vec![
        null("healthy", Scene::Healthy, ALL, alone()),
        null("exactly at the SLO", Scene::AtLimit, ALL, alone()),
        null("three bursts", Scene::Bursty, ALL, long()),
        null("the same, at most 5 s", Scene::ShortBursts(5.0), ALL, alone()),
        null("retry clusters", Scene::Retries, SOME, alone()),
        null("cold start", Scene::ColdStart, SOME, alone()),
        null("benign: +50 %", Scene::Benign, SOME, alone()),
        null("both fail 30 %", Scene::BothEqual, SOME, both()),
        null("new 45 %, old 30 %", Scene::BothUneven, SOME, both()),
        null("both ramp and wave", Scene::BothWave, SOME, both()),
    ]
}

impl Null {
    /// False rollbacks by each setting, and by each peer, on the bakes of these seeds, each so
    /// many blocks long.
    pub fn rollbacks(&self, rate: f64, seeds: std::ops::Range<u64>, blocks: usize) -> Vec<u64> {
        let tripped = work::seeds(seeds.end - seeds.start, |seed| {
            let seed = Self::seed(rate) + seeds.start + seed;
            self.outcomes(&self.scene.bake(rate, seed, blocks), rate)
        });
        let columns = self.ours.len() + Peer::ALL.len();
        let tripped = &tripped;
        let column = |index: usize| tripped.iter().filter_map(move |row| row.get(index));
        (0..columns).map(|index| column(index).filter(|it| **it).count() as u64).collect()
    }

    fn outcomes(&self, bake: &[Block], rate: f64) -> Vec<bool> {
        let ours = self.ours.iter().map(|ours| ours.trips(bake).is_some());
        let peers = Peer::ALL.into_iter().map(|peer| peer.trips(bake, rate).is_some());
        ours.chain(peers).collect()
    }

    /// As many bakes as there is time for, at most so many: how many, and what came of them.
    fn row(&self, rate: f64, most: u64) -> (u64, Vec<u64>) {
        let begun = Instant::now();
        let (mut bakes, mut sums) = (0, vec![0; self.ours.len() + Peer::ALL.len()]);
        while bakes < most && begun.elapsed() < ROW {
            let next = (bakes + LEAST).min(most);
            let more = self.rollbacks(rate, bakes..next, BAKE);
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
pub fn report(bakes: u64, mut say: impl FnMut(&str)) {
    say(&format!(
        "Nulls: false rollbacks in {bakes} bakes of 1800 s, fewer where a row would take more than \
         {} s. Ours with the 95 % upper bound of the rate (Clopper-Pearson), by baseline and burst; \
         peers on the same bakes. Seeds from requests/s * 2^32.\n",
        ROW.as_secs(),
    ));
    let peers: String = Peer::ALL.iter().map(|peer| format!(" {:>8}", peer.name())).collect();
    say(&format!("{:<22} {:>6} {:>6} {peers}  ours", "", "req/s", "bakes"));
    for null in all() {
        for rate in null.rates {
            let (bakes, sums) = null.row(*rate, bakes);
            let (ours, peers) = sums.split_at(null.ours.len());
            let peers: String = peers.iter().map(|tripped| format!(" {tripped:>8}")).collect();
            let mut row = format!("{:<22} {rate:>6} {bakes:>6} {peers}", null.name);
            for (setting, tripped) in null.ours.iter().zip(ours) {
                let upper = bound::upper(*tripped, bakes);
                row.push_str(&format!("  {}: {tripped} (<= {upper:.1e})", setting.name()));
            }
            say(&row);
        }
    }
}
