//! Peers with their canary steps, on the same scenes: each request goes to the canary by its own coin.

use super::super::rng::{Poisson, Rng};
use super::bake::SECONDS;
use super::population::{Population, Size};
use super::scene::{Scene, World};

/// A peer as it documents itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Flagger's tutorial (15bd6ad5): every 10 s 5 % more up to 50 %, then all; at least 99 % of the
    /// last minute succeed; the tenth failed check rolls back.
    FlaggerTutorial,
    /// Flagger's defaults: every minute, 10 % more up to 50 %, the fifth failed check.
    FlaggerDefault,
    /// Argo's documented canary (9f8d111d): 20 % more each minute; more than 5 % of the last minute
    /// fail; the fourth failed measurement.
    Argo,
}

struct Rule {
    interval: u64,
    step: f64,
    share_max: f64,
    allowed: f64,
    failures: u32,
    /// No requests are a failed check.
    needs_data: bool,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FlaggerTutorial, Self::FlaggerDefault, Self::Argo];

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlaggerTutorial => "Flagger",
            Self::FlaggerDefault => "Flagger/60",
            Self::Argo => "Argo",
        }
    }

    fn rule(self) -> Rule {
        let rule = |interval, step, share_max, allowed, failures, needs_data| Rule {
            interval,
            step,
            share_max,
            allowed,
            failures,
            needs_data,
        };
        match self {
            Self::FlaggerTutorial => rule(10, 0.05, 0.5, 0.01, 10, true),
            Self::FlaggerDefault => rule(60, 0.1, 0.5, 0.01, 5, true),
            Self::Argo => rule(60, 0.2, 1.0, 0.05, 4, false),
        }
    }
}

/// The second of the rollback, if there is one, and the failed requests until then.
pub fn run(peer: Peer, scene: Scene, size: Size, seed: u64) -> (Option<u64>, u64) {
    const WINDOW: usize = 60;
    let mut rng = Rng::new(seed.wrapping_mul(104_729).wrapping_add(5));
    let population = Population::new(size, scene.stay, SECONDS as f64, &mut rng);
    let world = World::new(scene, size, SECONDS as f64, &mut rng);
    let rule = peer.rule();
    let (mut share, mut failures, mut harm) = (rule.step, 0, 0);
    let (mut history, mut arrivals) = (Vec::new(), Poisson::default());
    for second in 0..SECONDS {
        let sent = arrivals.sample(size.rate * share, &mut rng);
        let (mut requests, mut failed) = (0_u64, 0_u64);
        for _ in 0..sent {
            let at = second as f64 + rng.uniform();
            if let Some((subject, call)) = population.draw(at, &mut rng) {
                requests += 1;
                failed += u64::from(rng.uniform() < world.failure_rate(at, true, subject, call));
            }
        }
        harm += failed;
        history.push((requests, failed));
        if !(second + 1).is_multiple_of(rule.interval) {
            continue;
        }
        let window = history.iter().rev().take(WINDOW);
        let (n, bad) = window.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let is_bad = if n == 0 { rule.needs_data } else { rule.allowed < bad as f64 / n as f64 };
        failures += u32::from(is_bad);
        if rule.failures <= failures {
            return (Some(second + 1), harm);
        }
        if !is_bad {
            let is_last = rule.share_max <= share + 1e-9;
            share = if is_last { 1.0 } else { (share + rule.step).min(rule.share_max) };
        }
    }
    (None, harm)
}
