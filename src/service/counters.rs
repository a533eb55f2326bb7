//! Counts the events of one service, entry by entry of its timeline.

use std::time::Duration;

use crate::control::Counters;
use crate::model::{Moment, Strategy, TimelineEntry, TimelineEvent};

/// Kinds that alert rules use. They start at 0: a series that appears with 1 is no increase to Prometheus.
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

/// The totals, and when the present rollback reached its milestones.
#[derive(Debug)]
pub(crate) struct EventCounters {
    totals: Counters,
    detected: Option<Moment>,
    decided: Option<Moment>,
    switched: Option<Moment>,
}

impl EventCounters {
    /// No event yet.
    pub(crate) fn new() -> Self {
        let mut totals = Counters::default();
        totals.events.extend(ALERT_KINDS.map(|kind| (kind.to_owned(), 0)));
        Self { totals, detected: None, decided: None, switched: None }
    }

    /// Counts an entry, and how long its write took.
    pub(crate) fn record(&mut self, entry: &TimelineEntry, write_time: Duration) {
        self.totals.timeline_writes.record(write_time);
        *self.totals.events.entry(entry.event.kind().to_owned()).or_default() += 1;
        let now = entry.moment;
        match &entry.event {
            TimelineEvent::Deployed { .. } | TimelineEvent::Replaced { .. } => {
                (self.decided, self.switched) = (None, None)
            }
            TimelineEvent::Detected { trigger, .. } => {
                let onset = trigger.verdict().map(|verdict| verdict.onset);
                self.observe_step("detected", onset, now);
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
            // A deploy switches, too, without a decision before.
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

    /// Counts an entry that could not be written.
    pub(crate) fn record_write_failure(&mut self) {
        self.totals.timeline_write_failures += 1;
    }

    /// The totals so far.
    pub(crate) fn totals(&self) -> Counters {
        self.totals.clone()
    }

    /// Measures the time since the previous milestone, if this daemon saw that one.
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

    /// A rollback, and then every kind of entry once.
    #[test]
    fn every_word_of_the_totals_is_as_it_was() {
        let entries = LINES.lines().map(|line| {
            let (name, json) = line.split_once("  ").unwrap();
            (name, serde_json::from_str::<TimelineEntry>(json).unwrap())
        });
        let entries: Vec<_> = entries.collect();
        let mut counters = EventCounters::new();
        for name in ["detected", "decided", "switched", "drained", "recovered"] {
            let entry = entries.iter().find(|(it, _)| *it == name);
            counters.record(&entry.unwrap().1, Duration::ZERO);
        }
        entries.iter().for_each(|(_, entry)| counters.record(entry, Duration::ZERO));
        hold("totals.txt", &serde_json::to_string_pretty(&counters.totals()).unwrap());
    }
}
