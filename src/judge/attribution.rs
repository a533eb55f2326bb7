//! Whether the deploy is to blame: what the warm release does in the same seconds.
//!
//! Best is a measured baseline: its own traffic, and shadow calls ([`traffic_test`](crate::judge::two_sample)).
//! Without either, its probes decide, or the operator is paged: `baseline` chooses.

use std::time::Duration;

use crate::judge::beta;
use crate::judge::call_comparison;
use crate::judge::slo::{AnswerAction, Baseline, Indicator, Objective, SloSettings};
use crate::judge::source_shares::{OneSource, SourceShares};
use crate::judge::two_sample::{PairedCounts, TwoSampleTest};
use crate::model::{
    Comparison, ComparisonRule, Counts, History, Moment, Observation, ProbeResult, ReleaseNumber,
    Signal,
};

/// The e-value at which the deploy is to blame. It only guards against a shared outage that
/// happens to fall into a bake: rare, so a chance of one in ten to miss it is enough.
pub const BLAME_THRESHOLD: f64 = 10.0;
/// How long a failed probe of the warm release counts.
const PROBE_FAILURE_VALID: Duration = Duration::from_secs(5);
/// How long to wait for a measured baseline before the next best source decides.
const BASELINE_WAIT: Duration = Duration::from_secs(15);
/// A source of a baseline that was silent for this long is none; shadow calls come at once.
const TRAFFIC_VALID: Duration = Duration::from_secs(30);
/// From a warm release that was silent for this long, nothing more is expected: what it had was the end of
/// the requests from before the switch.
const TRAFFIC_PAUSE: Duration = Duration::from_secs(5);
const SHADOW_VALID: Duration = Duration::from_secs(2);
/// How long it goes on to gather when nothing is suspicious any more.
const COMPARE_AFTER_SUSPICION: Duration = Duration::from_secs(10);
/// A thin one has to do after this.
const ATTRIBUTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Where the trouble is mild, an e-value of [`BLAME_THRESHOLD`] takes long. This many requests of the warm
/// release are an answer, too, if they show no breach and a plainly lower failure rate, and the
/// e-value does not point the other way.
const FALLBACK_REQUESTS_MIN: u64 = 30;
const FALLBACK_E_MIN: f64 = 1.0;
const FALLBACK_AFTER: Duration = Duration::from_secs(2);
/// Fewer requests of the warm release than this measure nothing.
const BASELINE_REQUESTS_MIN: u64 = 10;
/// Nor do fewer bad ones than this where no more is expected, unless all of them are bad.
const BASELINE_BAD_MIN: u64 = 3;
/// What a warm release without a history is taken to fail: bad requests, and all.
const PRIOR_COUNTS: (f64, f64) = (1.0, 1_000.0);
/// The same for answers that are smaller or slower than usual: some always are.
const PRIOR_ANSWERS: (f64, f64) = (5.0, 100.0);
/// A history does not count for more requests than this.
const HISTORY_REQUESTS_MAX: f64 = 10_000.0;

/// What is known about the release that could take over.
#[derive(Debug, Clone)]
pub struct Attribution {
    warm: Option<ReleaseNumber>,
    baseline: Baseline,
    /// Whether shadow calls can be expected.
    shadow_calls_enabled: bool,
    last_probe_failure: Option<(Moment, ProbeResult)>,
    process_exited: bool,
    /// Until when the warm release may take to start.
    starting_until: Moment,
    traffic_tests: Vec<(Indicator, TwoSampleTest)>,
    /// Where the failures of the warm release come from.
    warm_sources: SourceShares,
    budgets: Vec<(Indicator, f64)>,
    /// Since when it gathers, and when the trial was last suspicious.
    comparing_since: Option<Moment>,
    last_suspicious_at: Option<Moment>,
    shadow_test: TwoSampleTest,
    /// What ended on trial in the block whose shadow calls may still arrive.
    trial_block: (u32, u64, u64),
    /// The weight of its own traffic beside that of shadow calls.
    traffic_weight: f64,
    last_traffic_at: Option<Moment>,
    /// Until when more of its traffic is expected.
    traffic_until: Moment,
    last_shadow_at: Option<Moment>,
}

/// Who is to blame for a breach.
#[derive(Debug, Clone, PartialEq)]
pub enum Blame {
    /// The deploy.
    Deploy(Comparison),
    /// Not the deploy: the warm release fails too.
    Shared(Comparison),
    /// The measurement is under way.
    Measuring(Comparison),
    /// Undetermined: the operator is paged.
    Undetermined(Comparison),
}

impl Attribution {
    /// Listens for signals of `warm`, to compare it for each objective.
    pub fn new(warm: Option<ReleaseNumber>, limits: &SloSettings, history: &History) -> Self {
        let SloSettings { objectives, min_effect: rho, baseline, shadow_calls: shadow, .. } =
            limits;
        let (rho, baseline) = (*rho, *baseline);
        let answers = limits.answer_actions().into_iter().filter(|it| it.1 != AnswerAction::Off);
        let answers = answers.map(|(about, _)| {
            (about, TwoSampleTest::new(rho, 2.0 * BLAME_THRESHOLD, PRIOR_ANSWERS))
        });
        let is_answer = |about: Indicator| limits.answer_actions().iter().any(|it| it.0 == about);
        let compared = objectives.iter().filter(|it| !is_answer(it.indicator));
        let traffic = compared.map(|Objective { indicator: about, .. }| {
            let (n, bad) = about.count(&history.last_hour);
            let (n, bad) = (n as f64, bad as f64);
            let share = (HISTORY_REQUESTS_MAX / n.max(1.0)).min(1.0);
            let known = (PRIOR_COUNTS.0 + bad * share, PRIOR_COUNTS.1 + n * share);
            (*about, TwoSampleTest::new(rho, 2.0 * BLAME_THRESHOLD, known))
        });
        Self {
            warm,
            baseline,
            shadow_calls_enabled: *shadow,
            last_probe_failure: None,
            process_exited: false,
            starting_until: Moment(0),
            traffic_tests: traffic.chain(answers).collect(),
            warm_sources: SourceShares::default(),
            budgets: objectives.iter().map(|it| (it.indicator, it.error_budget)).collect(),
            comparing_since: None,
            last_suspicious_at: None,
            shadow_test: TwoSampleTest::new(rho, 2.0 * BLAME_THRESHOLD, (0.1, 100.0)),
            trial_block: (0, 0, 0),
            traffic_weight: 0.5,
            last_traffic_at: None,
            traffic_until: Moment(0),
            last_shadow_at: None,
        }
    }

    /// Whether there is a release to compare with.
    pub fn has_baseline_release(&self) -> bool {
        self.warm.is_some()
    }

    /// Gathers while the trial is suspicious, and a while longer: mild trouble comes and goes.
    pub fn set_comparing(&mut self, now: Moment, suspicious: bool) {
        if suspicious {
            self.last_suspicious_at = Some(now);
        }
        let suspicious =
            self.last_suspicious_at.is_some_and(|at| now.since(at) <= COMPARE_AFTER_SUSPICION);
        if suspicious && self.comparing_since.is_none() {
            // Looks at the past alone, so the average stays an e-process.
            let has_traffic = self.last_traffic_at.is_some_and(|at| now.since(at) <= TRAFFIC_VALID);
            self.traffic_weight = if has_traffic { 0.5 } else { 0.02 };
        }
        self.comparing_since = suspicious.then(|| self.comparing_since.unwrap_or(now));
        self.traffic_tests.iter_mut().for_each(|(_, contrast)| contrast.set_running(suspicious));
        self.shadow_test.set_running(suspicious);
    }

    /// Whether this is the release that could take over.
    pub fn is_warm(&self, release: ReleaseNumber) -> bool {
        self.warm == Some(release)
    }

    /// Takes the own counters of both releases over `ms` milliseconds. Those of a
    /// warm release that clients ask nothing hold only probes and scrapes, and compare with nothing.
    pub fn add_scraped(&mut self, now: Moment, ms: u32, pair: PairedCounts) {
        let has_traffic = self.last_traffic_at.is_some_and(|at| now.since(at) <= TRAFFIC_VALID);
        let pair = if has_traffic { pair } else { PairedCounts { warm: (0, 0), ..pair } };
        let scraped_tests =
            self.traffic_tests.iter_mut().filter(|(about, _)| *about == Indicator::Scraped);
        scraped_tests.for_each(|(_, contrast)| contrast.update(ms, pair));
    }

    /// What ended on the release on trial.
    pub fn add_trial_block(&mut self, ms: u32, counts: &Counts) {
        for (about, contrast) in self.proxy_tests_mut() {
            contrast.update(ms, PairedCounts { trial: about.count(counts), warm: (0, 0) });
        }
        self.trial_block = (ms, counts.repeatable, counts.repeatable_failed);
    }

    /// Takes one signal in; those of other releases are ignored.
    pub fn observe(&mut self, now: Moment, signal: &Signal) {
        if Some(signal.release) != self.warm {
            return;
        }
        match &signal.observation {
            Observation::Probe(ProbeResult::Ok) => {
                (self.last_probe_failure, self.process_exited) = (None, false);
                self.starting_until = Moment(0);
            }
            // A warm release that starts after a boot is no evidence of a shared outage.
            Observation::Starting(_, allowed_ms) => {
                let allowed = Duration::from_millis((*allowed_ms).into());
                (self.starting_until, self.last_probe_failure) = (now + allowed, None);
            }
            Observation::Probe(_) if now < self.starting_until => (),
            Observation::Probe(reply) => self.last_probe_failure = Some((now, reply.clone())),
            // A warm process that crashed is no evidence about what both depend on.
            Observation::Exited(_) => self.process_exited = true,
            Observation::Block(ms, counts) => {
                let counts = self.warm_sources.end_block(counts);
                self.add_warm_block(&counts);
                if 0 < counts.judged() {
                    self.last_traffic_at = Some(now);
                    // A replay has blocks that are longer than the pause.
                    let next_blocks = Duration::from_millis(u64::from(*ms) * 2);
                    self.traffic_until = now + TRAFFIC_PAUSE.max(next_blocks);
                }
            }
            Observation::Sources(sources) => self.warm_sources.expect(sources),
            Observation::Shadow(n, bad) => {
                let (ms, safe, safe_bad) = std::mem::take(&mut self.trial_block);
                self.shadow_test
                    .update(ms, PairedCounts { trial: (safe, safe_bad), warm: (*n, *bad) });
                self.last_shadow_at = Some(now);
            }
            Observation::Calls(_)
            | Observation::Scraped(_)
            | Observation::KnownFailing(_)
            | Observation::Cells(_)
            | Observation::Step(_) => (),
        }
    }

    /// What ended on the warm release. One source that fails there alone excuses nothing.
    fn add_warm_block(&mut self, counts: &Counts) {
        let sources = &self.warm_sources;
        let tests = self.traffic_tests.iter_mut().filter(|(about, _)| *about != Indicator::Scraped);
        for (about, contrast) in tests {
            let (n, bad) = about.count(counts);
            let is_alone = sources.worst_source(*about).is_some_and(OneSource::is_alone);
            let left_out = sources.left_out(*about).filter(|_| is_alone).unwrap_or_default();
            let warm = (n.saturating_sub(left_out.0), bad.saturating_sub(left_out.1));
            contrast.update(0, PairedCounts { trial: (0, 0), warm });
        }
    }

    /// Why a failure now is not the deploy's fault, if the warm release fails its probes.
    pub fn shared_outage(&self, now: Moment) -> Option<Comparison> {
        let (at, reply) = self.last_probe_failure.as_ref()?;
        let is_recent = !self.process_exited && now.since(*at) <= PROBE_FAILURE_VALID;
        is_recent.then(|| Comparison {
            failed_probe: Some(reply.to_string()),
            ..Comparison::of(ComparisonRule::WarmProbesFail)
        })
    }

    /// The evidence that the deploy is to blame for a breach of this objective: enough at
    /// [`BLAME_THRESHOLD`].
    pub fn e_value(&self, about: Indicator) -> f64 {
        let traffic = self.traffic_test(about).map_or(1.0, TwoSampleTest::e_value);
        if about.has_shadow_calls() {
            self.traffic_weight * traffic + (1.0 - self.traffic_weight) * self.shadow_test.e_value()
        } else {
            traffic
        }
    }

    /// Who is to blame for a breach of this objective that was found at `since`.
    pub fn blame(&self, now: Moment, about: Indicator, since: Moment) -> Blame {
        if self.warm.is_none() {
            return Blame::Deploy(Comparison::of(ComparisonRule::NoWarmRelease));
        }
        let e = self.e_value(about);
        let measured = self.baseline_counts(about);
        let by = |rule| self.compare(about, e, rule);
        if BLAME_THRESHOLD <= e {
            return Blame::Deploy(by(ComparisonRule::Evidence));
        }
        let (n, bad) = measured;
        let waited = now.since(since);
        let is_expected = self.baseline_expected(now, about, waited);
        let is_rest = !is_expected && bad < BASELINE_BAD_MIN && bad < n;
        if n < BASELINE_REQUESTS_MIN && (bad == 0 || is_rest) {
            return if is_expected && waited < BASELINE_WAIT {
                Blame::Measuring(by(ComparisonRule::Measuring))
            } else {
                self.blame_by_probes(now)
            };
        }
        if !exceeds_share(bad, n, self.budget(about)) {
            let compared_long_enough =
                self.comparing_since.is_some_and(|begun| FALLBACK_AFTER <= now.since(begun));
            if compared_long_enough
                && FALLBACK_E_MIN <= e
                && let Some(rate_upper_bound) = self.plainly_lower_rate(about)
                && self.shared_outage(now).is_none()
            {
                let warm_rate_upper = Some(rate_upper_bound);
                return Blame::Deploy(Comparison {
                    warm_rate_upper,
                    ..by(ComparisonRule::FailsLess)
                });
            }
            // An unexplained breach must neither wait for the end of the bake nor pass it.
            let is_over = ATTRIBUTION_TIMEOUT <= waited;
            return match bad {
                0 if is_over || !is_expected => self.blame_by_probes(now),
                _ if is_over => Blame::Undetermined(by(ComparisonRule::Undetermined)),
                _ => Blame::Measuring(by(ComparisonRule::Measuring)),
            };
        }
        if BASELINE_WAIT <= waited {
            Blame::Shared(by(ComparisonRule::WarmReleaseFails))
        } else {
            Blame::Measuring(by(ComparisonRule::Measuring))
        }
    }

    /// The comparisons of what the proxy counts.
    fn proxy_tests_mut(&mut self) -> impl Iterator<Item = &mut (Indicator, TwoSampleTest)> {
        self.traffic_tests.iter_mut().filter(|(about, _)| *about != Indicator::Scraped)
    }

    /// The most that the warm release fails (99 % bound), where that is plainly less than the release
    /// on trial fails in the same blocks (its own 99 % bound), and no breach.
    fn plainly_lower_rate(&self, about: Indicator) -> Option<f64> {
        let traffic = self.traffic_test(about).map(TwoSampleTest::counts);
        let shadow = about.has_shadow_calls().then(|| self.shadow_test.counts());
        [traffic, shadow].into_iter().flatten().find_map(|seen| {
            let ((n, bad), (trial, trial_bad)) = (seen.warm, seen.trial);
            if n < FALLBACK_REQUESTS_MIN || exceeds_share(bad, n, self.budget(about)) {
                return None;
            }
            let rate_upper_bound = beta::upper_bound(bad, n, 0.01);
            (rate_upper_bound <= beta::lower_bound(trial_bad, trial, 0.01))
                .then_some(rate_upper_bound)
        })
    }

    fn blame_by_probes(&self, now: Moment) -> Blame {
        match (self.shared_outage(now), self.baseline) {
            (Some(shared), _) => Blame::Shared(shared),
            (None, Baseline::Probes) => Blame::Deploy(Comparison::of(ComparisonRule::ProbesPass)),
            (None, Baseline::Required) => {
                Blame::Undetermined(Comparison::of(ComparisonRule::NothingToCompare))
            }
        }
    }

    /// Whether a baseline is being measured, or about to be.
    fn baseline_expected(&self, now: Moment, about: Indicator, waited: Duration) -> bool {
        let shadow_due = self.shadow_calls_enabled
            && about.has_shadow_calls()
            && 0 < self.trial_block.2
            && waited < SHADOW_VALID;
        let shadow = about.has_shadow_calls()
            && self.last_shadow_at.is_some_and(|at| now.since(at) <= SHADOW_VALID);
        now <= self.traffic_until || shadow || shadow_due
    }

    fn baseline_counts(&self, about: Indicator) -> (u64, u64) {
        let traffic = self.traffic_test(about).map(|it| it.counts().warm).unwrap_or_default();
        let shadow = if about.has_shadow_calls() { self.shadow_test.counts().warm } else { (0, 0) };
        (traffic.0.saturating_add(shadow.0), traffic.1.saturating_add(shadow.1))
    }

    fn compare(&self, about: Indicator, e_value: f64, rule: ComparisonRule) -> Comparison {
        let traffic = self.traffic_test(about).map(TwoSampleTest::counts).unwrap_or_default();
        let has_shadow = about.has_shadow_calls();
        Comparison {
            e_value: Some(e_value),
            threshold: Some(BLAME_THRESHOLD),
            warm: traffic.warm,
            shadow: if has_shadow { self.shadow_test.counts().warm } else { (0, 0) },
            ..Comparison::of(rule)
        }
    }

    fn budget(&self, about: Indicator) -> f64 {
        self.budgets
            .iter()
            .find(|(it, _)| *it == about)
            .map_or(call_comparison::RATE_MIN, |(_, budget)| *budget)
    }

    fn traffic_test(&self, about: Indicator) -> Option<&TwoSampleTest> {
        self.traffic_tests.iter().find(|(it, _)| *it == about).map(|(_, contrast)| contrast)
    }
}

/// Whether more than this share was bad, by the lower 5 % bound. The bound is expensive, and needed
/// in every block of a long outage; beyond four standard deviations it is not computed.
fn exceeds_share(bad: u64, n: u64, share: f64) -> bool {
    let expected_bad = n as f64 * share;
    let far_above = expected_bad + 4.0 * expected_bad.sqrt() + 4.0 < bad as f64;
    far_above || share < beta::lower_bound(bad, n, 0.05)
}
