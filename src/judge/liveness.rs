//! Whether a release answers at all: probes in a row, and a process that keeps dying.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Counts, Moment, ProbeResult, Rule, StartCause};

/// Two deaths within this time are a crash loop; one may be an accident.
const CRASH_WINDOW: Duration = Duration::from_secs(60);
const CRASH_LOOP_EXITS: usize = 2;
/// A release that accepts requests hangs when this many are overdue since its last
/// answer, and the answer is this old.
const HANG_REQUESTS: u64 = 3;
const HANG_AFTER: Duration = Duration::from_secs(1);

/// Why a release counts as down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownReason {
    /// The rule.
    pub rule: Rule,
    /// What was seen, with its numbers.
    pub text: String,
    /// Since when.
    pub since: Moment,
}

/// Probes, exits and overdue requests of one release.
#[derive(Debug, Clone)]
pub struct Liveness {
    failed_probes_max: u32,
    /// Failed probes count once in this time; quick ones between confirm life alone.
    probe_interval: Duration,
    failed_probes: u32,
    first_failure_at: Moment,
    last_failure_at: Moment,
    /// While it starts: why, and until when.
    starting: Option<(StartCause, Moment)>,
    last_probe: Option<ProbeResult>,
    exits: VecDeque<(Moment, String)>,
    /// The last answer to a request, and the requests overdue since.
    last_response_at: Moment,
    overdue: u64,
}

impl Liveness {
    /// `failed_probes_max` failed probes in a row, one in each `probe_interval`, mean down.
    pub fn new(failed_probes_max: u32, probe_interval: Duration, now: Moment) -> Self {
        let (last_probe, exits) = (None, VecDeque::new());
        Self {
            failed_probes_max,
            probe_interval,
            failed_probes: 0,
            first_failure_at: Moment(0),
            last_failure_at: Moment(0),
            starting: None,
            last_probe,
            exits,
            last_response_at: now,
            overdue: 0,
        }
    }

    /// Requests ended, or became overdue.
    pub fn add_block(&mut self, now: Moment, counts: &Counts) {
        let Counts { ok, tool_fault, client_fault, neutral, slow, .. } = *counts;
        if 0 < ok.saturating_add(tool_fault).saturating_add(client_fault).saturating_add(neutral) {
            (self.last_response_at, self.overdue) = (now, 0);
        } else {
            self.overdue = self.overdue.saturating_add(slow);
        }
    }

    /// Why the release counts as hanging, and since when: it takes requests and answers none.
    /// Overdue requests alone are slow tools; a second witness is needed, the latency objective
    /// (`slow`) or a probe.
    pub fn hang_reason(&self, now: Moment, slow: bool) -> Option<DownReason> {
        let since = now.since(self.last_response_at);
        let hanging = HANG_REQUESTS <= self.overdue && HANG_AFTER <= since;
        (hanging && (slow || 0 < self.failed_probes)).then(|| {
            let (overdue, since) = (self.overdue, since.as_secs_f64());
            let text = format!(
                "it accepts requests but answers none: {overdue} overdue, no answer for {since:.1} s"
            );
            DownReason { rule: Rule::Hang, text, since: self.last_response_at }
        })
    }

    /// It starts, and may take so long to answer: until then it is not down.
    pub fn start(&mut self, now: Moment, cause: StartCause, allowed: Duration) {
        self.starting = Some((cause, now + allowed));
        self.failed_probes = 0;
    }

    /// Whether it starts, so that no answer is no failure.
    pub fn is_starting(&self, now: Moment) -> bool {
        self.starting.is_some_and(|(_, until)| now < until)
    }

    /// Whether it has not answered since it started, and may still turn out to be down.
    pub fn awaits_answer(&self, now: Moment) -> bool {
        // Each failed probe may take as long as the time between two of them.
        let found_down_after = self.probe_interval * (self.failed_probes_max + 1) * 2;
        self.starting.is_some_and(|(_, until)| now < until + found_down_after)
    }

    /// Whether it starts for a reason outside of it, so that requests that fail are not its own.
    pub fn is_excused(&self, now: Moment) -> bool {
        self.is_starting(now)
            && self.starting.is_some_and(|(cause, _)| cause == StartCause::External)
    }

    /// The daemon did not run for this long: nothing was late in that time.
    pub fn skip(&mut self, gap: Duration) {
        self.last_response_at = self.last_response_at + gap;
        self.starting = self.starting.map(|(cause, until)| (cause, until + gap));
    }

    /// Takes the result of a probe.
    pub fn add_probe(&mut self, now: Moment, reply: &ProbeResult) {
        if reply.is_ok() {
            (self.failed_probes, self.starting) = (0, None);
        } else if !self.is_starting(now) && self.is_due(now) {
            self.first_failure_at =
                if self.failed_probes == 0 { now } else { self.first_failure_at };
            self.last_failure_at = now;
            self.failed_probes = self.failed_probes.saturating_add(1);
        }
        self.last_probe = Some(reply.clone());
    }

    /// Whether a failed probe counts: the first, and then one in each interval. A probe that is a
    /// little early is one of the next interval.
    fn is_due(&self, now: Moment) -> bool {
        self.failed_probes == 0 || self.probe_interval * 9 / 10 <= now.since(self.last_failure_at)
    }

    /// The process exited.
    pub fn add_exit(&mut self, now: Moment, how: &str) {
        self.exits.push_back((now, how.to_owned()));
        if self.exits.len() > CRASH_LOOP_EXITS {
            self.exits.pop_front();
        }
    }

    /// Drops the evidence; the next probe starts from zero.
    pub fn reset(&mut self) {
        let starting = self.starting;
        *self = Self::new(self.failed_probes_max, self.probe_interval, self.last_response_at);
        self.starting = starting;
    }

    /// Why the release counts as down, and since when.
    pub fn down_reason(&self, now: Moment) -> Option<DownReason> {
        let recent: Vec<_> =
            self.exits.iter().filter(|(at, _)| now.since(*at) <= CRASH_WINDOW).collect();
        if let [(first, _), .., (_, how)] = recent.as_slice() {
            let times = recent.len();
            let window = CRASH_WINDOW.as_secs();
            let text = format!("crash loop: {times} exits in {window} s, last: {how}");
            return Some(DownReason { rule: Rule::CrashLoop, text, since: *first });
        }
        if self.failed_probes >= self.failed_probes_max {
            let why = self.last_probe.as_ref().map(ToString::to_string).unwrap_or_default();
            let (failed, limit) = (self.failed_probes, self.failed_probes_max);
            let text = format!("{failed} probes failed in a row (limit {limit}): {why}");
            let since = self.first_failure_at;
            return Some(DownReason { rule: Rule::FailedProbes, text, since });
        }
        None
    }

    /// Whether the last probe failed, or the process died lately.
    pub fn has_recent_failure(&self, now: Moment) -> bool {
        let died = self.exits.back().is_some_and(|(at, _)| now.since(*at) <= CRASH_WINDOW);
        self.failed_probes > 0 || died
    }
}
