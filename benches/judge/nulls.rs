//! Bakes that must not end in a rollback, and how many do.

use super::bound;
use super::ours::{Baseline, Ours};
use super::stream::Scene;
use super::work;

/// A null: its name, what happens, the rates, and the settings of the judge that it is held
/// against.
pub struct Null {
    pub name: &'static str,
    pub scene: Scene,
    /// Requests a second.
    pub rates: &'static [f64],
    pub ours: Vec<Ours>,
}

const ALL: &[f64] = &[1.0, 10.0, 100.0, 1_000.0];
const SOME: &[f64] = &[10.0, 100.0];

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
    /// False rollbacks of each setting, on the same `bakes`.
    pub fn rollbacks(&self, rate: f64, bakes: u64) -> Vec<u64> {
        let tripped = work::seeds(bakes, |seed| {
            let bake = self.scene.bake(rate, self.seed(rate) + seed);
            self.ours.iter().map(|ours| ours.trips(&bake).is_some()).collect::<Vec<_>>()
        });
        let column = |index: usize| tripped.iter().filter(|row| row[index]).count() as u64;
        (0..self.ours.len()).map(column).collect()
    }

    /// The first of its seeds.
    fn seed(&self, rate: f64) -> u64 {
        (rate as u64) << 32
    }
}

/// The table, row by row: so many bakes for ours, and for the peers.
pub fn report(bakes: u64, _peers: u64, mut say: impl FnMut(&str)) {
    say(&format!(
        "Nulls: false rollbacks in {bakes} bakes of 1800 s, and the 95 % upper bound of their \
         rate (Clopper-Pearson). Seeds from rate * 2^32."
    ));
    for null in all() {
        for rate in null.rates {
            let mut row = format!("{:<22} {rate:>5}/s", null.name);
            for (ours, tripped) in null.ours.iter().zip(null.rollbacks(*rate, bakes)) {
                let upper = bound::upper(tripped, bakes);
                row.push_str(&format!("  {:>11}: {tripped:>5} (<= {upper:.1e})", ours.name()));
            }
            say(&row);
        }
    }
}
