//! Counts what happens to one service, line by line of its timeline.

use std::time::Duration;

use crate::control::Counters;
use crate::model::{Moment, Strategy, TimelineEntry, TimelineEvent};

/// Kinds that alert rules look at: from nothing to one is not seen as an increase, from 0 to 1 is.
const ALERT_KINDS: [&str; 9] = [
    "abandoned",
    "accepted",
    "blocked",
    "deployed",
    "detected",
    "failed",
    "replaced",
    "recovered",
    "unrecovered",
];

/// The sums, and when the rollback that goes on reached its milestones.
#[derive(Debug)]
pub(crate) struct EventCounters {
    totals: Counters,
    detected: Option<Moment>,
    decided: Option<Moment>,
    switched: Option<Moment>,
}

impl EventCounters {
    /// Nothing happened yet.
    pub(crate) fn new() -> Self {
        let mut totals = Counters::default();
        totals.events.extend(ALERT_KINDS.map(|kind| (kind.to_owned(), 0)));
        Self { totals, detected: None, decided: None, switched: None }
    }

    /// A line is on disk, which took so long.
    pub(crate) fn record(&mut self, entry: &TimelineEntry, write_time: Duration) {
        self.totals.timeline_writes.record(write_time);
        *self.totals.events.entry(entry.event.kind().to_owned()).or_default() += 1;
        let now = entry.moment;
        match &entry.event {
            TimelineEvent::Deployed { .. } | TimelineEvent::Replaced { .. } => {
                (self.decided, self.switched) = (None, None)
            }
            TimelineEvent::Detected { verdict, .. } => {
                self.observe_step("detected", verdict.as_ref().map(|verdict| verdict.onset), now);
                self.detected = Some(now);
            }
            TimelineEvent::Decided { strategy, ordered, .. } => {
                match strategy {
                    Strategy::Drain => self.totals.drains += 1,
                    Strategy::Cut => self.totals.cuts += 1,
                }
                self.totals.operator_ordered += u64::from(*ordered);
                let detected_at = self.detected.take();
                self.observe_step("decided", detected_at, now);
                self.decided = Some(now);
            }
            // A deploy switches, too; it was not decided.
            TimelineEvent::Switched { .. } => {
                if let Some(decided_at) = self.decided.take() {
                    self.observe_step("switched", Some(decided_at), now);
                    self.switched = Some(now);
                }
            }
            TimelineEvent::Drained { .. } | TimelineEvent::Cut { .. } => {
                self.observe_step("emptied", self.switched, now)
            }
            TimelineEvent::Recovered => {
                let switched_at = self.switched.take();
                self.observe_step("recovered", switched_at, now);
            }
            TimelineEvent::Blocked { guard, .. } => {
                *self.totals.blocked.entry(guard.to_string()).or_default() += 1;
            }
            _ => (),
        }
    }

    /// A line could not be written.
    pub(crate) fn record_write_failure(&mut self) {
        self.totals.timeline_write_failures += 1;
    }

    /// Everything so far.
    pub(crate) fn totals(&self) -> Counters {
        self.totals.clone()
    }

    /// A milestone after another one, unless that one was before the daemon's start.
    fn observe_step(&mut self, name: &str, started_at: Option<Moment>, now: Moment) {
        if let Some(started_at) = started_at {
            self.totals
                .rollback_steps
                .entry(name.to_owned())
                .or_default()
                .record(now.since(started_at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));

    const LINES: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/0.1.0/timeline.txt"));

    /// A rollback, and then every kind of line once.
    #[test]
    fn every_word_of_the_totals_is_as_it_was() {
        let entries = LINES.lines().map(|line| {
            let (name, json) = line.split_once("  ").unwrap();
            (name, serde_json::from_str::<TimelineEntry>(json).unwrap())
        });
        let entries: Vec<_> = entries.collect();
        let mut ledger = EventCounters::new();
        for name in ["detected", "decided", "switched", "drained", "recovered"] {
            let entry = entries.iter().find(|(it, _)| *it == name);
            ledger.record(&entry.unwrap().1, Duration::ZERO);
        }
        entries.iter().for_each(|(_, entry)| ledger.record(entry, Duration::ZERO));
        hold("totals.txt", &serde_json::to_string_pretty(&ledger.totals()).unwrap());
    }
}
