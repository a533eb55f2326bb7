//! The verdict of a judge: what is broken, and whether the deploy is to blame.

use crate::judge::attribution::Blame;
use crate::judge::call_comparison::StrongestCall;
use crate::judge::liveness::DownReason;
use crate::judge::objective::ObjectiveEvidence;
use crate::judge::release_judge::Judge;
use crate::judge::severity;
use crate::judge::slo::Indicator;
use crate::judge::source_shares::OneSource;
use crate::judge::split_process::SplitProcess;
use crate::judge::traffic_summary::traffic_summary;
use crate::model::{
    Basis, ComparisonRule, Finding, Moment, ObjectiveNumbers, Rule, Severity, Verdict,
};

/// An objective that was broken.
struct BrokenObjective {
    indicator: Indicator,
    numbers: ObjectiveNumbers,
    /// Since when that is proven.
    proven_at: Moment,
    /// When it began.
    onset: Moment,
    /// The source that fails most, where the others break nothing, and what that means.
    one_source: Option<(OneSource, Finding)>,
}

/// What a verdict says.
pub(super) struct Found {
    pub(super) finding: Finding,
    pub(super) because: String,
    pub(super) basis: Option<Basis>,
    pub(super) onset: Moment,
    pub(super) failure_rate_lower: f64,
}

impl Judge {
    /// The verdict on the signals so far.
    pub fn verdict(&self, now: Moment) -> Verdict {
        self.verdict_of(now, |_| true)
    }

    /// The same about these objectives only.
    pub(in crate::judge) fn verdict_of(
        &self,
        now: Moment,
        judged: impl Fn(Indicator) -> bool,
    ) -> Verdict {
        if let Some(reason) = self.down_reason(now) {
            return self.make_verdict(now, self.found_down(now, reason));
        }
        if let Some(broken) = self.first_broken_objective(now, judged) {
            return self.make_verdict(now, self.found_broken(now, broken));
        }
        let differs = match self.found_different(now) {
            Some(found) if found.finding != Finding::Differs => {
                return self.make_verdict(now, found);
            }
            differs => differs,
        };
        let unproven = |finding, because, onset| {
            let (basis, failure_rate_lower) = (None, 0.0);
            self.make_verdict(now, Found { finding, because, basis, onset, failure_rate_lower })
        };
        if let Some((because, since)) = self.scraped.as_ref().and_then(|it| it.no_data_reason(now))
        {
            return unproven(Finding::NoData, because, since);
        }
        if let Some(found) = differs {
            return self.make_verdict(now, found);
        }
        let finding = if self.verified() { Finding::Healthy } else { Finding::Undecided };
        let traffic = traffic_summary(&self.counts, self.last_request_at, now);
        unproven(finding, traffic + &self.scrape_remarks(now), self.started_at)
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
        let BrokenObjective { indicator, numbers, proven_at, onset, one_source } = broken;
        if let Some((source, finding)) = one_source {
            let because = format!("{numbers}; {source}");
            let basis = Basis { objective: Some(numbers), ..Basis::of(Rule::BrokenObjective) };
            return Found { finding, because, basis: Some(basis), onset, failure_rate_lower: 0.0 };
        }
        let lower = self.failure_rate_lower();
        let (finding, comparison) = match self.attribution.blame(now, indicator, proven_at) {
            // Its probes have not been answered since: wait for the next one.
            Blame::Deploy(why)
                if why.rule == ComparisonRule::ProbesPass
                    && self.silence.may_be_shared(now, self.burst) =>
            {
                (Finding::Measuring, why)
            }
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
        self.liveness.down_reason(now).or_else(|| {
            let hang = self.liveness.hang_reason(now, slow)?;
            // A host that stands still stops both releases: the other one has to answer meanwhile. Beyond
            // a burst it is judged without; a shorter outage of both pages nobody.
            let is_alone = self.burst <= now.since(hang.since)
                || !self.attribution.has_baseline_release()
                || self.silence.is_of_one(now) && self.attribution.shared_outage(now).is_none();
            is_alone.then_some(hang)
        })
    }

    /// The objective that was broken first. What one user alone breaks hides no other.
    fn first_broken_objective(
        &self,
        now: Moment,
        judged: impl Fn(Indicator) -> bool,
    ) -> Option<BrokenObjective> {
        let one_source = |about, process: &SplitProcess, allowed, proven_at| {
            let source = self.sources.worst_source(about);
            let source = source.filter(|_| !process.is_broken_without_worst())?;
            Some((source, source.finding(allowed, now.since(proven_at))?))
        };
        let tracks = self.objectives.iter().filter_map(|track| {
            let (proven_at, onset) = (track.broken_since?, track.process.all().onset());
            let (indicator, numbers) = (track.indicator, track.numbers());
            let one_source = one_source(indicator, &track.process, numbers.allowed, proven_at);
            Some(BrokenObjective { indicator, numbers, proven_at, onset, one_source })
        });
        let rejected = self.calls.iter().filter(|it| it.indicator() == Indicator::ClientFaults);
        let calls = rejected.filter_map(|calls| {
            let (StrongestCall { call, process }, proven_at) = calls.broken()?;
            let (indicator, onset) = (calls.indicator(), process.all().onset());
            let numbers = process.all().numbers(&calls.describe(call));
            let one_source = one_source(indicator, process, numbers.allowed, proven_at);
            Some(BrokenObjective { indicator, numbers, proven_at, onset, one_source })
        });
        tracks
            .chain(calls)
            .filter(|it| judged(it.indicator))
            .min_by_key(|it| (it.one_source.is_some(), it.proven_at))
    }

    /// Where several users fail, one that fails far more does not decide. A slow answer is still an answer:
    /// a cut would turn it into a failure. A request that hangs fails at its deadline.
    fn failure_rate_lower(&self) -> f64 {
        let failures = |about| {
            matches!(about, Indicator::Availability | Indicator::Tools | Indicator::Scraped)
        };
        let tracks = self.objectives.iter().filter(|track| failures(track.indicator));
        tracks.map(|track| track.process.of_several().failure_rate_lower()).fold(0.0, f64::max)
    }

    fn make_verdict(&self, now: Moment, found: Found) -> Verdict {
        let Found { finding, because, basis, onset, failure_rate_lower } = found;
        let e_value = |track: &ObjectiveEvidence| track.process.all().e_value();
        let strongest = self.objectives.iter().max_by(|a, b| e_value(a).total_cmp(&e_value(b)));
        Verdict {
            release: self.release,
            finding,
            because,
            basis: basis.map(Box::new),
            onset,
            failure_rate_lower,
            request_rate: strongest.map_or(0.0, |track| track.process.all().request_rate(now)),
        }
    }
}
