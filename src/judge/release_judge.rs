//! The judge of one bake: signals about one release in, a verdict out.

use std::time::Duration;

use crate::judge::attribution::{Attribution, Blame};
use crate::judge::client_faults::ClientFaults;
use crate::judge::counter::Delta;
use crate::judge::e_process::EProcess;
use crate::judge::liveness::{DownReason, Liveness};
use crate::judge::objective::ObjectiveEvidence;
use crate::judge::scraped_evidence::{ScrapedChange, ScrapedEvidence};
use crate::judge::severity;
use crate::judge::slo::{Indicator, SloSettings};
use crate::judge::traffic_summary::traffic_summary;
use crate::judge::two_sample::PairedCounts;
use crate::judge::verification::Verification;
use crate::model::{
    Basis, Counts, Evidence, Finding, History, Moment, ObjectiveNumbers, Observation,
    ReleaseNumber, Rule, ScrapeResult, Severity, Signal, Verdict,
};

const SECOND: Duration = Duration::from_secs(1);
const SECOND_MS: u32 = 1_000;
/// The part of the way to a verdict at which closer observation starts.
const SUSPICION_PROGRESS: f64 = 0.1;

/// The trial of one release.
#[derive(Debug, Clone)]
pub struct Judge {
    release: ReleaseNumber,
    objectives: Vec<ObjectiveEvidence>,
    client_faults: Option<(ClientFaults, Option<Moment>)>,
    liveness: Liveness,
    attribution: Attribution,
    pub(super) scraped: Option<ScrapedEvidence>,
    shared_outage: bool,
    counts: Counts,
    started_at: Moment,
    last_request_at: Option<Moment>,
    verification: Option<Verification>,
}

/// An objective that was broken.
struct BrokenObjective {
    indicator: Indicator,
    numbers: ObjectiveNumbers,
    /// Since when that is proven.
    proven_at: Moment,
    /// When it began.
    onset: Moment,
}

/// What a verdict says.
struct Found {
    finding: Finding,
    because: String,
    basis: Option<Basis>,
    onset: Moment,
    failure_rate_lower: f64,
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
        let liveness = Liveness::new(limits.failed_probes_max, limits.probe_interval, now);
        let attribution = Attribution::new(warm, &limits, &history);
        let verification = Verification::new(&limits);
        let scraped = limits.scrape.map(|scraping| ScrapedEvidence::new(scraping, now));
        Self {
            release,
            objectives,
            client_faults,
            liveness,
            attribution,
            scraped,
            shared_outage: false,
            counts: Counts::default(),
            started_at: now,
            last_request_at: None,
            verification,
        }
    }

    /// The release on trial.
    pub fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// Takes one signal in.
    pub fn observe(&mut self, now: Moment, signal: &Signal) {
        // Before the signal, since what is compared next must not depend on its content.
        self.attribution.set_comparing(now, self.is_suspicious(now));
        self.attribution.observe(now, signal);
        let shared = self.attribution.shared_outage(now).is_some();
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
            // Requests that meet a release which still starts after a boot are not its own failures.
            Observation::Block(..) if self.liveness.is_excused(now) => (),
            Observation::Block(ms, counts) => self.add_block(now, *ms, counts),
            Observation::Starting(cause, allowed_ms) => {
                self.liveness.start(now, *cause, Duration::from_millis((*allowed_ms).into()));
            }
            Observation::Probe(reply) => self.liveness.add_probe(now, reply),
            Observation::Exited(how) => self.liveness.add_exit(now, how),
            Observation::Calls(counts_by_call) => {
                if let Some((calls, tripped)) = &mut self.client_faults {
                    calls.add_calls((now - SECOND).max(self.started_at), SECOND_MS, counts_by_call);
                    let is_broken =
                        calls.strongest().is_some_and(|(_, process)| process.is_broken());
                    *tripped = is_broken.then(|| tripped.unwrap_or(now));
                }
            }
            Observation::Shadow(..) | Observation::Scraped(_) => (),
            Observation::Cells(_) | Observation::KnownFailing(_) | Observation::Step(_) => (),
        }
    }

    /// The daemon did not run for this long before now: that time is no silence of the release.
    pub fn skip(&mut self, gap: Duration) {
        self.liveness.skip(gap);
        self.scraped.iter_mut().for_each(|scraped| scraped.skip(gap));
    }

    /// A shared outage is over: what happened during it is not held against the deploy, and
    /// whichever release answers first again, the other one gets a fresh look.
    fn reset_evidence(&mut self) {
        self.reset_objectives(|_| true);
        if let Some((calls, tripped)) = &mut self.client_faults {
            calls.reset_evidence();
            *tripped = None;
        }
        self.liveness.reset();
    }

    fn reset_objectives(&mut self, which: impl Fn(Indicator) -> bool) {
        for track in self.objectives.iter_mut().filter(|track| which(track.indicator)) {
            track.process.reset_evidence();
            track.broken_since = None;
        }
    }

    fn add_block(&mut self, now: Moment, ms: u32, counts: &Counts) {
        self.counts += *counts;
        self.attribution.add_trial_block(ms, counts);
        self.liveness.add_block(now, counts);
        self.verification.iter_mut().for_each(|it| it.update(&self.counts));
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

    /// The verdict on the signals so far.
    pub fn verdict(&self, now: Moment) -> Verdict {
        self.verdict_of(now, |_| true)
    }

    /// The same about these objectives only.
    pub(super) fn verdict_of(&self, now: Moment, judged: impl Fn(Indicator) -> bool) -> Verdict {
        if let Some(reason) = self.down_reason(now) {
            return self.make_verdict(now, self.found_down(now, reason));
        }
        if let Some(broken) = self.first_broken_objective(judged) {
            return self.make_verdict(now, self.found_broken(now, broken));
        }
        let unproven = |finding, because, onset| {
            let (basis, failure_rate_lower) = (None, 0.0);
            self.make_verdict(now, Found { finding, because, basis, onset, failure_rate_lower })
        };
        if let Some((because, since)) = self.scraped.as_ref().and_then(|it| it.no_data_reason(now))
        {
            return unproven(Finding::NoData, because, since);
        }
        let finding = if self.verified() { Finding::Healthy } else { Finding::Undecided };
        let traffic = traffic_summary(&self.counts, self.last_request_at, now);
        unproven(finding, traffic + &self.scrape_remarks(now), self.started_at)
    }

    /// What the own counters of the release say beside the proxy, as an addition to a sentence.
    pub(super) fn scrape_remarks(&self, now: Moment) -> String {
        self.scraped.as_ref().map(|it| it.remarks(now)).unwrap_or_default()
    }

    fn found_down(&self, now: Moment, DownReason { rule, text, since }: DownReason) -> Found {
        let comparison = self.attribution.shared_outage(now);
        let (finding, because) = match &comparison {
            Some(shared) => (Finding::SharedOutage, format!("{text}; {shared}")),
            None => (Finding::Breach(Severity::Down), text),
        };
        let basis = Some(Basis { comparison, ..Basis::of(rule) });
        Found { finding, because, basis, onset: since, failure_rate_lower: 1.0 }
    }

    fn found_broken(&self, now: Moment, broken: BrokenObjective) -> Found {
        let BrokenObjective { indicator, numbers, proven_at, onset } = broken;
        let lower = self.failure_rate_lower();
        let (finding, comparison) = match self.attribution.blame(now, indicator, proven_at) {
            Blame::Deploy(why) => (Finding::Breach(severity::from_failure_rate(lower)), why),
            Blame::Shared(why) => (Finding::SharedOutage, why),
            Blame::Measuring(why) => (Finding::Measuring, why),
            Blame::Undetermined(why) => (Finding::Unattributed, why),
        };
        let is_breach = matches!(finding, Finding::Breach(_));
        let because = format!("{numbers}; {comparison}");
        let basis = Basis {
            objective: Some(numbers),
            comparison: Some(comparison),
            ..Basis::of(Rule::BrokenObjective)
        };
        let failure_rate_lower = if is_breach { lower } else { 0.0 };
        Found { finding, because, basis: Some(basis), onset, failure_rate_lower }
    }

    /// Why the release counts as down, and since when.
    fn down_reason(&self, now: Moment) -> Option<DownReason> {
        let slow = self
            .objectives
            .iter()
            .any(|it| it.indicator == Indicator::Latency && it.broken_since.is_some());
        self.liveness.down_reason(now).or_else(|| self.liveness.hang_reason(now, slow))
    }

    /// The objective that was broken first.
    fn first_broken_objective(
        &self,
        judged: impl Fn(Indicator) -> bool,
    ) -> Option<BrokenObjective> {
        let tracks = self.objectives.iter().filter_map(|track| {
            let (proven_at, onset) = (track.broken_since?, track.process.onset());
            let (indicator, numbers) = (track.indicator, track.numbers());
            Some(BrokenObjective { indicator, numbers, proven_at, onset })
        });
        let calls = self.client_faults.as_ref().and_then(|(calls, tripped)| {
            let (proven_at, (call, process)) = ((*tripped)?, calls.strongest()?);
            let (indicator, onset) = (Indicator::ClientFaults, process.onset());
            let numbers = process.numbers(&ClientFaults::describe(call));
            Some(BrokenObjective { indicator, numbers, proven_at, onset })
        });
        tracks.chain(calls).filter(|it| judged(it.indicator)).min_by_key(|it| it.proven_at)
    }

    /// The evidence for the objective that is nearest to a verdict.
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

    /// Whether closer observation is due: evidence over a tenth of the way, or a failed probe.
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

    /// The outcomes of all requests of the bake.
    pub fn total(&self) -> &Counts {
        &self.counts
    }

    /// Whether there is evidence that the release meets its objectives, not merely none against it.
    pub fn verified(&self) -> bool {
        self.verification.as_ref().is_some_and(Verification::is_verified)
    }

    /// A slow answer is still an answer: a cut would turn it into a failure. A request
    /// that hangs fails at its deadline.
    fn failure_rate_lower(&self) -> f64 {
        let failures = |about| {
            matches!(about, Indicator::Availability | Indicator::Tools | Indicator::Scraped)
        };
        let tracks = self.objectives.iter().filter(|track| failures(track.indicator));
        tracks.map(|track| track.process.failure_rate_lower()).fold(0.0, f64::max)
    }

    fn make_verdict(&self, now: Moment, found: Found) -> Verdict {
        let Found { finding, because, basis, onset, failure_rate_lower } = found;
        let e_value = |track: &ObjectiveEvidence| track.process.e_value();
        let strongest = self.objectives.iter().max_by(|a, b| e_value(a).total_cmp(&e_value(b)));
        Verdict {
            release: self.release,
            finding,
            because,
            basis: basis.map(Box::new),
            onset,
            failure_rate_lower,
            request_rate: strongest.map_or(0.0, |track| track.process.request_rate(now)),
        }
    }

    /// A scrape of one of the releases.
    fn add_scrape(&mut self, now: Moment, of: ReleaseNumber, scrape: &ScrapeResult) {
        let Some(scraped) = &mut self.scraped else { return };
        if of == self.release {
            if self.liveness.is_starting(now) && matches!(scrape, ScrapeResult::Down(_)) {
                return scraped.expect_sample(now);
            }
            match scraped.add_trial_scrape(now, scrape) {
                ScrapedChange::Nothing => (),
                ScrapedChange::Counted(delta) => self.add_scraped_block(now, delta),
                ScrapedChange::Void => self.reset_objectives(|about| about == Indicator::Scraped),
            }
        } else if self.attribution.is_warm(of)
            && let Some(Delta { total, bad, .. }) = scraped.add_warm_scrape(now, scrape)
        {
            let pair = PairedCounts { trial: (0, 0), warm: (total, bad) };
            self.attribution.add_scraped(now, 0, pair);
        }
    }

    fn add_scraped_block(&mut self, now: Moment, Delta { span_ms: span, total, bad }: Delta) {
        let pair = PairedCounts { trial: (total, bad), warm: (0, 0) };
        self.attribution.add_scraped(now, span, pair);
        let start = (now - Duration::from_millis(span.into())).max(self.started_at);
        for track in self.objectives.iter_mut().filter(|it| it.indicator == Indicator::Scraped) {
            track.process.update(start, span, total, bad);
            track.broken_since =
                track.process.is_broken().then(|| track.broken_since.unwrap_or(now));
        }
    }

    /// The requests of the bake that an objective counts, and the bad ones among them.
    pub(super) fn counts_for(&self, about: Indicator) -> (u64, u64) {
        match (about, &self.scraped) {
            (Indicator::Scraped, Some(scraped)) => scraped.counts(),
            _ => about.count(&self.counts),
        }
    }
}
