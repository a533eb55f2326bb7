//! Signals in, a verdict out. Pure: it counts, it never acts.
//!
//! Three things speak about the release on trial, each in its own file:
//!
//! - [`evidence`]: requests against an objective, as an e-process with a stated probability of a
//!   false alarm over the whole bake, whatever the stopping time;
//! - [`liveness`]: probes in a row, and a process that keeps dying;
//! - [`attribution`]: whether the warm release fails in the same seconds, so that the deploy is
//!   not to blame.
//!
//! [`severity`] then says how bad it is.

pub mod attribution;
pub mod evidence;
pub mod liveness;
pub mod reach;
pub mod recovery;
pub mod severity;

mod beta;

use std::time::Duration;

use crate::model::{Counts, Evidence, Finding, Moment, Number, Seen, Severity, Signal, Verdict};

use attribution::Attribution;
use evidence::Process;
use liveness::Liveness;

/// The length of a block of evidence from the proxy.
pub const BLOCK: Duration = Duration::from_millis(BLOCK_MS as u64);
/// The same, in milliseconds.
pub const BLOCK_MS: u32 = 250;

/// What the operator promised, and how sure the judge has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The promises; they share `max_false_rollback` by weight.
    pub objectives: Vec<Objective>,
    /// Highest probability of a false rollback in one deploy, 0 to 1.
    pub max_false_rollback: f64,
    /// The smallest failure rate worth a rollback, in multiples of what the objective allows.
    pub min_effect: f64,
    /// Bursts of failures up to this long are healthy.
    pub burst: Duration,
    /// How long a release is on trial.
    pub bake: Duration,
    /// Failed probes in a row that mean down.
    pub probes: u32,
}

/// One promise: at most `budget` of the requests are bad in the sense of `about`.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Which requests are bad.
    pub about: About,
    /// The share of requests that may be bad, 0 to 1. `objective = "99.5%"` makes 0.005.
    pub budget: f64,
    /// Its part of the probability of a false rollback, relative to the other objectives.
    pub weight: f64,
}

/// The sense in which a request can be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The release failed to answer it properly.
    Availability,
    /// It took longer than the latency threshold.
    Latency,
    /// The tool answered `isError`.
    Tools,
}

/// The trial of one release.
#[derive(Debug, Clone)]
pub struct Judge {
    release: Number,
    limits: Limits,
    processes: Vec<(About, Process)>,
    liveness: Liveness,
    attribution: Attribution,
    shared: bool,
    total: Counts,
    opened: Moment,
}

impl About {
    /// The requests this objective speaks of, and the bad ones among them.
    pub fn read(self, counts: &Counts) -> (u64, u64) {
        match self {
            Self::Availability => (counts.judged(), counts.server_fault),
            Self::Latency => (counts.timed, counts.slow),
            Self::Tools => (counts.ok.saturating_add(counts.tool_fault), counts.tool_fault),
        }
    }

    /// Its name in reasons and status lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Latency => "latency",
            Self::Tools => "tools",
        }
    }
}

impl Judge {
    /// Opens the trial of `release`, which `warm` could replace.
    pub fn new(release: Number, warm: Option<Number>, limits: Limits, now: Moment) -> Self {
        let weights: f64 = limits.objectives.iter().map(|objective| objective.weight).sum();
        let processes = limits
            .objectives
            .iter()
            .map(|objective| {
                let alpha = limits.max_false_rollback * objective.weight / weights;
                (objective.about, Process::new(objective.budget, alpha, &limits))
            })
            .collect();
        let liveness = Liveness::new(limits.probes);
        let attribution = Attribution::new(warm);
        let total = Counts::default();
        let opened = now;
        Self { release, limits, processes, liveness, attribution, shared: false, total, opened }
    }

    /// The release on trial.
    pub fn release(&self) -> Number {
        self.release
    }

    /// Takes one signal in.
    pub fn hear(&mut self, now: Moment, signal: &Signal) {
        self.attribution.hear(now, signal);
        let shared = self.attribution.shared(now).is_some();
        if std::mem::replace(&mut self.shared, shared) && !shared {
            self.forget();
        }
        if signal.release != self.release {
            return;
        }
        match &signal.seen {
            Seen::Block(_, counts) => self.weigh(now, counts),
            Seen::Probe(reply) => self.liveness.probed(now, reply),
            Seen::Exited(how) => self.liveness.exited(now, how),
            Seen::Calls(_) | Seen::Shadow(..) | Seen::Scraped(_) => (),
        }
    }

    /// A shared outage is over: what happened meanwhile is not held against the deploy, and
    /// whichever release answers first again, the other one gets a fresh look.
    fn forget(&mut self) {
        self.processes.iter_mut().for_each(|(_, process)| process.forget());
        self.liveness.forget();
    }

    fn weigh(&mut self, now: Moment, counts: &Counts) {
        self.total += *counts;
        for (about, process) in &mut self.processes {
            let (n, bad) = about.read(counts);
            process.update((now - BLOCK).max(self.opened), n, bad);
        }
    }

    /// What the signals so far amount to.
    pub fn verdict(&self, now: Moment) -> Verdict {
        let tripped = self.processes.iter().find(|(_, process)| process.tripped());
        let down = self.liveness.down(now);
        let failing = self.failing(now);
        let (finding, because, onset) = match (down, tripped) {
            (Some((because, onset)), _) => (Finding::Breach(Severity::Down), because, onset),
            (None, Some((about, process))) => {
                let severity = severity::of(failing);
                (Finding::Breach(severity), process.because(about.name()), process.onset())
            }
            (None, None) if self.verified() => (Finding::Healthy, self.tally(), self.opened),
            (None, None) => (Finding::Undecided, self.tally(), self.opened),
        };
        match (finding, self.attribution.shared(now)) {
            (Finding::Breach(_), Some(shared)) => {
                let because = format!("{because}; {shared}");
                self.say(now, Finding::SharedOutage, because, onset, failing)
            }
            _ => self.say(now, finding, because, onset, failing),
        }
    }

    /// How far the evidence has come, for the objective that is nearest to a verdict.
    pub fn evidence(&self) -> Evidence {
        self.processes
            .iter()
            .map(|(about, process)| {
                let (judged, bad) = about.read(&self.total);
                let (e, threshold) = (process.e(), process.threshold());
                Evidence { objective: about.name().to_owned(), e, threshold, judged, bad }
            })
            .max_by(|a, b| a.progress().total_cmp(&b.progress()).then(a.bad.cmp(&b.bad)))
            .unwrap_or_default()
    }

    /// Whether it is worth looking closer: evidence over a tenth of the way, or a failed probe.
    pub fn suspicious(&self, now: Moment) -> bool {
        self.liveness.shaken(now) || self.evidence().progress() > 0.1
    }

    /// What every request of the trial came to.
    pub fn total(&self) -> &Counts {
        &self.total
    }

    /// Whether there is evidence that the release keeps its promise, not merely none against it:
    /// the upper 95 % bound of the failure rate lies below the smallest rate worth a rollback.
    pub fn verified(&self) -> bool {
        self.processes.iter().zip(&self.limits.objectives).all(|((about, _), objective)| {
            let (n, bad) = about.read(&self.total);
            let worst = objective.budget * self.limits.min_effect;
            *about != About::Availability || beta::upper(bad, n, 0.05) <= worst
        })
    }

    /// A slow answer is still an answer: leaving in a hurry would turn it into a failure. A request
    /// that hangs fails at its deadline.
    fn failing(&self, now: Moment) -> f64 {
        let failures = self.processes.iter().filter(|(about, _)| *about != About::Latency);
        let rates = failures.map(|(_, process)| process.failing());
        rates.fold(self.liveness.failing(now), f64::max)
    }

    fn tally(&self) -> String {
        let Counts { server_fault, tool_fault, .. } = self.total;
        let judged = self.total.judged();
        format!("{judged} requests judged, {server_fault} server faults, {tool_fault} tool faults")
    }

    fn say(
        &self,
        now: Moment,
        finding: Finding,
        because: String,
        onset: Moment,
        failing: f64,
    ) -> Verdict {
        let loudest = self.processes.iter().max_by(|(_, a), (_, b)| a.e().total_cmp(&b.e()));
        let rate = loudest.map_or(0.0, |(_, process)| process.rate(now));
        Verdict { release: self.release, finding, because, onset, failing, rate }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Reply;

    use super::*;

    #[test]
    fn when_the_warm_release_answers_first_after_a_shared_outage_the_other_gets_a_fresh_look() {
        let objective = Objective { about: About::Availability, budget: 0.005, weight: 1.0 };
        let limits = Limits {
            objectives: vec![objective],
            max_false_rollback: 1e-3,
            min_effect: 2.0,
            burst: Duration::from_secs(5),
            bake: Duration::from_secs(1800),
            probes: 3,
        };
        let (new, warm) = (Number(2), Number(1));
        let mut judge = Judge::new(new, Some(warm), limits, Moment(0));
        let mut probe = |at, release, reply| {
            judge.hear(Moment(at), &Signal { release, seen: Seen::Probe(reply) });
            judge.verdict(Moment(at)).finding
        };
        for at in 0..3 {
            probe(200 * at, warm, Reply::Refused);
            probe(200 * at, new, Reply::Refused);
        }
        assert_eq!(probe(700, new, Reply::Refused), Finding::SharedOutage);
        assert_eq!(probe(800, warm, Reply::Ok), Finding::Undecided);
        assert_eq!(probe(900, new, Reply::Ok), Finding::Undecided);
        for at in [1_100, 1_300] {
            assert_eq!(probe(at, new, Reply::Refused), Finding::Undecided);
        }
        assert_eq!(probe(1_500, new, Reply::Refused), Finding::Breach(Severity::Down));
    }
}
