//! The judge of one bake: signals about one release in, a verdict out.

mod answers;
mod verdict;

use std::time::Duration;

use crate::judge::attribution::Attribution;
use crate::judge::call_comparison::CallComparison;
use crate::judge::counter::Delta;
use crate::judge::liveness::Liveness;
use crate::judge::objective::ObjectiveEvidence;
use crate::judge::scraped_evidence::{ScrapedChange, ScrapedEvidence};
use crate::judge::silence::Silence;
use crate::judge::slo::{AnswerAction, Indicator, SloSettings};
use crate::judge::source_shares::SourceShares;
use crate::judge::split_process::SplitProcess;
use crate::judge::two_sample::PairedCounts;
use crate::judge::verification::Verification;
use crate::model::{
    Counts, Evidence, History, Moment, Observation, ProbeResult, ReleaseNumber, ScrapeResult,
    Signal,
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
    calls: Vec<CallComparison>,
    /// What differing answers lead to.
    answer_actions: [(Indicator, AnswerAction); 2],
    liveness: Liveness,
    attribution: Attribution,
    /// Where its failures come from.
    sources: SourceShares,
    pub(super) scraped: Option<ScrapedEvidence>,
    shared_outage: bool,
    silence: Silence,
    /// How long a silence may be that is not compared with the other release.
    burst: Duration,
    counts: Counts,
    started_at: Moment,
    last_request_at: Option<Moment>,
    verification: Option<Verification>,
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
        let (mut objectives, mut calls) = (Vec::new(), Vec::new());
        for objective in &limits.objectives {
            let alpha = limits.max_false_rollback * objective.weight / weights;
            if objective.indicator.is_by_call() {
                calls.push(CallComparison::new(objective.indicator, alpha, &limits, &history));
            } else {
                objectives.push(ObjectiveEvidence::new(objective, alpha, &limits, &history));
            }
        }
        let answer_actions = limits.answer_actions();
        // What only tells a person has an error probability of its own.
        let pages = answer_actions.iter().filter(|it| it.1 == AnswerAction::Page);
        calls.extend(pages.map(|(about, _)| {
            CallComparison::new(*about, limits.max_false_rollback, &limits, &history)
        }));
        let liveness = Liveness::new(limits.failed_probes_max, limits.probe_interval, now);
        let attribution = Attribution::new(warm, &limits, &history);
        let verification = Verification::new(&limits);
        let scraped = limits.scrape.map(|scraping| ScrapedEvidence::new(scraping, now));
        Self {
            release,
            objectives,
            calls,
            answer_actions,
            liveness,
            attribution,
            sources: SourceShares::default(),
            scraped,
            shared_outage: false,
            silence: Silence::new(now),
            burst: limits.burst,
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
        if self.attribution.is_warm(signal.release) {
            match &signal.observation {
                Observation::Probe(ProbeResult::Ok) => self.silence.other_answers(now),
                Observation::Block(_, counts) => self.silence.add_other_block(now, counts),
                _ => (),
            }
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
            Observation::Sources(sources) => self.sources.expect(sources),
            Observation::Starting(cause, allowed_ms) => {
                self.liveness.start(now, *cause, Duration::from_millis((*allowed_ms).into()));
            }
            Observation::Probe(reply) => self.liveness.add_probe(now, reply),
            Observation::Exited(how) => self.liveness.add_exit(now, how),
            Observation::Calls(counts_by_call) => {
                let start = (now - SECOND).max(self.started_at);
                for calls in &mut self.calls {
                    calls.add_calls(now, (start, SECOND_MS), counts_by_call, &self.sources);
                }
                self.sources.end_calls();
            }
            Observation::Shadow(..) | Observation::Scraped(_) => (),
            Observation::Cells(_) | Observation::KnownFailing(_) | Observation::Step(_) => (),
        }
    }

    /// The daemon did not run for this long before now: that time is no silence of the release.
    pub fn skip(&mut self, gap: Duration) {
        self.liveness.skip(gap);
        self.silence.skip(gap);
        self.scraped.iter_mut().for_each(|scraped| scraped.skip(gap));
    }

    /// A shared outage is over: what happened during it is not held against the deploy, and
    /// whichever release answers first again, the other one gets a fresh look.
    fn reset_evidence(&mut self) {
        self.reset_objectives(|_| true);
        self.calls.iter_mut().for_each(CallComparison::reset_evidence);
        self.sources.reset();
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
        self.liveness.add_block(now, counts);
        let ends_shared_silence = self.silence.add_block(now, ms, counts);
        let judged = self.sources.end_block(counts);
        self.attribution.add_trial_block(ms, &judged);
        self.verification.iter_mut().for_each(|it| it.update(&judged));
        if 0 < counts.total() {
            self.last_request_at = Some(now);
        }
        // What failed while both stood still is not held against the deploy, nor what of it is in this block.
        if ends_shared_silence && self.attribution.has_baseline_release() {
            return self.reset_evidence();
        }
        let start = (now - Duration::from_millis(ms.into())).max(self.started_at);
        for track in self.objectives.iter_mut().filter(|it| it.indicator != Indicator::Scraped) {
            let left_out = self.sources.left_out(track.indicator);
            track.update(now, (start, ms), track.indicator.count(&judged), left_out);
        }
    }

    /// What the own counters of the release say beside the proxy, as an addition to a sentence.
    pub(super) fn scrape_remarks(&self, now: Moment) -> String {
        self.scraped.as_ref().map(|it| it.remarks(now)).unwrap_or_default()
    }

    /// The evidence for the objective that is nearest to a verdict.
    pub fn evidence(&self) -> Evidence {
        let tracks = self.objectives.iter().map(|track| {
            let (judged, bad) = self.counts_for(track.indicator);
            (track.indicator.name().to_owned(), track.process.all(), judged, bad)
        });
        let acting = self.calls.iter().filter(|calls| self.leads_to_rollback(calls.indicator()));
        let calls = acting.filter_map(|calls| {
            let (judged, bad) = calls.indicator().count(&self.counts);
            let strongest = calls.strongest()?;
            Some((calls.describe(strongest.call), strongest.process.all(), judged, bad))
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
            track.process.all().e_value().ln() / track.process.all().threshold().ln()
        };
        let track = self.objectives.iter().max_by(|a, b| progress(a).total_cmp(&progress(b)))?;
        self.attribution.has_baseline_release().then(|| self.attribution.e_value(track.indicator))
    }

    /// Whether the release has not answered since it started, and may still turn out to be down.
    pub fn awaits_answer(&self, now: Moment) -> bool {
        self.liveness.awaits_answer(now)
    }

    /// Whether closer observation is due: evidence over a tenth of the way, or a failed probe.
    pub fn is_suspicious(&self, now: Moment) -> bool {
        let is_near_verdict = |process: &SplitProcess| {
            let process = process.all();
            SUSPICION_PROGRESS < process.e_value().ln() / process.threshold().ln()
        };
        self.liveness.has_recent_failure(now)
            || self.objectives.iter().any(|track| is_near_verdict(&track.process))
            || self
                .calls
                .iter()
                .any(|calls| calls.strongest().is_some_and(|it| is_near_verdict(it.process)))
    }

    /// Whether a breach of this indicator leads to a rollback.
    pub(super) fn leads_to_rollback(&self, about: Indicator) -> bool {
        let action = self.answer_actions.iter().find(|it| it.0 == about);
        action.is_none_or(|it| it.1 == AnswerAction::Act)
    }

    /// The share of tool calls that may have isError; None where that has no objective.
    pub(super) fn tools_allowed(&self) -> Option<f64> {
        let tools = self.objectives.iter().find(|track| track.indicator == Indicator::Tools);
        tools.map(|track| track.numbers().allowed)
    }

    /// The outcomes of all requests of the bake.
    pub fn total(&self) -> &Counts {
        &self.counts
    }

    /// Whether there is evidence that the release meets its objectives, not merely none against it.
    pub fn verified(&self) -> bool {
        self.verification.as_ref().is_some_and(Verification::is_verified)
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
            track.update(now, (start, span), (total, bad), None);
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
