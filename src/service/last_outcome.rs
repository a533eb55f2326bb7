//! What happened last at one service, entry by entry of its timeline: for a status the morning after.

use crate::control::LastOutcome;
use crate::model::{Moment, TimelineEntry, TimelineEvent, Trigger, Verdict};

/// Longest text of a reason, in characters.
const REASON_MAX: usize = 160;

/// The kinds of outcomes that a verdict led to, unless a person did.
const DECIDED_BY_A_RULE: [&str; 5] =
    ["rolled_back", "detected", "blocked", "abandoned", "unrecovered"];

/// Follows the deploys of one service.
#[derive(Debug, Default)]
pub(crate) struct OutcomeTracker {
    new: String,
    old: Option<String>,
    /// The breach or order of the present rollback.
    detected: Option<(Moment, String)>,
    /// The rule of the newest verdict against the release on trial.
    rule: Option<String>,
    rolling_back: bool,
    last: Option<(Moment, LastOutcome)>,
}

impl OutcomeTracker {
    /// The newest outcome at `now`.
    pub(crate) fn last(&self, now: Moment) -> Option<LastOutcome> {
        let (at, last) = self.last.as_ref()?;
        Some(LastOutcome { since_s: now.since(*at).as_secs_f64(), ..last.clone() })
    }

    /// Takes in one entry.
    pub(crate) fn record(&mut self, entry: &TimelineEntry) {
        let because = shorten(&entry.because);
        if let Some(verdict) = entry.event.verdict() {
            self.rule = verdict.basis.as_ref().map(ToString::to_string);
        }
        match &entry.event {
            TimelineEvent::Deployed { release, carried_over, .. } => {
                let old = carried_over.active.as_ref().map(|it| it.version.clone());
                (self.new, self.old) = (release.version.clone(), old);
                (self.detected, self.rule, self.rolling_back) = (None, None, false);
                self.set(entry, format!("deploy of {} began", self.new));
            }
            TimelineEvent::Replaced { release, warm, .. } => {
                let old = warm.as_ref().map(|it| it.version.clone());
                (self.new, self.old) = (release.version.clone(), old);
                (self.detected, self.rule, self.rolling_back) = (None, None, false);
                self.set(entry, because);
            }
            TimelineEvent::Switched { .. } if self.rolling_back => {
                self.set(entry, self.rolled_back(entry.moment));
            }
            // An operator's reason names the release itself.
            TimelineEvent::Accepted { .. } if because.starts_with(&self.new) => {
                self.set(entry, because);
            }
            TimelineEvent::Accepted { .. } => self.set(entry, format!("{} {because}", self.new)),
            TimelineEvent::Detected { trigger, .. } => {
                let reason = match trigger {
                    Trigger::Verdict(verdict) => found(verdict),
                    Trigger::Operator { .. } => {
                        self.rule = None;
                        because.clone()
                    }
                };
                self.detected = Some((entry.moment, shorten(&reason)));
                self.set(entry, because);
            }
            TimelineEvent::Decided { .. } => self.rolling_back = true,
            TimelineEvent::Switched { .. }
            | TimelineEvent::Stepped { .. }
            | TimelineEvent::Failed
            | TimelineEvent::Unrecovered
            | TimelineEvent::Abandoned
            | TimelineEvent::Blocked { .. }
            | TimelineEvent::Cleared => self.set(entry, because),
            TimelineEvent::Held { .. } => self.set(entry, format!("held: {because}")),
            TimelineEvent::Resumed { .. } => self.set(entry, format!("resumed: {because}")),
            // Steps on the way, and what changes no state.
            _ => (),
        }
    }

    fn rolled_back(&self, now: Moment) -> String {
        let to = self.old.as_ref().map(|old| format!(" to {old}")).unwrap_or_default();
        let Some((detected, reason)) = &self.detected else {
            return format!("rolled back from {}{to}", self.new);
        };
        let seconds = now.since(*detected).as_secs_f64();
        format!("rolled back from {}{to} in {seconds:.1} s: {reason}", self.new)
    }

    fn set(&mut self, entry: &TimelineEntry, text: String) {
        let kind = match entry.event {
            TimelineEvent::Switched { .. } if self.rolling_back => "rolled_back",
            _ => entry.event.kind(),
        };
        let outcome = LastOutcome {
            kind: kind.to_owned(),
            deploy: entry.deploy,
            at: entry.wall_time.clone(),
            since_s: 0.0,
            text,
            rule: self.rule.clone().filter(|_| DECIDED_BY_A_RULE.contains(&kind)),
        };
        self.last = Some((entry.moment, outcome));
    }
}

/// What a verdict found, without what the warm release did.
fn found(verdict: &Verdict) -> String {
    let objective = verdict.basis.as_ref().and_then(|it| it.objective.as_ref());
    objective.map_or_else(|| verdict.because.clone(), ToString::to_string)
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(REASON_MAX) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "...",
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Basis, ObjectiveNumbers, Rule};

    const LINES: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/0.1.0/timeline.txt"));

    fn entry(name: &str, ms: u64) -> TimelineEntry {
        let line = LINES.lines().find_map(|line| line.strip_prefix(&format!("{name}  ")));
        let entry: TimelineEntry = serde_json::from_str(line.unwrap()).unwrap();
        TimelineEntry { moment: Moment(ms), ..entry }
    }

    #[test]
    fn a_rollback_is_one_sentence_with_its_time_and_reason() {
        let mut tracker = OutcomeTracker::default();
        assert_eq!(tracker.last(Moment(0)), None);
        for (name, ms) in
            [("deployed", 0), ("switched", 900), ("detected", 5_000), ("decided", 5_100)]
        {
            tracker.record(&entry(name, ms));
        }
        tracker.record(&entry("switched", 5_400));
        let last = tracker.last(Moment(65_400)).unwrap();
        assert_eq!((last.kind.as_str(), last.since_s), ("rolled_back", 60.0));
        assert!(last.text.starts_with("rolled back from v"), "{}", last.text);
        assert!(last.text.contains(" in 0.4 s: "), "{}", last.text);
        // The end of the drain and the recovery do not hide it.
        tracker.record(&entry("drained", 6_000));
        tracker.record(&entry("recovered", 7_000));
        assert_eq!(tracker.last(Moment(65_400)).unwrap(), last);
        tracker.record(&entry("accepted", 70_000));
        assert_eq!(tracker.last(Moment(70_000)).unwrap().kind, "accepted");
        let promoted = format!("{} promoted by root (pid 1): x", tracker.new);
        tracker.record(&TimelineEntry { because: promoted.clone(), ..entry("accepted", 71_000) });
        assert_eq!(tracker.last(Moment(71_000)).unwrap().text, promoted);
    }

    #[test]
    fn the_reason_of_a_rollback_is_the_objective_that_was_broken() {
        let mut tracker = OutcomeTracker::default();
        let mut detected = entry("detected", 5_000);
        let numbers = ObjectiveNumbers {
            name: "availability".to_owned(),
            requests: 318,
            bad: 62,
            allowed: 0.005,
            allowed_as_before: false,
            e_value: 9.0,
            threshold: 8.0,
        };
        if let TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } =
            &mut detected.event
        {
            let basis = Basis { objective: Some(numbers), ..Basis::of(Rule::BrokenObjective) };
            verdict.basis = Some(Box::new(basis));
        }
        for entry in [detected, entry("decided", 5_100), entry("switched", 5_400)] {
            tracker.record(&entry);
        }
        let last = tracker.last(Moment(5_400)).unwrap();
        assert_eq!(last.rule.as_deref(), Some("broken objective, evidence 9.0 of 8"));
        let text = last.text;
        let found = "availability: 62 of 318 requests bad (19.5 %, allowed 0.5 %)";
        assert!(text.ends_with(&format!(" in 0.4 s: {found}")), "{text}");
    }
}
