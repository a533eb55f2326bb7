//! The judge itself, fed with a stream as the daemon feeds it.

use std::time::Duration;

use rollbackd::judge::{About, BLOCK_MS, Judge, Limits, Objective};
use rollbackd::model::{Counts, Finding, History, Moment, Number, Reply, Seen, Signal};

use super::stream::{BUDGET, Block, SECOND};

const NEW: Number = Number(2);
const WARM: Number = Number(1);

/// What the judge hears of the release that could take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// It has as much traffic as the new one, and answers shadow calls.
    Traffic,
    /// It has none, but answers shadow calls while the judge is suspicious.
    Shadow,
    /// It only answers its probes.
    Probes,
    /// There is none to speak of: requests alone decide.
    Absent,
}

/// The judge with one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ours {
    pub baseline: Baseline,
    /// The `burst` of the promise, in seconds.
    pub burst: u64,
    /// The bake of the promise.
    pub bake: Duration,
    /// Probes fail where nothing is answered. Else they say "ok" all the time, so that requests
    /// alone can tell.
    pub honest_probes: bool,
}

/// The default promise, but for two settings.
fn limits(burst: u64, bake: Duration) -> Limits {
    let objective = |about, budget, weight| Objective { about, budget, weight };
    Limits {
        objectives: vec![
            objective(About::Availability, BUDGET, 0.85),
            objective(About::Tools, 0.05, 0.05),
            objective(About::Calls, 0.05, 0.03),
            objective(About::Streams, 0.05, 0.02),
        ],
        max_false_rollback: 1e-3,
        min_effect: 2.0,
        burst: Duration::from_secs(burst),
        bake,
        probes: 3,
        baseline: rollbackd::judge::Baseline::Probes,
        shadow: true,
        scrape: None,
    }
}

/// The proxy's counts of a block on a release.
pub fn counts(n: u32, bad: u32, safe: bool) -> Counts {
    let (n, bad) = (u64::from(n), u64::from(bad));
    let (all_safe, bad_safe) = if safe { (n, bad) } else { (0, 0) };
    let ok = n - bad;
    Counts { ok, server_fault: bad, safe: all_safe, safe_bad: bad_safe, ..Counts::default() }
}

impl Ours {
    /// The defaults with this baseline.
    pub fn with(baseline: Baseline, burst: u64) -> Self {
        Self { baseline, burst, bake: Duration::from_mins(30), honest_probes: false }
    }

    /// The same with another bake.
    pub fn baking(self, bake: Duration) -> Self {
        Self { bake, ..self }
    }

    /// The promise.
    pub fn limits(self) -> Limits {
        limits(self.burst, self.bake)
    }

    /// Opens the trial of the new release at moment 0.
    pub fn judge(self) -> Judge {
        let warm = (self.baseline != Baseline::Absent).then_some(WARM);
        Judge::new(NEW, warm, self.limits(), History::default(), Moment(0))
    }

    /// A short name for a column.
    pub fn name(self) -> String {
        let baseline = match self.baseline {
            Baseline::Traffic => "traffic",
            Baseline::Shadow => "shadow",
            Baseline::Probes => "probes",
            Baseline::Absent => "alone",
        };
        let probes = if self.honest_probes { "+p" } else { "" };
        format!("{baseline}{probes} {}s", self.burst)
    }

    /// The block after which the judge finds a breach.
    pub fn trips(self, bake: &[Block]) -> Option<usize> {
        self.trips_when(bake, breach)
    }

    /// The same with every verdict asked for, whether one is possible or not.
    pub fn trips_slowly(self, bake: &[Block]) -> Option<usize> {
        self.trips_when(bake, |judge, now, _| {
            matches!(judge.verdict(now).finding, Finding::Breach(_))
        })
    }

    /// The block after which the evidence that the deploy is to blame is enough.
    pub fn blames(self, bake: &[Block]) -> Option<usize> {
        self.trips_when(bake, |judge, _, _| {
            judge.attribution().is_some_and(|e| rollbackd::judge::attribution::ENOUGH <= e)
        })
    }

    fn trips_when(
        self,
        bake: &[Block],
        ask: impl Fn(&Judge, Moment, bool) -> bool,
    ) -> Option<usize> {
        let mut judge = self.judge();
        let mut repeats = false;
        bake.iter().enumerate().position(|(index, block)| {
            let now = Moment((index as u64 + 1) * u64::from(BLOCK_MS));
            let suspicious = repeats;
            self.probe(&mut judge, now, index, block, suspicious);
            self.hear(&mut judge, now, block, repeats);
            let suspicious = judge.suspicious(now);
            repeats = suspicious;
            let dead = self.honest_probes && block.dead;
            ask(&judge, now, dead)
        })
    }

    /// Probes of both releases: one a second, ten while suspicious.
    fn probe(self, judge: &mut Judge, now: Moment, index: usize, block: &Block, often: bool) {
        let probes = match (often, index % SECOND) {
            (true, odd) => 2 + odd % 2,
            (false, 0) => 1,
            (false, _) => 0,
        };
        for _ in 0..probes {
            let dead = self.honest_probes && block.dead;
            let reply = if dead { Reply::Refused } else { Reply::Ok };
            judge.hear(now, &Signal { release: NEW, seen: Seen::Probe(reply) });
            if self.baseline != Baseline::Absent {
                judge.hear(now, &Signal { release: WARM, seen: Seen::Probe(Reply::Ok) });
            }
        }
    }

    fn hear(self, judge: &mut Judge, now: Moment, block: &Block, repeats: bool) {
        let shadow = matches!(self.baseline, Baseline::Shadow | Baseline::Traffic);
        let seen = Seen::Block(BLOCK_MS, counts(block.n, block.bad, shadow));
        judge.hear(now, &Signal { release: NEW, seen });
        if self.baseline == Baseline::Traffic {
            let seen = Seen::Block(BLOCK_MS, counts(block.warm_n, block.warm_bad, false));
            judge.hear(now, &Signal { release: WARM, seen });
        }
        if repeats && shadow {
            let seen = Seen::Shadow(u64::from(block.shadow_n), u64::from(block.shadow_bad));
            judge.hear(now, &Signal { release: WARM, seen });
        }
    }
}

/// A verdict costs as much as a hundred blocks. There is none before the evidence is complete or a
/// probe has failed, so it is asked for only then.
fn breach(judge: &Judge, now: Moment, dead: bool) -> bool {
    let possible = dead || judge.evidence().progress() >= 1.0;
    possible && matches!(judge.verdict(now).finding, Finding::Breach(_))
}
