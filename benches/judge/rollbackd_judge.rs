//! The judge itself, fed with a stream as the daemon feeds it.

use std::time::Duration;

use rollbackd::judge::{BLOCK_MS, Indicator, Judge, Objective, SloSettings};
use rollbackd::model::{
    Counts, Finding, History, Moment, Observation, ProbeResult, ReleaseNumber, Signal,
};

use super::traffic::{BLOCKS_PER_SECOND, BUDGET, Block};

const TRIAL: ReleaseNumber = ReleaseNumber(2);
const WARM: ReleaseNumber = ReleaseNumber(1);

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
pub struct RollbackdJudge {
    pub baseline: Baseline,
    /// The `burst` of the promise, in seconds.
    pub burst: u64,
    /// The bake of the promise.
    pub bake: Duration,
    /// Probes fail where nothing is answered. Else they say "ok" all the time, so that requests
    /// alone can tell.
    pub probes_reflect_failures: bool,
}

/// The default promise, but for two settings.
fn limits(burst: u64, bake: Duration) -> SloSettings {
    let objective =
        |about, budget, weight| Objective { indicator: about, error_budget: budget, weight };
    SloSettings {
        objectives: vec![
            objective(Indicator::Availability, BUDGET, 0.85),
            objective(Indicator::Tools, 0.05, 0.05),
            objective(Indicator::ClientFaults, 0.05, 0.03),
            objective(Indicator::Streams, 0.05, 0.02),
        ],
        burst: Duration::from_secs(burst),
        bake,
        ..SloSettings::default()
    }
}

/// The proxy's counts of a block on a release.
pub fn counts(n: u32, bad: u32, safe: bool) -> Counts {
    let (n, bad) = (u64::from(n), u64::from(bad));
    let (all_safe, bad_safe) = if safe { (n, bad) } else { (0, 0) };
    let ok = n - bad;
    Counts {
        ok,
        server_fault: bad,
        repeatable: all_safe,
        repeatable_failed: bad_safe,
        ..Counts::default()
    }
}

impl RollbackdJudge {
    /// The defaults with this baseline.
    pub fn with(baseline: Baseline, burst: u64) -> Self {
        Self { baseline, burst, bake: Duration::from_mins(30), probes_reflect_failures: false }
    }

    /// The same with another bake.
    pub fn with_bake(self, bake: Duration) -> Self {
        Self { bake, ..self }
    }

    /// The promise.
    pub fn limits(self) -> SloSettings {
        limits(self.burst, self.bake)
    }

    /// Opens the trial of the new release at moment 0.
    pub fn judge(self) -> Judge {
        let warm = (self.baseline != Baseline::Absent).then_some(WARM);
        Judge::new(TRIAL, warm, self.limits(), History::default(), Moment(0))
    }

    /// A short name for a column.
    pub fn name(self) -> String {
        let baseline = match self.baseline {
            Baseline::Traffic => "traffic",
            Baseline::Shadow => "shadow",
            Baseline::Probes => "probes",
            Baseline::Absent => "alone",
        };
        let probes = if self.probes_reflect_failures { "+p" } else { "" };
        format!("{baseline}{probes} {}s", self.burst)
    }

    /// The block after which the judge finds a breach.
    pub fn detection_block(self, bake: &[Block]) -> Option<usize> {
        self.detection_block_when(bake, is_breach)
    }

    /// The same with every verdict asked for, whether one is possible or not.
    pub fn detection_block_sampled(self, bake: &[Block]) -> Option<usize> {
        self.detection_block_when(bake, |judge, now, _| {
            matches!(judge.verdict(now).finding, Finding::Breach(_))
        })
    }

    /// The block after which the evidence that the deploy is to blame is enough.
    pub fn attribution_block(self, bake: &[Block]) -> Option<usize> {
        self.detection_block_when(bake, |judge, _, _| {
            judge
                .attribution_e_value()
                .is_some_and(|e| rollbackd::judge::attribution::BLAME_THRESHOLD <= e)
        })
    }

    fn detection_block_when(
        self,
        bake: &[Block],
        ask: impl Fn(&Judge, Moment, bool) -> bool,
    ) -> Option<usize> {
        let mut judge = self.judge();
        let mut repeats = false;
        bake.iter().enumerate().position(|(index, block)| {
            let now = Moment((index as u64 + 1) * u64::from(BLOCK_MS));
            let suspicious = repeats;
            self.observe_probe(&mut judge, now, index, block, suspicious);
            self.observe_block(&mut judge, now, block, repeats);
            let suspicious = judge.is_suspicious(now);
            repeats = suspicious;
            let dead = self.probes_reflect_failures && block.process_dead;
            ask(&judge, now, dead)
        })
    }

    /// Probes of both releases: one a second, ten while suspicious.
    fn observe_probe(
        self,
        judge: &mut Judge,
        now: Moment,
        index: usize,
        block: &Block,
        often: bool,
    ) {
        let probes = match (often, index % BLOCKS_PER_SECOND) {
            (true, odd) => 2 + odd % 2,
            (false, 0) => 1,
            (false, _) => 0,
        };
        for _ in 0..probes {
            let dead = self.probes_reflect_failures && block.process_dead;
            let reply = if dead { ProbeResult::Refused } else { ProbeResult::Ok };
            judge.observe(now, &Signal { release: TRIAL, observation: Observation::Probe(reply) });
            if self.baseline != Baseline::Absent {
                judge.observe(
                    now,
                    &Signal { release: WARM, observation: Observation::Probe(ProbeResult::Ok) },
                );
            }
        }
    }

    fn observe_block(self, judge: &mut Judge, now: Moment, block: &Block, repeats: bool) {
        let shadow = matches!(self.baseline, Baseline::Shadow | Baseline::Traffic);
        let seen = Observation::Block(BLOCK_MS, counts(block.requests, block.failures, shadow));
        judge.observe(now, &Signal { release: TRIAL, observation: seen });
        if self.baseline == Baseline::Traffic {
            let seen = Observation::Block(
                BLOCK_MS,
                counts(block.warm_requests, block.warm_failures, false),
            );
            judge.observe(now, &Signal { release: WARM, observation: seen });
        }
        if repeats && shadow {
            let seen = Observation::Shadow(
                u64::from(block.shadow_requests),
                u64::from(block.shadow_failures),
            );
            judge.observe(now, &Signal { release: WARM, observation: seen });
        }
    }
}

/// A verdict costs as much as a hundred blocks. There is none before the evidence is complete or a
/// probe has failed, so it is asked for only then.
fn is_breach(judge: &Judge, now: Moment, dead: bool) -> bool {
    let possible = dead || judge.evidence().progress() >= 1.0;
    possible && matches!(judge.verdict(now).finding, Finding::Breach(_))
}
