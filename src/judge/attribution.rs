//! Whether the deploy is to blame: what the warm release does in the same seconds.
//!
//! Best is a measured baseline: its own traffic, and shadow calls ([`contrast`](super::contrast)).
//! Where neither can be had, its probes decide, or nobody does: that is the operator's choice.

use std::time::Duration;

use crate::model::{Counts, History, Moment, Number, Reply, Seen, Signal};

use super::contrast::{Contrast, Pair};
use super::{About, Baseline, Limits, Objective, beta};

/// The e-value at which the deploy is to blame. It only guards against a shared outage that
/// happens to fall into a bake: rare, so a chance of one in ten to miss it is enough.
pub const ENOUGH: f64 = 10.0;
/// A failed probe of the warm release says something about this long.
const FRESH: Duration = Duration::from_secs(5);
/// How long a measured baseline may take to speak before the next best has to do.
const PATIENCE: Duration = Duration::from_secs(15);
/// A source of a baseline that was silent for this long is none; shadow calls come at once.
const TRAFFIC_LIVE: Duration = Duration::from_secs(30);
const SHADOW_LIVE: Duration = Duration::from_secs(2);
/// How long it goes on to gather when nothing is suspicious any more.
const LINGER: Duration = Duration::from_secs(10);
/// A thin one has to do after this.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Where the trouble is mild, an e-value of [`ENOUGH`] takes long. So many requests of the warm
/// release are an answer, too, if they show no breach and a plainly lower failure rate, and the
/// e-value does not point the other way.
const FAIR: u64 = 30;
const FAIR_E: f64 = 1.0;
const FAIR_AFTER: Duration = Duration::from_secs(2);
/// Fewer requests of the warm release than this measure nothing.
const THIN: u64 = 10;
/// What a warm release without a history is taken to fail: bad requests, and all.
const UNKNOWN: (f64, f64) = (1.0, 1_000.0);
/// A history does not count for more requests than this.
const HISTORY_MAX: f64 = 10_000.0;

/// What is known about the release that could take over.
#[derive(Debug, Clone)]
pub struct Attribution {
    warm: Option<Number>,
    baseline: Baseline,
    /// Whether shadow calls can be expected.
    shadows: bool,
    failed: Option<(Moment, Reply)>,
    dead: bool,
    traffic: Vec<(About, Contrast)>,
    budgets: Vec<(About, f64)>,
    /// Since when it gathers, and when the trial was last suspicious.
    gathering: Option<Moment>,
    suspected: Option<Moment>,
    shadow: Contrast,
    /// What ended on trial in the block for which shadow calls may still be heard.
    block: (u32, u64, u64),
    /// The weight of its own traffic beside that of shadow calls.
    on_traffic: f64,
    heard_traffic: Option<Moment>,
    heard_shadow: Option<Moment>,
}

/// Who is to blame for a breach.
#[derive(Debug, Clone, PartialEq)]
pub enum Ruling {
    /// The deploy; the numbers.
    Deploy(String),
    /// Not the deploy: the warm release fails too.
    Shared(String),
    /// It is being measured.
    Open(String),
    /// It could not be told: a person has to look.
    Unknown(String),
}

impl Attribution {
    /// Listens for signals of `warm`, to compare it for each objective.
    pub fn new(warm: Option<Number>, limits: &Limits, history: &History) -> Self {
        let Limits { objectives, min_effect: rho, baseline, shadow, .. } = limits;
        let (rho, baseline) = (*rho, *baseline);
        let traffic = objectives.iter().map(|Objective { about, .. }| {
            let (n, bad) = about.read(&history.hour);
            let (n, bad) = (n as f64, bad as f64);
            let share = (HISTORY_MAX / n.max(1.0)).min(1.0);
            let known = (UNKNOWN.0 + bad * share, UNKNOWN.1 + n * share);
            (*about, Contrast::new(rho, 2.0 * ENOUGH, known))
        });
        Self {
            warm,
            baseline,
            shadows: *shadow,
            failed: None,
            dead: false,
            traffic: traffic.collect(),
            budgets: objectives.iter().map(|it| (it.about, it.budget)).collect(),
            gathering: None,
            suspected: None,
            shadow: Contrast::new(rho, 2.0 * ENOUGH, (0.1, 100.0)),
            block: (0, 0, 0),
            on_traffic: 0.5,
            heard_traffic: None,
            heard_shadow: None,
        }
    }

    /// Whether there is a release to compare with.
    pub fn compares(&self) -> bool {
        self.warm.is_some()
    }

    /// Gathers while the trial is suspicious, and a while longer: mild trouble comes and goes.
    pub fn gather(&mut self, now: Moment, suspicious: bool) {
        if suspicious {
            self.suspected = Some(now);
        }
        let suspicious = self.suspected.is_some_and(|at| now.since(at) <= LINGER);
        if suspicious && self.gathering.is_none() {
            // Looks at the past alone, so the average stays an e-process.
            let live = self.heard_traffic.is_some_and(|at| now.since(at) <= TRAFFIC_LIVE);
            self.on_traffic = if live { 0.5 } else { 0.02 };
        }
        self.gathering = suspicious.then(|| self.gathering.unwrap_or(now));
        self.traffic.iter_mut().for_each(|(_, contrast)| contrast.gather(suspicious));
        self.shadow.gather(suspicious);
    }

    /// Whether this is the release that could take over.
    pub fn is_warm(&self, release: Number) -> bool {
        self.warm == Some(release)
    }

    /// What the own counters of both releases say, in a stretch of `ms` milliseconds. Those of a
    /// warm release that clients ask nothing hold only probes and scrapes, and compare with nothing.
    pub fn scraped(&mut self, now: Moment, ms: u32, pair: Pair) {
        let asked = self.heard_traffic.is_some_and(|at| now.since(at) <= TRAFFIC_LIVE);
        let pair = if asked { pair } else { Pair { warm: (0, 0), ..pair } };
        let own = self.traffic.iter_mut().filter(|(about, _)| *about == About::Scraped);
        own.for_each(|(_, contrast)| contrast.update(ms, pair));
    }

    /// What ended on the release on trial.
    pub fn trial(&mut self, ms: u32, counts: &Counts) {
        for (about, contrast) in self.proxied() {
            contrast.update(ms, Pair { trial: about.read(counts), warm: (0, 0) });
        }
        self.block = (ms, counts.safe, counts.safe_bad);
    }

    /// Takes one signal in; those of other releases are ignored.
    pub fn hear(&mut self, now: Moment, signal: &Signal) {
        if Some(signal.release) != self.warm {
            return;
        }
        match &signal.seen {
            Seen::Probe(Reply::Ok) => (self.failed, self.dead) = (None, false),
            Seen::Probe(reply) => self.failed = Some((now, reply.clone())),
            // A warm process that died by itself says nothing about what both depend on.
            Seen::Exited(_) => self.dead = true,
            Seen::Block(_, counts) => {
                for (about, contrast) in self.proxied() {
                    contrast.update(0, Pair { trial: (0, 0), warm: about.read(counts) });
                }
                if 0 < counts.judged() {
                    self.heard_traffic = Some(now);
                }
            }
            Seen::Shadow(n, bad) => {
                let (ms, safe, safe_bad) = std::mem::take(&mut self.block);
                self.shadow.update(ms, Pair { trial: (safe, safe_bad), warm: (*n, *bad) });
                self.heard_shadow = Some(now);
            }
            Seen::Calls(_) | Seen::Scraped(_) => (),
        }
    }

    /// Why a failure now is not the deploy's fault, if probes of the warm release tell.
    pub fn shared(&self, now: Moment) -> Option<String> {
        let (at, reply) = self.failed.as_ref()?;
        let fresh = !self.dead && now.since(*at) <= FRESH;
        fresh.then(|| format!("the warm release fails too: {reply}"))
    }

    /// The evidence that the deploy is to blame for a breach of this objective: enough at
    /// [`ENOUGH`].
    pub fn e(&self, about: About) -> f64 {
        let traffic = self.contrast(about).map_or(1.0, Contrast::e);
        if about.shadowed() {
            self.on_traffic * traffic + (1.0 - self.on_traffic) * self.shadow.e()
        } else {
            traffic
        }
    }

    /// Who is to blame for a breach of this objective that was found at `since`.
    pub fn ruling(&self, now: Moment, about: About, since: Moment) -> Ruling {
        if self.warm.is_none() {
            return Ruling::Deploy("there is no release to compare it with".to_owned());
        }
        let e = self.e(about);
        let measured = self.measured(about);
        let words = self.words(about, e);
        if ENOUGH <= e {
            return Ruling::Deploy(words);
        }
        let (n, bad) = measured;
        let waited = now.since(since);
        if n < THIN && bad == 0 {
            let wait = self.live(now, about, waited) && waited < PATIENCE;
            return if wait { Ruling::Open(words) } else { self.by_probes(now) };
        }
        if !above(bad, n, self.budget(about)) {
            let measured = self.gathering.is_some_and(|begun| FAIR_AFTER <= now.since(begun));
            if measured
                && FAIR_E <= e
                && let Some(most) = self.better(about)
                && self.shared(now).is_none()
            {
                let better = format!("{words}: it fails less (at most {:.2} %)", 100.0 * most);
                return Ruling::Deploy(better);
            }
            // A breach that nobody can explain must neither wait for the end of the bake nor pass it.
            return match (bad, waited < PATIENCE_MAX) {
                (_, true) => Ruling::Open(words),
                (0, false) => self.by_probes(now),
                (_, false) => Ruling::Unknown(words),
            };
        }
        if PATIENCE <= waited { Ruling::Shared(words) } else { Ruling::Open(words) }
    }

    /// The comparisons of what the proxy counts.
    fn proxied(&mut self) -> impl Iterator<Item = &mut (About, Contrast)> {
        self.traffic.iter_mut().filter(|(about, _)| *about != About::Scraped)
    }

    /// The most that the warm release fails (99 % bound), where that is plainly less than the release
    /// on trial fails in the same blocks (its own 99 % bound), and no breach.
    fn better(&self, about: About) -> Option<f64> {
        let traffic = self.contrast(about).map(Contrast::seen);
        let shadow = about.shadowed().then(|| self.shadow.seen());
        [traffic, shadow].into_iter().flatten().find_map(|seen| {
            let ((n, bad), (trial, trial_bad)) = (seen.warm, seen.trial);
            if n < FAIR || above(bad, n, self.budget(about)) {
                return None;
            }
            let most = beta::upper(bad, n, 0.01);
            (most <= beta::lower(trial_bad, trial, 0.01)).then_some(most)
        })
    }

    fn by_probes(&self, now: Moment) -> Ruling {
        match (self.shared(now), self.baseline) {
            (Some(shared), _) => Ruling::Shared(shared),
            (None, Baseline::Probes) => Ruling::Deploy(
                "there are only probes to compare, and the warm release answers its own".to_owned(),
            ),
            (None, Baseline::Required) => Ruling::Unknown(
                "the warm release has no requests to compare it with (baseline = \"required\")"
                    .to_owned(),
            ),
        }
    }

    /// Whether a baseline is being measured, or about to be.
    fn live(&self, now: Moment, about: About, waited: Duration) -> bool {
        let within = |heard: Option<Moment>, time| heard.is_some_and(|at| now.since(at) <= time);
        let asked = self.shadows && about.shadowed() && 0 < self.block.2 && waited < SHADOW_LIVE;
        let shadow = about.shadowed() && within(self.heard_shadow, SHADOW_LIVE);
        within(self.heard_traffic, TRAFFIC_LIVE) || shadow || asked
    }

    fn measured(&self, about: About) -> (u64, u64) {
        let traffic = self.contrast(about).map(|it| it.seen().warm).unwrap_or_default();
        let shadow = if about.shadowed() { self.shadow.seen().warm } else { (0, 0) };
        (traffic.0.saturating_add(shadow.0), traffic.1.saturating_add(shadow.1))
    }

    fn words(&self, about: About, e: f64) -> String {
        let traffic = self.contrast(about).map(Contrast::seen).unwrap_or_default();
        let mut words = format!("evidence that the deploy is to blame {e:.1} (limit {ENOUGH})");
        let (n, bad) = traffic.warm;
        if 0 < n {
            words += &format!("; meanwhile {bad} of {n} requests bad on the warm release");
        }
        let (n, bad) = self.shadow.seen().warm;
        if about.shadowed() && 0 < n {
            words += &format!("; {bad} of {n} shadow calls failed on the warm release, too");
        }
        words
    }

    fn budget(&self, about: About) -> f64 {
        self.budgets.iter().find(|(it, _)| *it == about).map_or(0.0, |(_, budget)| *budget)
    }

    fn contrast(&self, about: About) -> Option<&Contrast> {
        self.traffic.iter().find(|(it, _)| *it == about).map(|(_, contrast)| contrast)
    }
}

/// Whether more than this share was bad: the lower 5 % bound says so. The bound is dear, and asked
/// for in every block of a long outage; four standard deviations need no bound.
fn above(bad: u64, n: u64, share: f64) -> bool {
    let usual = n as f64 * share;
    let plainly = usual + 4.0 * usual.sqrt() + 4.0 < bad as f64;
    plainly || share < beta::lower(bad, n, 0.05)
}
