//! Counts what happens to one service, line by line of its timeline.

use std::time::Duration;

use crate::control::Totals;
use crate::model::{Entry, Fact, Moment, Strategy};

/// Kinds that alert rules look at: from nothing to one is not seen as an increase, from 0 to 1 is.
const COUNTED: [&str; 9] = [
    "abandoned",
    "accepted",
    "blocked",
    "deployed",
    "detected",
    "failed",
    "found",
    "recovered",
    "unrecovered",
];

/// The sums, and when the rollback that goes on reached its milestones.
#[derive(Debug)]
pub(super) struct Ledger {
    totals: Totals,
    detected: Option<Moment>,
    decided: Option<Moment>,
    switched: Option<Moment>,
}

impl Ledger {
    /// Nothing happened yet.
    pub(super) fn new() -> Self {
        let mut totals = Totals::default();
        totals.events.extend(COUNTED.map(|kind| (kind.to_owned(), 0)));
        Self { totals, detected: None, decided: None, switched: None }
    }

    /// A line is on disk, which took so long.
    pub(super) fn note(&mut self, entry: &Entry, took: Duration) {
        self.totals.writes.add(took);
        *self.totals.events.entry(entry.fact.kind().to_owned()).or_default() += 1;
        let now = entry.moment;
        match &entry.fact {
            Fact::Deployed { .. } | Fact::Found { .. } => {
                (self.decided, self.switched) = (None, None)
            }
            Fact::Detected { verdict, .. } => {
                self.step("detected", verdict.as_ref().map(|verdict| verdict.onset), now);
                self.detected = Some(now);
            }
            Fact::Decided { strategy, ordered, .. } => {
                match strategy {
                    Strategy::Drain => self.totals.drains += 1,
                    Strategy::Cut => self.totals.cuts += 1,
                }
                self.totals.ordered += u64::from(*ordered);
                let before = self.detected.take();
                self.step("decided", before, now);
                self.decided = Some(now);
            }
            // A deploy switches, too; it was not decided.
            Fact::Switched { .. } => {
                if let Some(before) = self.decided.take() {
                    self.step("switched", Some(before), now);
                    self.switched = Some(now);
                }
            }
            Fact::Drained { .. } | Fact::Cut { .. } => self.step("emptied", self.switched, now),
            Fact::Recovered => {
                let before = self.switched.take();
                self.step("recovered", before, now);
            }
            Fact::Blocked { guard, .. } => {
                *self.totals.blocked.entry(guard.to_string()).or_default() += 1;
            }
            _ => (),
        }
    }

    /// A line could not be written.
    pub(super) fn failed(&mut self) {
        self.totals.write_failures += 1;
    }

    /// Everything so far.
    pub(super) fn totals(&self) -> Totals {
        self.totals.clone()
    }

    /// A milestone after another one, unless that one was before the daemon's start.
    fn step(&mut self, name: &str, before: Option<Moment>, now: Moment) {
        if let Some(before) = before {
            self.totals.steps.entry(name.to_owned()).or_default().add(now.since(before));
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
            (name, serde_json::from_str::<Entry>(json).unwrap())
        });
        let entries: Vec<_> = entries.collect();
        let mut ledger = Ledger::new();
        for name in ["detected", "decided", "switched", "drained", "recovered"] {
            let entry = entries.iter().find(|(it, _)| *it == name);
            ledger.note(&entry.unwrap().1, Duration::ZERO);
        }
        entries.iter().for_each(|(_, entry)| ledger.note(entry, Duration::ZERO));
        hold("totals.txt", &serde_json::to_string_pretty(&ledger.totals()).unwrap());
    }
}
