//! Cumulative counters -> blocks of requests: for a scrape of a release, and for a range that
//! Prometheus kept.
//!
//! Between two samples of one process lies one block, however long: a missed scrape is a gap that
//! the next sample covers. What a counter did not see, it does not guess: of a process that began
//! between two samples only what the new one counted is known, a lower bound; of a counter that fell
//! without a new start time, nothing. So the sum of all blocks is never more than happened.
//!
//! A fall is never a death: many servers reset, lose or recompute a series. Several processes behind
//! one address give numbers that belong together only by chance. A start time that comes back, or
//! values that go back and forth, show them; then there is no data, and what was counted is void.

use std::fmt;

use crate::model::{Moment, ScrapeResult};

/// Start times that differ by less may belong to one process: some servers work theirs out from the
/// age of the host, which a clock that is corrected moves.
const SAME_START_MS: f64 = 1_000.0;
/// Start times that differ by less are equal.
const EQUAL_START_MS: f64 = 0.5;
/// So far may the clocks of a server and of this daemon be apart.
const CLOCK_SKEW_MAX_MS: f64 = 2_000.0;
/// Another process that answers so often in a row is the one to count.
const OTHER_PROCESS_ACCEPTED_AFTER: u32 = 3;
/// Two falls within this many samples are no resets: the values go back and forth.
const SAMPLES_BETWEEN_RESETS_MIN: u32 = 8;
/// After this many samples in a row that one process can have given, there is one process again.
const ONE_PROCESS_AFTER: u32 = 20;
/// Start times of processes that answered before.
const PREVIOUS_STARTS_MAX: usize = 16;
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
    /// The start times of the processes that answered before the last sample, oldest first.
    previous_starts: Vec<f64>,
    /// Samples since the last fall.
    samples_since_fall: Option<u32>,
    /// Several processes answer: samples since then that one alone can have given.
    several: Option<u32>,
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
    /// Several processes answer in turns. Whatever was counted before is void.
    SeveralProcesses,
    /// A selector names no counter of requests; what it names.
    WrongMetric(String),
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Moment,
    total: u64,
    bad: u64,
    started: Option<f64>,
}

/// What two start times show.
#[derive(Debug, Clone, Copy)]
enum ProcessIdentity {
    Same,
    /// The start times differ so little that a clock may have been corrected.
    Near,
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
            ScrapeResult::Sample { total, bad, started, .. } => {
                (to_count(*total)?, to_count(*bad)?, *started)
            }
            ScrapeResult::Down(what) => return Err(UnusableSample::Down(what.clone())),
            ScrapeResult::NotANumber => return Err(UnusableSample::NotANumber),
            ScrapeResult::Missing => return Err(UnusableSample::Missing),
            ScrapeResult::Stale(seconds) => return Err(UnusableSample::Stale(*seconds)),
            ScrapeResult::WrongMetric(what) => {
                return Err(UnusableSample::WrongMetric(what.clone()));
            }
        };
        let started = started.map(|it| 1_000.0 * it).filter(|it| it.is_finite());
        let mut sample = Sample { at: now, total, bad, started };
        let Some(last) = self.last else {
            self.last = Some(sample);
            return Ok(CounterChange::First);
        };
        let identity = compare_processes(&last, &sample);
        let fell = sample.total < last.total || sample.bad < last.bad;
        if self.come_from_several(identity, fell, &last, &sample) {
            self.last = Some(sample);
            return Err(UnusableSample::SeveralProcesses);
        }
        if let ProcessIdentity::Different(started) = identity {
            self.remember_start(started);
            if self.several.is_none() && !self.is_persistent(started) {
                return Err(UnusableSample::OtherProcess);
            }
        }
        self.other_process = None;
        if !matches!(identity, ProcessIdentity::Same) {
            last.started.into_iter().for_each(|started| self.remember_start(started));
        }
        sample.started =
            started.or(last.started.filter(|_| matches!(identity, ProcessIdentity::Unknown)));
        self.last = Some(sample);
        let span = u32::try_from(now.since(last.at).as_millis()).unwrap_or(u32::MAX);
        let was_several = self.several.take().is_some();
        Ok(match identity {
            ProcessIdentity::Same | ProcessIdentity::Near | ProcessIdentity::Unknown
                if !fell && !was_several =>
            {
                let (total, bad) = (sample.total - last.total, sample.bad - last.bad);
                CounterChange::Increased(self.delta(span, total, bad))
            }
            ProcessIdentity::Restarted if !was_several => {
                self.bad_carried_over = 0;
                CounterChange::Restarted(self.delta(span, sample.total, sample.bad))
            }
            _ => {
                self.bad_carried_over = 0;
                CounterChange::Reset
            }
        })
    }

    /// Whether this sample shows, or an earlier one showed, that several processes answer.
    fn come_from_several(
        &mut self,
        identity: ProcessIdentity,
        fell: bool,
        last: &Sample,
        sample: &Sample,
    ) -> bool {
        let since_fall = self.samples_since_fall.map(|samples| samples.saturating_add(1));
        let is_other =
            matches!(identity, ProcessIdentity::Restarted | ProcessIdentity::Different(_));
        let fell = fell && !is_other;
        self.samples_since_fall = if fell { Some(0) } else { since_fall };
        let fell_again = fell && since_fall.is_some_and(|it| it < SAMPLES_BETWEEN_RESETS_MIN);
        let came_back = sample.started.is_some_and(|started| self.was_there_before(started, last));
        // Another process was seen meanwhile, and this is the one from before it.
        let returned = matches!(identity, ProcessIdentity::Same) && self.other_process.is_some();
        let near_but_fell = matches!(identity, ProcessIdentity::Near) && fell;
        if fell_again || came_back || returned || near_but_fell {
            self.other_process = None;
            self.several = Some(0);
            return true;
        }
        let Some(consistent) = &mut self.several else { return false };
        let is_one = matches!(identity, ProcessIdentity::Same | ProcessIdentity::Unknown) && !fell;
        *consistent = if is_one { *consistent + 1 } else { 0 };
        *consistent < ONE_PROCESS_AFTER
    }

    /// Whether this start time is that of a process that answered before another one did.
    fn was_there_before(&self, started: f64, last: &Sample) -> bool {
        let is_near = |other: f64| (other - started).abs() < SAME_START_MS;
        !last.started.is_some_and(is_near)
            && !self.other_process.is_some_and(|(other, _)| is_near(other))
            && self.previous_starts.iter().any(|before| is_equal_start(*before, started))
    }

    fn remember_start(&mut self, started: f64) {
        if !self.previous_starts.iter().any(|before| is_equal_start(*before, started)) {
            self.previous_starts.push(started);
        }
        let over = self.previous_starts.len().saturating_sub(PREVIOUS_STARTS_MAX);
        self.previous_starts.drain(..over);
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
    if is_equal_start(before, started) {
        return ProcessIdentity::Same;
    }
    if (started - before).abs() < SAME_START_MS {
        return ProcessIdentity::Near;
    }
    // A process answers no scrape before its start, nor after its successor's start.
    let (from, to) = (last.at.0 as f64 - CLOCK_SKEW_MAX_MS, now.at.0 as f64 + CLOCK_SKEW_MAX_MS);
    if before < started && (from..=to).contains(&started) {
        ProcessIdentity::Restarted
    } else {
        ProcessIdentity::Different(started)
    }
}

fn is_equal_start(one: f64, other: f64) -> bool {
    (one - other).abs() < EQUAL_START_MS
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
            Self::OtherProcess => f.write_str("another process answers the scrape"),
            Self::SeveralProcesses => f.write_str(
                "several processes answer the scrape in turns; use the multiprocess mode of the metrics \
                 library, or scrape an endpoint that adds them up",
            ),
            Self::WrongMetric(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
#[path = "counter_tests.rs"]
mod tests;
