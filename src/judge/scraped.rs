//! The server's own counters as an objective, and what it means when they say nothing.
//!
//! They count requests that the proxy counts, too, so they have a process of their own: no request
//! speaks twice in one. Silence is neither good nor bad. It is told, each cause in its own words,
//! and while it lasts the bake waits, if the operator wants that.

use std::time::Duration;

use crate::model::{Moment, Number, Scrape};

use super::contrast::Pair;
use super::counter::{Counter, Delta, Gap, Step};
use super::{About, Judge};

/// Scrapes in a row without a usable sample that are no accident any more.
const MISSED_MAX: u32 = 3;
/// A death that the runtime told of may precede the last sample of the old process by so much: that
/// sample was on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// How the counters of the releases are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scraping {
    /// How often.
    pub every: Duration,
    /// Whether the bake waits while they say nothing.
    pub hold: bool,
}

/// What the counters of both releases said.
#[derive(Debug, Clone)]
pub struct Scraped {
    scraping: Scraping,
    trial: Counter,
    warm: Counter,
    /// The last usable sample of the release on trial, or the opening of the trial.
    seen: Moment,
    gap: Option<Gap>,
    total: Delta,
    resets: u32,
    restarts: u32,
    /// When the runtime last told of a death.
    exited: Option<Moment>,
}

impl Scraped {
    /// Nothing read yet.
    pub fn new(scraping: Scraping, now: Moment) -> Self {
        Self {
            scraping,
            trial: Counter::default(),
            warm: Counter::default(),
            seen: now,
            gap: None,
            total: Delta::default(),
            resets: 0,
            restarts: 0,
            exited: None,
        }
    }

    /// Requests on trial that were counted so far, and the bad ones among them.
    pub fn counted(&self) -> (u64, u64) {
        (self.total.total, self.total.bad)
    }

    /// The runtime told of a death of the release on trial.
    pub fn exited(&mut self, now: Moment) {
        self.exited = Some(now);
    }

    /// Takes a scrape of the release on trial: what ended, and how it died, if it did and nobody
    /// told of that yet.
    pub fn trial(&mut self, now: Moment, scrape: &Scrape) -> (Option<Delta>, Option<String>) {
        let before = self.seen;
        let (delta, restarted) = match self.trial.take(now, scrape) {
            Ok(Step::First) => (None, false),
            Ok(Step::Grew(delta)) => (Some(delta), false),
            Ok(Step::Restarted(delta)) => (Some(delta), true),
            Ok(Step::Reset) => {
                self.resets = self.resets.saturating_add(1);
                (None, false)
            }
            Err(gap) => {
                self.gap = Some(gap);
                return (None, None);
            }
        };
        (self.seen, self.gap) = (now, None);
        if let Some(delta) = delta {
            self.total.total = self.total.total.saturating_add(delta.total);
            self.total.bad = self.total.bad.saturating_add(delta.bad);
        }
        if !restarted {
            return (delta, None);
        }
        self.restarts = self.restarts.saturating_add(1);
        let told = self.exited.is_some_and(|at| before <= at + ON_ITS_WAY);
        let how = "its counters tell that its process was started again".to_owned();
        (delta, (!told).then_some(how))
    }

    /// Takes a scrape of the warm release. What it does not say is no evidence against anybody.
    pub fn warm(&mut self, now: Moment, scrape: &Scrape) -> Option<Delta> {
        match self.warm.take(now, scrape) {
            Ok(Step::Grew(delta) | Step::Restarted(delta)) => Some(delta),
            Ok(Step::First | Step::Reset) | Err(_) => None,
        }
    }

    /// Why nothing is known from the counters, and since when, if that keeps the bake from its end.
    pub fn blind(&self, now: Moment) -> Option<(String, Moment)> {
        let blind = self.scraping.hold && self.missed(now);
        let limit = (self.scraping.every * MISSED_MAX).as_secs_f64();
        let words = |gap| format!("{}: no usable sample for {limit} s", gap);
        self.gap.as_ref().filter(|_| blind).map(|gap| (words(gap), self.seen))
    }

    /// What else there is to say about them: each with a semicolon before it.
    pub fn remarks(&self, now: Moment) -> String {
        let mut words = String::new();
        if let Some(gap) = self.gap.as_ref().filter(|_| self.missed(now)) {
            let since = now.since(self.seen).as_secs();
            words += &format!("; {gap}, for {since} s");
        }
        let times = |n: u32| if n == 1 { "once".to_owned() } else { format!("{n} times") };
        if 0 < self.resets {
            words += &format!("; its counters were reset {}", times(self.resets));
        }
        if 0 < self.restarts {
            words +=
                &format!("; its counters tell that it was started again {}", times(self.restarts));
        }
        words
    }

    fn missed(&self, now: Moment) -> bool {
        self.scraping.every * MISSED_MAX < now.since(self.seen)
    }
}

impl Judge {
    /// A scrape of one of the releases.
    pub(super) fn scrape(&mut self, now: Moment, of: Number, scrape: &Scrape) {
        let Some(scraped) = &mut self.scraped else { return };
        if of == self.release {
            let (delta, died) = scraped.trial(now, scrape);
            if let Some(how) = died {
                self.liveness.exited(now, &how);
            }
            if let Some(delta) = delta {
                self.weigh_scraped(now, delta);
            }
        } else if self.attribution.is_warm(of)
            && let Some(Delta { total, bad, .. }) = scraped.warm(now, scrape)
        {
            let pair = Pair { trial: (0, 0), warm: (total, bad) };
            self.attribution.scraped(now, 0, pair);
        }
    }

    fn weigh_scraped(&mut self, now: Moment, Delta { span, total, bad }: Delta) {
        let pair = Pair { trial: (total, bad), warm: (0, 0) };
        self.attribution.scraped(now, span, pair);
        let start = (now - Duration::from_millis(span.into())).max(self.opened);
        for track in self.tracks.iter_mut().filter(|it| it.about == About::Scraped) {
            track.process.update(start, span, total, bad);
            track.tripped = track.process.tripped().then(|| track.tripped.unwrap_or(now));
        }
    }

    /// The requests of the trial that an objective speaks of, and the bad ones among them.
    pub(super) fn counted(&self, about: About) -> (u64, u64) {
        match (about, &self.scraped) {
            (About::Scraped, Some(scraped)) => scraped.counted(),
            _ => about.read(&self.total),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Counts, Finding, History, Reply, Seen, Severity, Signal};

    use super::super::{Baseline, Limits, Objective};
    use super::*;

    const EVERY: u64 = 5_000;

    fn judge(hold: bool) -> Judge {
        let objective = |about, weight| Objective { about, budget: 0.005, weight };
        let limits = Limits {
            objectives: vec![objective(About::Availability, 0.9), objective(About::Scraped, 0.1)],
            max_false_rollback: 1e-3,
            min_effect: 2.0,
            burst: Duration::from_secs(5),
            bake: Duration::from_mins(30),
            probes: 3,
            baseline: Baseline::Probes,
            shadow: true,
            scrape: Some(Scraping { every: Duration::from_millis(EVERY), hold }),
        };
        Judge::new(Number(2), Some(Number(1)), limits, History::default(), Moment(0))
    }

    fn hear(judge: &mut Judge, at: u64, release: u32, scrape: Scrape) -> Finding {
        let signal = Signal { release: Number(release), seen: Seen::Scraped(scrape) };
        judge.hear(Moment(at), &signal);
        judge.verdict(Moment(at)).finding
    }

    fn sample(total: f64, bad: f64) -> Scrape {
        Scrape::Sample { total, bad, started: None }
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
        assert!(0.3 < verdict.failing, "{}", verdict.failing);
    }

    #[test]
    fn what_fails_on_both_is_not_the_deploys_fault() {
        let mut judge = judge(true);
        for step in 0..40_u32 {
            let at = u64::from(step) * EVERY;
            let bad = f64::from(step) * 25.0;
            let seen = Seen::Block(250, Counts { ok: 1, ..Counts::default() });
            judge.hear(Moment(at), &Signal { release: Number(1), seen });
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
                let found = hear(&mut judge, step * EVERY, 2, Scrape::Missing);
                assert_eq!(found, Finding::Undecided, "{step}");
            }
            assert_eq!(hear(&mut judge, 4 * EVERY, 2, Scrape::NotANumber), wanted);
            let because = judge.verdict(Moment(4 * EVERY)).because;
            assert!(because.contains("NaN"), "{because}");
            assert_eq!(hear(&mut judge, 5 * EVERY, 2, sample(20.0, 0.0)), Finding::Undecided);
            assert_eq!(judge.counted(About::Scraped), (10, 0), "the gap is covered");
        }
    }

    #[test]
    fn down_by_its_probes_it_is_down_though_its_counters_are_silent() {
        let mut judge = judge(true);
        for at in [20_000, 20_100, 20_200] {
            hear(&mut judge, at, 2, Scrape::Down("connection refused".to_owned()));
            let seen = Seen::Probe(Reply::Refused);
            judge.hear(Moment(at), &Signal { release: Number(2), seen });
        }
        assert_eq!(judge.verdict(Moment(20_200)).finding, Finding::Breach(Severity::Down));
    }

    #[test]
    fn two_restarts_are_a_crash_loop_and_a_death_counts_once() {
        let steps = [100.0, 10.0, 5.0];
        let mut alone = judge(true);
        let found = [0, 1, 2].map(|step: usize| {
            let total = steps.get(step).copied().unwrap_or_default();
            hear(&mut alone, step as u64 * EVERY, 2, sample(total, 0.0))
        });
        let down = Finding::Breach(Severity::Down);
        assert_eq!(found, [Finding::Undecided, Finding::Undecided, down]);
        let mut told = judge(true);
        hear(&mut told, 0, 2, sample(100.0, 0.0));
        let seen = Seen::Exited("exit status 1".to_owned());
        told.hear(Moment(2_000), &Signal { release: Number(2), seen });
        assert_eq!(hear(&mut told, EVERY, 2, sample(10.0, 0.0)), Finding::Undecided);
        assert_eq!(hear(&mut told, 2 * EVERY, 2, sample(12.0, 0.0)), Finding::Undecided);
        let because = told.verdict(Moment(2 * EVERY)).because;
        assert!(because.ends_with("it was started again once"), "{because}");
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
