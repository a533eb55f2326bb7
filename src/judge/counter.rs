//! Cumulative counters -> blocks of requests: for a scrape of a release, and for a range that
//! Prometheus kept.
//!
//! Between two samples of one process lies one block, however long: a missed scrape is a gap that
//! the next sample covers. What a counter did not see, it does not guess: of a process that began
//! between two samples only what the new one counted is known, a lower bound; of a counter that was
//! reset while its process lived, nothing. So the sum of all blocks is never more than happened.

use std::fmt;

use crate::model::{Moment, ScrapeResult};

/// Start times that differ by less belong to one process: some servers work theirs out from the
/// age of the host, which a clock that is corrected moves.
const SAME_START_MS: f64 = 1_000.0;
/// So far may the clocks of a server and of this daemon be apart.
const CLOCK_SKEW_MAX_MS: f64 = 2_000.0;
/// Another process that answers so often in a row is the one to count.
const OTHER_PROCESS_ACCEPTED_AFTER: u32 = 3;
/// Up to here a float holds every whole number exactly.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// The counters of one release, sample by sample.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    last: Option<Sample>,
    /// Bad requests that were counted before the requests they belong to.
    bad_carried_over: u64,
    /// A process that answered instead of the one that is counted: since when it runs, how often.
    other_process: Option<(f64, u32)>,
}

/// Requests in a stretch of time, and the bad ones among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delta {
    /// How long, in milliseconds.
    pub span_ms: u32,
    /// Requests that ended.
    pub total: u64,
    /// The bad ones; never more than `total`.
    pub bad: u64,
}

/// What one sample came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterChange {
    /// There was nothing to compare it with.
    First,
    /// What ended since the sample before.
    Increased(Delta),
    /// The process was started again; what the new one is known to have done.
    Restarted(Delta),
    /// The counters went back while the process lived, or another process was chosen; they are
    /// counted from here.
    Reset,
}

/// Why a scrape is no usable sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnusableSample {
    /// No usable answer; the error.
    Down(String),
    /// A counter is no number.
    NotANumber,
    /// A counter is negative, or too large to count with.
    OutOfRange,
    /// The counters are not there.
    Missing,
    /// The age of the sample, in seconds.
    Stale(u64),
    /// Another process than the one that is counted answers.
    OtherProcess,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Moment,
    total: u64,
    bad: u64,
    started: Option<f64>,
}

/// What two start times show.
enum ProcessIdentity {
    Same,
    Unknown,
    Restarted,
    Different(f64),
}

impl Counter {
    /// Takes what a scrape gave at `now`.
    ///
    /// # Errors
    /// Why it is no usable sample. The next one covers the gap.
    pub fn add_scrape(
        &mut self,
        now: Moment,
        scrape: &ScrapeResult,
    ) -> Result<CounterChange, UnusableSample> {
        let (total, bad, started) = match scrape {
            ScrapeResult::Sample { total, bad, started } => {
                (to_count(*total)?, to_count(*bad)?, *started)
            }
            ScrapeResult::Down(what) => return Err(UnusableSample::Down(what.clone())),
            ScrapeResult::NotANumber => return Err(UnusableSample::NotANumber),
            ScrapeResult::Missing => return Err(UnusableSample::Missing),
            ScrapeResult::Stale(seconds) => return Err(UnusableSample::Stale(*seconds)),
        };
        let started = started.map(|it| 1_000.0 * it).filter(|it| it.is_finite());
        let mut sample = Sample { at: now, total, bad, started };
        let Some(last) = self.last else {
            self.last = Some(sample);
            return Ok(CounterChange::First);
        };
        let identity = compare_processes(&last, &sample);
        if let ProcessIdentity::Different(started) = identity
            && !self.is_persistent(started)
        {
            return Err(UnusableSample::OtherProcess);
        }
        self.other_process = None;
        sample.started =
            started.or(last.started.filter(|_| matches!(identity, ProcessIdentity::Unknown)));
        self.last = Some(sample);
        let decreased = sample.total < last.total || sample.bad < last.bad;
        let span = u32::try_from(now.since(last.at).as_millis()).unwrap_or(u32::MAX);
        Ok(match identity {
            ProcessIdentity::Same | ProcessIdentity::Unknown if !decreased => {
                let (total, bad) = (sample.total - last.total, sample.bad - last.bad);
                CounterChange::Increased(self.delta(span, total, bad))
            }
            ProcessIdentity::Restarted => {
                CounterChange::Restarted(self.delta_after_restart(span, sample))
            }
            // Both counters and no start time: most likely a process that was started again.
            ProcessIdentity::Unknown => {
                CounterChange::Restarted(self.delta_after_restart(span, sample))
            }
            ProcessIdentity::Same | ProcessIdentity::Different(_) => {
                self.bad_carried_over = 0;
                CounterChange::Reset
            }
        })
    }

    /// Whether a process that answers in place of another one did so often enough in a row.
    fn is_persistent(&mut self, started: f64) -> bool {
        let times = match self.other_process {
            Some((before, times)) if (before - started).abs() < SAME_START_MS => times + 1,
            _ => 1,
        };
        self.other_process = Some((started, times));
        OTHER_PROCESS_ACCEPTED_AFTER <= times
    }

    fn delta_after_restart(&mut self, span: u32, sample: Sample) -> Delta {
        self.bad_carried_over = 0;
        self.delta(span, sample.total, sample.bad)
    }

    /// A scrape between the two increments of one request sees more bad ones than there are: the
    /// rest belongs to the next block.
    fn delta(&mut self, span: u32, total: u64, bad: u64) -> Delta {
        let bad = bad.saturating_add(self.bad_carried_over);
        self.bad_carried_over = bad.saturating_sub(total);
        Delta { span_ms: span, total, bad: bad.min(total) }
    }
}

fn compare_processes(last: &Sample, now: &Sample) -> ProcessIdentity {
    let (Some(before), Some(started)) = (last.started, now.started) else {
        return ProcessIdentity::Unknown;
    };
    if (started - before).abs() < SAME_START_MS {
        return ProcessIdentity::Same;
    }
    // A process answers no scrape before its start, nor after its successor's start.
    let (from, to) = (last.at.0 as f64 - CLOCK_SKEW_MAX_MS, now.at.0 as f64 + CLOCK_SKEW_MAX_MS);
    if before < started && (from..=to).contains(&started) {
        ProcessIdentity::Restarted
    } else {
        ProcessIdentity::Different(started)
    }
}

fn to_count(count: f64) -> Result<u64, UnusableSample> {
    if count.is_nan() {
        return Err(UnusableSample::NotANumber);
    }
    let sane = (0.0..=EXACT_INTEGER_MAX).contains(&count);
    if sane { Ok(count.floor() as u64) } else { Err(UnusableSample::OutOfRange) }
}

impl fmt::Display for UnusableSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(what) => write!(f, "its scrape is down: {what}"),
            Self::NotANumber => f.write_str("its counters are NaN"),
            Self::OutOfRange => f.write_str("its counters are out of range"),
            Self::Missing => f.write_str("its counters are missing from what it exposes"),
            Self::Stale(seconds) => write!(f, "its counters are stale: {seconds} s old"),
            Self::OtherProcess => f.write_str(
                "another process answers the scrape: several share one address, and their counters do not add up",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(total: f64, bad: f64, started: Option<f64>) -> ScrapeResult {
        ScrapeResult::Sample { total, bad, started }
    }

    fn delta(span: u32, total: u64, bad: u64) -> Delta {
        Delta { span_ms: span, total, bad }
    }

    #[test]
    fn gaps_are_one_block_and_resets_start_from_nothing() {
        let mut counter = Counter::default();
        let mut take = |at, total, bad| counter.add_scrape(Moment(at), &sample(total, bad, None));
        let grew = |span, total, bad| Ok(CounterChange::Increased(delta(span, total, bad)));
        assert_eq!(take(0, 100.0, 5.0), Ok(CounterChange::First), "nothing to compare with");
        assert_eq!(take(5_000, 110.0, 6.0), grew(5_000, 10, 1));
        assert_eq!(take(10_000, f64::NAN, 6.0), Err(UnusableSample::NotANumber));
        assert_eq!(take(15_000, 130.0, f64::INFINITY), Err(UnusableSample::OutOfRange));
        assert_eq!(take(20_000, 140.0, 6.0), grew(15_000, 30, 0), "one block over the gap");
        assert_eq!(take(25_000, 3.0, 1.0), Ok(CounterChange::Restarted(delta(5_000, 3, 1))));
        assert_eq!(take(30_000, 4.0, 4.0), grew(5_000, 1, 1), "torn: more bad than there are");
        assert_eq!(take(35_000, 8.0, 4.0), grew(5_000, 4, 2), "the rest is not forgotten");
        assert_eq!(take(40_000, -1.0, 0.0), Err(UnusableSample::OutOfRange));
    }

    #[test]
    fn each_cause_has_its_own_words() {
        let mut counter = Counter::default();
        let mut words = |scrape| counter.add_scrape(Moment(0), &scrape).unwrap_err().to_string();
        let told = [
            words(ScrapeResult::Down("connection refused".to_owned())),
            words(ScrapeResult::NotANumber),
            words(sample(-1.0, 0.0, None)),
            words(ScrapeResult::Missing),
            words(ScrapeResult::Stale(400)),
        ];
        let different: std::collections::BTreeSet<_> = told.iter().collect();
        assert_eq!(different.len(), told.len(), "{told:?}");
    }

    #[test]
    fn a_start_time_tells_a_restart_from_a_reset() {
        let mut counter = Counter::default();
        let mut take =
            |at, total, started| counter.add_scrape(Moment(at), &sample(total, 0.0, Some(started)));
        assert_eq!(take(100_000, 50.0, 40.0), Ok(CounterChange::First));
        let grew = Ok(CounterChange::Increased(delta(5_000, 10, 0)));
        assert_eq!(take(105_000, 60.0, 40.2), grew, "within the precision of a start time");
        let restarted = Ok(CounterChange::Restarted(delta(5_000, 70, 0)));
        assert_eq!(take(110_000, 70.0, 107.0), restarted, "though its counter is higher");
        assert_eq!(take(115_000, 30.0, 107.0), Ok(CounterChange::Reset), "the process lived on");
        assert_eq!(take(120_000, 40.0, 107.0), Ok(CounterChange::Increased(delta(5_000, 10, 0))));
    }

    #[test]
    fn processes_that_answer_in_turns_are_no_restarts() {
        let mut counter = Counter::default();
        let mut take =
            |at, total, started| counter.add_scrape(Moment(at), &sample(total, 0.0, Some(started)));
        assert_eq!(take(100_000, 1_000.0, 40.0), Ok(CounterChange::First));
        assert_eq!(take(105_000, 20.0, 43.0), Err(UnusableSample::OtherProcess));
        assert_eq!(take(110_000, 900.0, 37.0), Err(UnusableSample::OtherProcess));
        assert_eq!(take(115_000, 1_009.0, 40.0), Ok(CounterChange::Increased(delta(15_000, 9, 0))));
        for at in [120_000, 125_000] {
            assert_eq!(take(at, 20.0, 43.0), Err(UnusableSample::OtherProcess));
        }
        assert_eq!(
            take(130_000, 22.0, 43.0),
            Ok(CounterChange::Reset),
            "from here on this one counts"
        );
        assert_eq!(take(135_000, 25.0, 43.0), Ok(CounterChange::Increased(delta(5_000, 3, 0))));
    }

    /// What a server goes through between two scrapes.
    #[derive(Debug, Clone)]
    enum ServerAction {
        Serve(u32, u32),
        /// It is started again and serves a little.
        Restart(u32, u32),
        ResetCounters,
        FailScrape(u8),
    }

    fn any_server_action() -> impl Strategy<Value = ServerAction> {
        prop_oneof![
            6 => (0_u32..1_000, 0_u32..1_000).prop_map(|(n, bad)| ServerAction::Serve(n, bad.min(n))),
            1 => (0_u32..1_000, 0_u32..1_000).prop_map(|(n, bad)| ServerAction::Restart(n, bad.min(n))),
            1 => Just(ServerAction::ResetCounters),
            1 => (0_u8..4).prop_map(ServerAction::FailScrape),
        ]
    }

    fn any_scrape() -> impl Strategy<Value = ScrapeResult> {
        let number = prop_oneof![
            any::<f64>(),
            0.0_f64..1e4,
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(1e300),
            Just(EXACT_INTEGER_MAX),
            Just(-0.0),
        ];
        let started = prop::option::of(prop_oneof![any::<f64>(), 0.0_f64..100.0]);
        prop_oneof![
            8 => (number.clone(), number, started)
                .prop_map(|(total, bad, started)| sample(total, bad, started)),
            1 => Just(ScrapeResult::Missing),
            1 => Just(ScrapeResult::Stale(u64::MAX)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_more_is_counted_than_happened(acts in prop::collection::vec(any_server_action(), 1..60), tells in any::<bool>()) {
            let mut counter = Counter::default();
            let (mut total, mut bad, mut started) = (500_u64, 100_u64, 1.0);
            let (mut happened, mut counted) = ((0_u64, 0_u64), (0_u64, 0_u64));
            let mut at = 1_000_000;
            counter.add_scrape(Moment(at), &sample(500.0, 100.0, tells.then_some(started))).unwrap();
            for act in acts {
                at += 5_000;
                let served = match act {
                    ServerAction::Serve(n, k) => Some((n, k)),
                    ServerAction::Restart(n, k) => {
                        (total, bad, started) = (0, 0, at as f64 / 1_000.0 - 2.5);
                        Some((n, k))
                    }
                    // Only a start time tells this from a restart; then it is a lower bound, too.
                    ServerAction::ResetCounters => {
                        (total, bad) = (0, 0);
                        Some((0, 0))
                    }
                    ServerAction::FailScrape(_) => None,
                };
                let (n, k) = served.unwrap_or((7, 3));
                (total, bad) = (total + u64::from(n), bad + u64::from(k));
                happened = (happened.0 + u64::from(n), happened.1 + u64::from(k));
                let scrape = match act {
                    ServerAction::FailScrape(0) => ScrapeResult::Down("gone".to_owned()),
                    ServerAction::FailScrape(1) => ScrapeResult::NotANumber,
                    ServerAction::FailScrape(2) => ScrapeResult::Missing,
                    ServerAction::FailScrape(_) => ScrapeResult::Stale(301),
                    _ => sample(total as f64, bad as f64, tells.then_some(started)),
                };
                if let Ok(CounterChange::Increased(delta) | CounterChange::Restarted(delta)) = counter.add_scrape(Moment(at), &scrape) {
                    prop_assert!(delta.bad <= delta.total);
                    counted = (counted.0 + delta.total, counted.1 + delta.bad);
                }
                prop_assert!(counted.0 <= happened.0 && counted.1 <= happened.1, "{counted:?} {happened:?}");
            }
        }

        #[test]
        fn garbage_makes_finite_sane_blocks(scrapes in prop::collection::vec((0_u64..u64::MAX, any_scrape()), 1..80)) {
            let mut counter = Counter::default();
            for (at, scrape) in scrapes {
                if let Ok(CounterChange::Increased(delta) | CounterChange::Restarted(delta)) = counter.add_scrape(Moment(at), &scrape) {
                    prop_assert!(delta.bad <= delta.total && delta.total <= EXACT_INTEGER_MAX as u64);
                }
            }
        }
    }
}
