//! The server's own counters as an objective, and what missing samples mean.
//!
//! They count requests that the proxy counts, too, so they have a process of their own: no request
//! counts twice in one. Missing data is neither good nor bad. The verdict names its cause,
//! and the bake waits for it, if `on_missing = "hold"`.

use std::time::Duration;

use crate::judge::counter::{Counter, CounterChange, Delta, UnusableSample};
use crate::judge::slo::ScrapePolicy;
use crate::model::{Moment, ScrapeResult};

/// Scrapes in a row without a usable sample that are no accident any more.
const MISSED_SCRAPES_MAX: u32 = 3;

/// The counters of both releases.
#[derive(Debug, Clone)]
pub struct ScrapedEvidence {
    policy: ScrapePolicy,
    trial: Counter,
    warm: Counter,
    /// The last usable sample of the release on trial, or the opening of the trial.
    last_sample_at: Moment,
    gap: Option<UnusableSample>,
    total: Delta,
    resets: u32,
    restarts: u32,
    /// Whether the bad counter was not there in the last sample.
    bad_missing: bool,
}

/// What a scrape of the release on trial came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrapedChange {
    /// No new requests are known.
    Nothing,
    /// These ended.
    Counted(Delta),
    /// The samples came from several processes: nothing that was counted so far is evidence.
    Void,
}

impl ScrapedEvidence {
    /// Nothing read yet.
    pub fn new(policy: ScrapePolicy, now: Moment) -> Self {
        Self {
            policy,
            trial: Counter::default(),
            warm: Counter::default(),
            last_sample_at: now,
            gap: None,
            total: Delta::default(),
            resets: 0,
            restarts: 0,
            bad_missing: false,
        }
    }

    /// Requests on trial that were counted so far, and the bad ones among them.
    pub fn counts(&self) -> (u64, u64) {
        (self.total.total, self.total.bad)
    }

    /// Takes a scrape of the release on trial.
    pub fn add_trial_scrape(&mut self, now: Moment, scrape: &ScrapeResult) -> ScrapedChange {
        let delta = match self.trial.add_scrape(now, scrape) {
            Ok(CounterChange::First) => None,
            Ok(CounterChange::Increased(delta)) => Some(delta),
            Ok(CounterChange::Restarted(delta)) => {
                self.restarts = self.restarts.saturating_add(1);
                Some(delta)
            }
            Ok(CounterChange::Reset) => {
                self.resets = self.resets.saturating_add(1);
                None
            }
            Err(gap) => {
                let void = gap == UnusableSample::SeveralProcesses;
                self.gap = Some(gap);
                if void {
                    self.total = Delta::default();
                    return ScrapedChange::Void;
                }
                return ScrapedChange::Nothing;
            }
        };
        self.bad_missing = matches!(scrape, ScrapeResult::Sample { bad_missing: true, .. });
        (self.last_sample_at, self.gap) = (now, None);
        let Some(delta) = delta else { return ScrapedChange::Nothing };
        self.total.total = self.total.total.saturating_add(delta.total);
        self.total.bad = self.total.bad.saturating_add(delta.bad);
        ScrapedChange::Counted(delta)
    }

    /// The release cannot answer a scrape now, and nothing is overdue.
    pub fn expect_sample(&mut self, now: Moment) {
        self.last_sample_at = self.last_sample_at.max(now);
    }

    /// The daemon did not run for this long: no sample was overdue in that time.
    pub fn skip(&mut self, gap: Duration) {
        self.last_sample_at = self.last_sample_at + gap;
    }

    /// Whether the bake waits while no counter can be read; a reload may change it.
    pub fn set_extend_bake(&mut self, extend_bake: bool) {
        self.policy.extend_bake = extend_bake;
    }

    /// Takes a scrape of the warm release. A missing sample is no evidence.
    pub fn add_warm_scrape(&mut self, now: Moment, scrape: &ScrapeResult) -> Option<Delta> {
        match self.warm.add_scrape(now, scrape) {
            Ok(CounterChange::Increased(delta) | CounterChange::Restarted(delta)) => Some(delta),
            Ok(CounterChange::First | CounterChange::Reset) | Err(_) => None,
        }
    }

    /// Why nothing is known from the counters, and since when, if that keeps the bake from its end.
    pub fn no_data_reason(&self, now: Moment) -> Option<(String, Moment)> {
        let no_data = self.policy.extend_bake && self.is_overdue(now);
        let limit = (self.policy.interval * MISSED_SCRAPES_MAX).as_secs_f64();
        let words = |gap| format!("{}: no usable sample for {limit} s", gap);
        self.gap.as_ref().filter(|_| no_data).map(|gap| (words(gap), self.last_sample_at))
    }

    /// Remarks for a reason text, each after a semicolon.
    pub fn remarks(&self, now: Moment) -> String {
        let Delta { total, bad, .. } = self.total;
        let mut words = format!("; own counters: {total} requests, {bad} bad");
        if self.bad_missing {
            words += ", a bad counter does not exist yet: 0";
        }
        if let Some(gap) = self.gap.as_ref().filter(|_| self.is_overdue(now)) {
            let since = now.since(self.last_sample_at).as_secs();
            words += &format!("; {gap}, for {since} s");
        }
        let times = |n: u32| if n == 1 { "once".to_owned() } else { format!("{n} times") };
        if 0 < self.resets {
            words += &format!("; its counters were reset {}", times(self.resets));
        }
        if 0 < self.restarts {
            words += &format!("; its counters show restarts: {}", self.restarts);
        }
        words
    }

    fn is_overdue(&self, now: Moment) -> bool {
        self.policy.interval * MISSED_SCRAPES_MAX < now.since(self.last_sample_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Indicator, Judge, Objective, SloSettings};
    use crate::model::{
        Counts, Finding, History, Observation, ProbeResult, ReleaseNumber, Severity, Signal,
    };

    const EVERY: u64 = 5_000;

    fn judge(hold: bool) -> Judge {
        let objective = |about, weight| Objective { indicator: about, error_budget: 0.005, weight };
        let limits = SloSettings {
            objectives: vec![
                objective(Indicator::Availability, 0.9),
                objective(Indicator::Scraped, 0.1),
            ],
            scrape: Some(ScrapePolicy {
                interval: Duration::from_millis(EVERY),
                extend_bake: hold,
            }),
            ..SloSettings::default()
        };
        Judge::new(ReleaseNumber(2), Some(ReleaseNumber(1)), limits, History::default(), Moment(0))
    }

    fn hear(judge: &mut Judge, at: u64, release: u32, scrape: ScrapeResult) -> Finding {
        let signal =
            Signal { release: ReleaseNumber(release), observation: Observation::Scraped(scrape) };
        judge.observe(Moment(at), &signal);
        judge.verdict(Moment(at)).finding
    }

    fn sample(total: f64, bad: f64) -> ScrapeResult {
        ScrapeResult::Sample { total, bad, started: None, bad_missing: false }
    }

    #[test]
    fn its_own_counters_alone_can_prove_a_breach() {
        let mut judge = judge(true);
        let mut found = None;
        for step in 0..24_u32 {
            let at = u64::from(step) * EVERY;
            hear(&mut judge, at, 1, sample(f64::from(step) * 50.0, 0.0));
            let bad = f64::from(step.saturating_sub(6)) * 25.0;
            let finding = hear(&mut judge, at + 10, 2, sample(f64::from(step) * 50.0, bad));
            if matches!(finding, Finding::Breach(_)) {
                found = Some((step, judge.verdict(Moment(at + 10))));
                break;
            }
            assert_eq!(finding, Finding::Undecided, "{step}");
        }
        let (step, verdict) = found.unwrap();
        assert!((8..=12).contains(&step), "{step}");
        assert!(verdict.because.starts_with("own counters: "), "{}", verdict.because);
        assert!(verdict.because.contains("of 1"), "{}", verdict.because);
        assert!(0.3 < verdict.failure_rate_lower, "{}", verdict.failure_rate_lower);
    }

    #[test]
    fn what_fails_on_both_is_not_the_deploys_fault() {
        let mut judge = judge(true);
        for step in 0..40_u32 {
            let at = u64::from(step) * EVERY;
            let bad = f64::from(step) * 25.0;
            let seen = Observation::Block(250, Counts { ok: 1, ..Counts::default() });
            judge.observe(Moment(at), &Signal { release: ReleaseNumber(1), observation: seen });
            hear(&mut judge, at, 1, sample(f64::from(step) * 50.0, bad));
            let finding = hear(&mut judge, at + 10, 2, sample(f64::from(step) * 50.0, bad));
            assert!(!matches!(finding, Finding::Breach(_)), "{step}");
        }
        assert_eq!(judge.verdict(Moment(200_000)).finding, Finding::SharedOutage);
    }

    #[test]
    fn silence_is_told_after_three_intervals_and_ends_with_a_sample() {
        for (hold, wanted) in [(true, Finding::NoData), (false, Finding::Undecided)] {
            let mut judge = judge(hold);
            hear(&mut judge, 0, 2, sample(10.0, 0.0));
            for step in 1..=3 {
                let found = hear(&mut judge, step * EVERY, 2, ScrapeResult::Missing);
                assert_eq!(found, Finding::Undecided, "{step}");
            }
            assert_eq!(hear(&mut judge, 4 * EVERY, 2, ScrapeResult::NotANumber), wanted);
            let because = judge.verdict(Moment(4 * EVERY)).because;
            assert!(because.contains("NaN"), "{because}");
            assert_eq!(hear(&mut judge, 5 * EVERY, 2, sample(20.0, 0.0)), Finding::Undecided);
            assert_eq!(judge.counts_for(Indicator::Scraped), (10, 0), "the gap is covered");
        }
    }

    #[test]
    fn down_by_its_probes_it_is_down_though_its_counters_are_silent() {
        let mut judge = judge(true);
        for at in [20_000, 21_000, 22_000] {
            hear(&mut judge, at, 2, ScrapeResult::Down("connection refused".to_owned()));
            let seen = Observation::Probe(ProbeResult::Refused);
            judge.observe(Moment(at), &Signal { release: ReleaseNumber(2), observation: seen });
        }
        assert_eq!(judge.verdict(Moment(22_000)).finding, Finding::Breach(Severity::Down));
    }

    #[test]
    fn counters_that_fall_are_no_crash_loop() {
        let mut judge = judge(true);
        for step in 0..40_u32 {
            let at = u64::from(step) * EVERY;
            let started = Some(f64::from(step / 4) * 20.0 - 1.0);
            let total = f64::from(step % 4) * 50.0;
            let fallen = ScrapeResult::Sample { total, bad: 0.0, started, bad_missing: false };
            let finding = hear(&mut judge, at, 2, fallen);
            assert!(!matches!(finding, Finding::Breach(_)), "{step}: {finding:?}");
        }
    }

    #[test]
    fn one_worker_of_several_that_had_errors_once_is_no_breach() {
        let mut judge = judge(true);
        for step in 0..60_u32 {
            let (at, asked) = (u64::from(step) * EVERY, step * 7 % 4);
            let bad = if asked == 1 { 40.0 } else { 0.0 };
            let started = Some(1e9 + f64::from(asked) * 0.3);
            let total = f64::from(100 + step + asked);
            let scrape = ScrapeResult::Sample { total, bad, started, bad_missing: false };
            let finding = hear(&mut judge, at, 2, scrape);
            assert!(!matches!(finding, Finding::Breach(_)), "{step}: {finding:?}");
        }
        let verdict = judge.verdict(Moment(60 * EVERY));
        assert_eq!(verdict.finding, Finding::NoData);
        assert!(verdict.because.contains("multiprocess mode"), "{}", verdict.because);
    }

    #[test]
    fn a_bad_counter_that_appears_with_the_first_error_counts_from_zero() {
        let mut judge = judge(true);
        let missing =
            |total| ScrapeResult::Sample { total, bad: 0.0, started: None, bad_missing: true };
        hear(&mut judge, 0, 2, missing(100.0));
        hear(&mut judge, EVERY, 2, missing(200.0));
        let because = judge.verdict(Moment(EVERY)).because;
        assert!(
            because.contains("own counters: 100 requests, 0 bad, a bad counter does not exist"),
            "{because}"
        );
        hear(&mut judge, 2 * EVERY, 2, sample(300.0, 25.0));
        let because = judge.verdict(Moment(2 * EVERY)).because;
        assert!(because.ends_with("own counters: 200 requests, 25 bad"), "{because}");
    }

    #[test]
    fn an_exit_and_falling_counters_are_one_crash() {
        let mut judged = judge(true);
        hear(&mut judged, 0, 2, sample(100.0, 0.0));
        let seen = Observation::Exited("exit status 1".to_owned());
        judged.observe(Moment(2_000), &Signal { release: ReleaseNumber(2), observation: seen });
        assert_eq!(hear(&mut judged, EVERY, 2, sample(10.0, 0.0)), Finding::Undecided);
        assert_eq!(hear(&mut judged, 2 * EVERY, 2, sample(12.0, 0.0)), Finding::Undecided);
        let because = judged.verdict(Moment(2 * EVERY)).because;
        assert!(because.ends_with("its counters were reset once"), "{because}");
    }

    #[test]
    fn without_a_scrape_in_the_configuration_counters_say_nothing() {
        let mut judge = judge(true);
        judge.scraped = None;
        for step in 0..20_u32 {
            let total = f64::from(step) * 10.0;
            let found = hear(&mut judge, u64::from(step) * EVERY, 2, sample(total, total));
            assert_eq!(found, Finding::Undecided);
        }
    }
}
