//! Whether a release answers at all: probes in a row, and a process that keeps dying.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::{Counts, Moment, Reply};

/// Two deaths within this time are a crash loop; one may be an accident.
const CRASH_WINDOW: Duration = Duration::from_secs(60);
const CRASHES: usize = 2;
/// A release that takes requests is silent when so many of them were overdue since its last
/// answer, and that was so long ago.
const SILENT_REQUESTS: u64 = 3;
const SILENT: Duration = Duration::from_secs(1);

/// What was heard about a release's life.
#[derive(Debug, Clone)]
pub struct Liveness {
    limit: u32,
    failed: u32,
    first: Moment,
    last: Option<Reply>,
    exits: VecDeque<(Moment, String)>,
    /// The last answer to a request, and the requests overdue since.
    answered: Moment,
    overdue: u64,
}

impl Liveness {
    /// `limit` failed probes in a row mean down.
    pub fn new(limit: u32, now: Moment) -> Self {
        let (first, last, exits) = (Moment(0), None, VecDeque::new());
        Self { limit, failed: 0, first, last, exits, answered: now, overdue: 0 }
    }

    /// Requests ended, or became overdue.
    pub fn counted(&mut self, now: Moment, counts: &Counts) {
        let Counts { ok, tool_fault, client_fault, neutral, slow, .. } = *counts;
        if 0 < ok.saturating_add(tool_fault).saturating_add(client_fault).saturating_add(neutral) {
            (self.answered, self.overdue) = (now, 0);
        } else {
            self.overdue = self.overdue.saturating_add(slow);
        }
    }

    /// Why the release counts as hanging, and since when: it takes requests and answers none.
    /// Overdue requests alone are slow tools; a second witness is needed, the latency objective
    /// (`slow`) or a probe.
    pub fn silent(&self, now: Moment, slow: bool) -> Option<(String, Moment)> {
        let since = now.since(self.answered);
        let silent = SILENT_REQUESTS <= self.overdue && SILENT <= since;
        (silent && (slow || 0 < self.failed)).then(|| {
            let (overdue, since) = (self.overdue, since.as_secs_f64());
            let because = format!(
                "it takes requests and answers none: {overdue} are overdue, no answer for {since:.1} s"
            );
            (because, self.answered)
        })
    }

    /// A probe came back.
    pub fn probed(&mut self, now: Moment, reply: &Reply) {
        if reply.is_ok() {
            self.failed = 0;
        } else {
            self.first = if self.failed == 0 { now } else { self.first };
            self.failed = self.failed.saturating_add(1);
        }
        self.last = Some(reply.clone());
    }

    /// The process ended by itself.
    pub fn exited(&mut self, now: Moment, how: &str) {
        self.exits.push_back((now, how.to_owned()));
        if self.exits.len() > CRASHES {
            self.exits.pop_front();
        }
    }

    /// Drops what was heard; the next probe begins anew.
    pub fn forget(&mut self) {
        *self = Self::new(self.limit, self.answered);
    }

    /// Why the release counts as down, and since when.
    pub fn down(&self, now: Moment) -> Option<(String, Moment)> {
        let recent: Vec<_> =
            self.exits.iter().filter(|(at, _)| now.since(*at) <= CRASH_WINDOW).collect();
        if let [(first, _), .., (_, how)] = recent.as_slice() {
            let times = recent.len();
            let window = CRASH_WINDOW.as_secs();
            return Some((
                format!("crash loop: died {times} times in {window} s, last: {how}"),
                *first,
            ));
        }
        if self.failed >= self.limit {
            let why = self.last.as_ref().map(ToString::to_string).unwrap_or_default();
            let (failed, limit) = (self.failed, self.limit);
            return Some((
                format!("{failed} probes failed in a row (limit {limit}): {why}"),
                self.first,
            ));
        }
        None
    }

    /// Whether the last probe failed, or the process died lately.
    pub fn shaken(&self, now: Moment) -> bool {
        let died = self.exits.back().is_some_and(|(at, _)| now.since(*at) <= CRASH_WINDOW);
        self.failed > 0 || died
    }
}
