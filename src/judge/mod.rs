//! Signals in, a verdict out. Pure: it counts, it never acts.
//!
//! Several things speak about the release on trial, each in its own file:
//!
//! - [`evidence`]: requests against an objective, as an e-process with a stated probability of a
//!   false alarm over the whole bake, whatever the stopping time;
//! - [`client_faults`]: calls that used to be understood, against what the release before did;
//! - [`scraped`]: the server's own counters, where it has some ([`counter`]);
//! - [`liveness`]: probes in a row, a process that keeps dying, requests taken and none answered;
//! - [`attribution_e_value`]: whether the deploy is to blame, by what the warm release does in the same
//!   seconds ([`contrast`]).
//!
//! [`severity`] then says how bad it is. A breach needs both: evidence against the promise, and
//! evidence that the deploy is to blame.

pub mod attribution;
pub mod client_faults;
pub mod counter;
pub mod detectability;
pub mod e_process;
pub mod liveness;
mod mixture;
mod objective;
pub mod recovery;
pub mod scraped_evidence;
pub mod service_judge;
pub mod severity;
mod slo;
pub mod two_sample;

mod beta;

use std::time::Duration;

use attribution::{Attribution, Blame};
use liveness::Liveness;

use crate::judge::client_faults::ClientFaults;
use crate::judge::e_process::EProcess;
use crate::judge::objective::ObjectiveEvidence;
use crate::judge::scraped_evidence::ScrapedEvidence;
pub use crate::judge::slo::{Baseline, Indicator, Objective, SloSettings};
use crate::model::{
    Counts, Evidence, Finding, History, Moment, Observation, ReleaseNumber, Severity, Signal,
    Verdict,
};

/// The length of a block of evidence from the proxy.
pub const BLOCK: Duration = Duration::from_millis(BLOCK_MS as u64);
/// The same, in milliseconds.
pub const BLOCK_MS: u32 = 250;

const SECOND: Duration = Duration::from_secs(1);
const SECOND_MS: u32 = 1_000;
/// The part of the way to a verdict at which it is worth looking closer.
const SUSPICION_PROGRESS: f64 = 0.1;
/// So long without a request is worth a word.
const IDLE_REPORTED_AFTER: Duration = Duration::from_secs(10);

/// The trial of one release.
#[derive(Debug, Clone)]
pub struct Judge {
    release: ReleaseNumber,
    limits: SloSettings,
    objectives: Vec<ObjectiveEvidence>,
    client_faults: Option<(ClientFaults, Option<Moment>)>,
    liveness: Liveness,
    attribution: Attribution,
    scraped: Option<ScrapedEvidence>,
    shared_outage: bool,
    counts: Counts,
    started_at: Moment,
    last_request_at: Option<Moment>,
    verified: bool,
    /// Requests, and bad ones, when it was last looked at whether the promise is kept.
    last_verified_counts: (u64, u64),
}

/// An objective that was broken.
struct BrokenObjective {
    /// Since when that is proven.
    proven_at: Moment,
    /// When it began.
    onset: Moment,
}

impl Judge {
    /// Opens the trial of `release`, which `warm`, with this history, could replace.
    pub fn new(
        release: ReleaseNumber,
        warm: Option<ReleaseNumber>,
        limits: SloSettings,
        history: History,
        now: Moment,
    ) -> Self {
        let weights: f64 = limits.objectives.iter().map(|objective| objective.weight).sum();
        let (mut objectives, mut client_faults) = (Vec::new(), None);
        for objective in &limits.objectives {
            let alpha = limits.max_false_rollback * objective.weight / weights;
            if objective.indicator == Indicator::ClientFaults {
                client_faults = Some((ClientFaults::new(alpha, &limits, &history), None));
            } else {
                objectives.push(ObjectiveEvidence::new(objective, alpha, &limits, &history));
            }
        }
        let liveness = Liveness::new(limits.failed_probes_max, now);
        let attribution = Attribution::new(warm, &limits, &history);
        let scraped = limits.scrape.map(|scraping| ScrapedEvidence::new(scraping, now));
        let (counts, started_at) = (Counts::default(), now);
        Self {
            release,
            limits,
            objectives,
            client_faults,
            liveness,
            attribution,
            scraped,
            shared_outage: false,
            counts,
            started_at,
            last_request_at: None,
            verified: false,
            last_verified_counts: (0, 0),
        }
    }

    /// The release on trial.
    pub fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// Takes one signal in.
    pub fn observe(&mut self, now: Moment, signal: &Signal) {
        // Before the signal: what is gathered next must not depend on what it says.
        self.attribution.set_comparing(now, self.is_suspicious(now));
        self.attribution.observe(now, signal);
        let shared = self.attribution.shared_outage_reason(now).is_some();
        if std::mem::replace(&mut self.shared_outage, shared) && !shared {
            self.reset_evidence();
        }
        if let Observation::Scraped(scrape) = &signal.observation {
            return self.add_scrape(now, signal.release, scrape);
        }
        if signal.release != self.release {
            return;
        }
        match &signal.observation {
            Observation::Block(ms, counts) => self.add_block(now, *ms, counts),
            Observation::Probe(reply) => self.liveness.add_probe(now, reply),
            Observation::Exited(how) => {
                self.liveness.add_exit(now, how);
                self.scraped.iter_mut().for_each(|scraped| scraped.record_exit(now));
            }
            Observation::Calls(counts_by_call) => {
                if let Some((calls, tripped)) = &mut self.client_faults {
                    calls.add_calls((now - SECOND).max(self.started_at), SECOND_MS, counts_by_call);
                    let is_broken =
                        calls.strongest().is_some_and(|(_, process)| process.is_broken());
                    *tripped = is_broken.then(|| tripped.unwrap_or(now));
                }
            }
            Observation::Shadow(..) | Observation::Scraped(_) => (),
        }
    }

    /// A shared outage is over: what happened meanwhile is not held against the deploy, and
    /// whichever release answers first again, the other one gets a fresh look.
    fn reset_evidence(&mut self) {
        for track in &mut self.objectives {
            track.process.reset_evidence();
            track.broken_since = None;
        }
        if let Some((calls, tripped)) = &mut self.client_faults {
            calls.reset_evidence();
            *tripped = None;
        }
        self.liveness.reset();
    }

    fn add_block(&mut self, now: Moment, ms: u32, counts: &Counts) {
        self.counts += *counts;
        self.attribution.add_trial_block(ms, counts);
        self.liveness.add_block(now, counts);
        self.update_verified();
        if 0 < counts.total() {
            self.last_request_at = Some(now);
        }
        let start = (now - Duration::from_millis(ms.into())).max(self.started_at);
        for track in self.objectives.iter_mut().filter(|it| it.indicator != Indicator::Scraped) {
            let (n, bad) = track.indicator.count(counts);
            track.process.update(start, ms, n, bad);
            track.broken_since =
                track.process.is_broken().then(|| track.broken_since.unwrap_or(now));
        }
    }

    /// What the signals so far amount to.
    pub fn verdict(&self, now: Moment) -> Verdict {
        if let Some((because, onset)) = self.down_reason(now) {
            let failing = 1.0;
            return match self.attribution.shared_outage_reason(now) {
                Some(shared) => {
                    let because = format!("{because}; {shared}");
                    self.make_verdict(now, Finding::SharedOutage, because, onset, failing)
                }
                None => {
                    self.make_verdict(now, Finding::Breach(Severity::Down), because, onset, failing)
                }
            };
        }
        if let Some((about, because, tripped)) = self.first_broken_objective() {
            let BrokenObjective { proven_at: since, onset } = tripped;
            let blame = self.attribution.blame(now, about, since);
            let (finding, why, failing) = match blame {
                Blame::Deploy(why) => {
                    let failing = self.failure_rate_lower();
                    (Finding::Breach(severity::from_failure_rate(failing)), why, failing)
                }
                Blame::Shared(why) => (Finding::SharedOutage, why, 0.0),
                Blame::Measuring(why) => (Finding::Measuring, why, 0.0),
                Blame::Undetermined(why) => (Finding::Unattributed, why, 0.0),
            };
            return self.make_verdict(now, finding, format!("{because}; {why}"), onset, failing);
        }
        if let Some((because, since)) = self.scraped.as_ref().and_then(|it| it.no_data_reason(now))
        {
            return self.make_verdict(now, Finding::NoData, because, since, 0.0);
        }
        let finding = if self.verified { Finding::Healthy } else { Finding::Undecided };
        let remarks = self.scraped.as_ref().map(|it| it.remarks(now)).unwrap_or_default();
        self.make_verdict(now, finding, self.traffic_summary(now) + &remarks, self.started_at, 0.0)
    }

    /// Why the release counts as down, and since when.
    fn down_reason(&self, now: Moment) -> Option<(String, Moment)> {
        let slow = self
            .objectives
            .iter()
            .any(|it| it.indicator == Indicator::Latency && it.broken_since.is_some());
        self.liveness.down_reason(now).or_else(|| self.liveness.hang_reason(now, slow))
    }

    /// The objective that was broken first, the arithmetic, and when.
    fn first_broken_objective(&self) -> Option<(Indicator, String, BrokenObjective)> {
        let of = |process: &EProcess, since| BrokenObjective {
            proven_at: since,
            onset: process.onset(),
        };
        let tracks = self.objectives.iter().filter_map(|track| {
            let process = &track.process;
            let relaxed = track.relaxed.as_deref().unwrap_or_default();
            let because = format!("{}{relaxed}", process.describe(track.indicator.name()));
            Some((track.indicator, because, of(process, track.broken_since?)))
        });
        let calls = self.client_faults.as_ref().and_then(|(calls, tripped)| {
            let (since, (call, process)) = ((*tripped)?, calls.strongest()?);
            Some((
                Indicator::ClientFaults,
                process.describe(&ClientFaults::describe(call)),
                of(process, since),
            ))
        });
        tracks.chain(calls).min_by_key(|(.., tripped)| tripped.proven_at)
    }

    /// How far the evidence has come, for the objective that is nearest to a verdict.
    pub fn evidence(&self) -> Evidence {
        let tracks = self.objectives.iter().map(|track| {
            let (judged, bad) = self.counts_for(track.indicator);
            (track.indicator.name().to_owned(), &track.process, judged, bad)
        });
        let calls = self.client_faults.as_ref().and_then(|(calls, _)| {
            let (judged, bad) = Indicator::ClientFaults.count(&self.counts);
            calls
                .strongest()
                .map(|(call, process)| (ClientFaults::describe(call), process, judged, bad))
        });
        tracks
            .chain(calls)
            .map(|(objective, process, judged, bad)| {
                let (e, threshold) = (process.e_value(), process.threshold());
                Evidence { objective, e_value: e, threshold, judged, bad }
            })
            .max_by(|a, b| a.progress().total_cmp(&b.progress()).then(a.bad.cmp(&b.bad)))
            .unwrap_or_default()
    }

    /// The evidence that the deploy is to blame, for the objective that is nearest to a verdict:
    /// enough at [`attribution_e_value::BLAME_THRESHOLD`]. None where there is no release to compare with.
    pub fn attribution_e_value(&self) -> Option<f64> {
        let progress = |track: &&ObjectiveEvidence| {
            track.process.e_value().ln() / track.process.threshold().ln()
        };
        let track = self.objectives.iter().max_by(|a, b| progress(a).total_cmp(&progress(b)))?;
        self.attribution.has_baseline_release().then(|| self.attribution.e_value(track.indicator))
    }

    /// Whether it is worth looking closer: evidence over a tenth of the way, or a failed probe.
    pub fn is_suspicious(&self, now: Moment) -> bool {
        let is_near_verdict = |process: &EProcess| {
            SUSPICION_PROGRESS < process.e_value().ln() / process.threshold().ln()
        };
        self.liveness.has_recent_failure(now)
            || self.objectives.iter().any(|track| is_near_verdict(&track.process))
            || self.client_faults.as_ref().is_some_and(|(calls, _)| {
                calls.strongest().is_some_and(|(_, process)| is_near_verdict(process))
            })
    }

    /// What every request of the trial came to.
    pub fn total(&self) -> &Counts {
        &self.counts
    }

    /// Whether there is evidence that the release keeps its promise, not merely none against it:
    /// the upper 95 % bound of the failure rate lies below the smallest rate worth a rollback.
    pub fn verified(&self) -> bool {
        self.verified
    }

    /// The bound is dear; it is looked at when a bad request came, or one request in a hundred.
    fn update_verified(&mut self) {
        let availability = |it: &&Objective| it.indicator == Indicator::Availability;
        let Some(objective) = self.limits.objectives.iter().find(availability) else { return };
        let (n, bad) = objective.indicator.count(&self.counts);
        let rate_worth_rollback = objective.error_budget * self.limits.min_effect;
        let (n_before, bad_before) = self.last_verified_counts;
        if bad == bad_before && n < n_before.saturating_add(n_before / 100).saturating_add(1) {
            return;
        }
        self.last_verified_counts = (n, bad);
        let possible = (bad as f64) < rate_worth_rollback * n as f64;
        self.verified = possible && beta::upper_bound(bad, n, 0.05) <= rate_worth_rollback;
    }

    /// A slow answer is still an answer: leaving in a hurry would turn it into a failure. A request
    /// that hangs fails at its deadline.
    fn failure_rate_lower(&self) -> f64 {
        let failures = |about| {
            matches!(about, Indicator::Availability | Indicator::Tools | Indicator::Scraped)
        };
        let tracks = self.objectives.iter().filter(|track| failures(track.indicator));
        tracks.map(|track| track.process.failure_rate_lower()).fold(0.0, f64::max)
    }

    fn traffic_summary(&self, now: Moment) -> String {
        let Counts { server_fault, tool_fault, .. } = self.counts;
        let judged = self.counts.judged();
        match self.last_request_at {
            None => "no traffic yet: only probes speak".to_owned(),
            Some(at) if IDLE_REPORTED_AFTER <= now.since(at) => format!(
                "{judged} requests judged, {server_fault} server faults, {tool_fault} tool faults; \
                 no traffic for {} s",
                now.since(at).as_secs()
            ),
            Some(_) => format!(
                "{judged} requests judged, {server_fault} server faults, {tool_fault} tool faults"
            ),
        }
    }

    fn make_verdict(
        &self,
        now: Moment,
        finding: Finding,
        because: String,
        onset: Moment,
        failing: f64,
    ) -> Verdict {
        let strongest = self
            .objectives
            .iter()
            .max_by(|a, b| a.process.e_value().total_cmp(&b.process.e_value()));
        let rate = strongest.map_or(0.0, |track| track.process.request_rate(now));
        Verdict {
            release: self.release,
            finding,
            because,
            onset,
            failure_rate_lower: failing,
            request_rate: rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProbeResult;

    #[test]
    fn when_the_warm_release_answers_first_after_a_shared_outage_the_other_gets_a_fresh_look() {
        let objective =
            Objective { indicator: Indicator::Availability, error_budget: 0.005, weight: 1.0 };
        let limits = SloSettings {
            objectives: vec![objective],
            max_false_rollback: 1e-3,
            min_effect: 2.0,
            burst: Duration::from_secs(5),
            bake: Duration::from_secs(1800),
            failed_probes_max: 3,
            baseline: Baseline::Probes,
            shadow_calls: true,
            scrape: None,
        };
        let (new, warm) = (ReleaseNumber(2), ReleaseNumber(1));
        let mut judge = Judge::new(new, Some(warm), limits, History::default(), Moment(0));
        let mut probe = |at, release, reply| {
            judge.observe(Moment(at), &Signal { release, observation: Observation::Probe(reply) });
            judge.verdict(Moment(at)).finding
        };
        for at in 0..3 {
            probe(200 * at, warm, ProbeResult::Refused);
            probe(200 * at, new, ProbeResult::Refused);
        }
        assert_eq!(probe(700, new, ProbeResult::Refused), Finding::SharedOutage);
        assert_eq!(probe(800, warm, ProbeResult::Ok), Finding::Undecided);
        assert_eq!(probe(900, new, ProbeResult::Ok), Finding::Undecided);
        for at in [1_100, 1_300] {
            assert_eq!(probe(at, new, ProbeResult::Refused), Finding::Undecided);
        }
        assert_eq!(probe(1_500, new, ProbeResult::Refused), Finding::Breach(Severity::Down));
    }
}
