use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::demo::traffic::{SessionCounts, TrafficReport};
use crate::model::{DrainCost, Moment, Severity, Strategy, TimelineEntry, TimelineEvent};

/// What the demo comes to. As JSON it is the one object of `--json`; times are in milliseconds
/// since the deploy, bad answers as the clients saw them, the rest from the daemon's timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The first bad answer.
    pub first_bad_ms: Option<u64>,
    /// The judge, or somebody, found that the release must go.
    pub detected_ms: Option<u64>,
    /// The rollback was decided.
    pub decided_ms: Option<u64>,
    /// The previous release had the traffic again.
    pub switched_ms: Option<u64>,
    /// The last bad answer.
    pub last_bad_ms: Option<u64>,
    /// The promise was kept again.
    pub recovered_ms: Option<u64>,
    /// Requests that the clients sent.
    pub requests: u64,
    /// Of those, how many had a bad answer or none.
    pub failed: u64,
    /// What became of the sessions.
    pub sessions: SessionCounts,
    /// What leaving the bad release cost, as the daemon wrote it.
    pub drain_cost: Option<DrainCost>,
    /// How bad it was.
    pub severity: Option<Severity>,
    /// How the traffic left.
    pub strategy: Option<Strategy>,
    /// The daemon's reason, or how the deploy ended when there was no rollback.
    pub because: String,
    /// Where the timeline lies.
    pub timeline: PathBuf,
    #[serde(skip)]
    notes: Vec<String>,
}

/// When the deploy began, by any of its entries.
pub(crate) fn deploy_started_at(entries: &[TimelineEntry]) -> Option<Moment> {
    entries.first().map(|entry| Moment(entry.moment.0.saturating_sub(entry.since_deploy_ms)))
}

impl Summary {
    /// Puts together what the daemon wrote about one deploy and what the clients saw of it.
    pub fn new(entries: &[TimelineEntry], report: &TrafficReport, timeline: PathBuf) -> Self {
        let deployed = deploy_started_at(entries).unwrap_or_default();
        let since = |at: Option<Moment>| at.map(|at| at.0.saturating_sub(deployed.0));
        let mut summary = Self {
            first_bad_ms: since(report.first_bad),
            detected_ms: None,
            decided_ms: None,
            switched_ms: None,
            last_bad_ms: since(report.last_bad),
            recovered_ms: None,
            requests: report.requests,
            failed: report.failed,
            sessions: report.sessions,
            drain_cost: None,
            severity: None,
            strategy: None,
            because: "nothing was decided in the time of the demo; a small fault needs more requests to be \
                      told from chance, so try a higher --rate"
                .to_owned(),
            timeline,
            notes: client_notes(report),
        };
        for entry in entries {
            summary.apply(entry);
        }
        summary
    }

    /// Whether it went back, kept the promise again, and no client saw anything bad after that.
    pub fn is_clean_rollback(&self) -> bool {
        let (Some(recovered), Some(_)) = (self.recovered_ms, self.decided_ms) else { return false };
        self.last_bad_ms.is_none_or(|last| last <= recovered)
    }

    fn apply(&mut self, entry: &TimelineEntry) {
        match &entry.event {
            TimelineEvent::Detected { .. } => {
                self.detected_ms.get_or_insert(entry.since_deploy_ms);
                self.because.clone_from(&entry.because);
            }
            TimelineEvent::Decided { strategy, severity, .. } => {
                self.decided_ms.get_or_insert(entry.since_deploy_ms);
                self.strategy = Some(*strategy);
                self.severity = Some(*severity);
                self.because = format!("{}; {}", self.because, entry.because);
            }
            TimelineEvent::Drained { cost: toll } | TimelineEvent::Cut { cost: toll } => {
                self.drain_cost = Some(toll.clone())
            }
            TimelineEvent::Escalated => self.strategy = Some(Strategy::Cut),
            // The one before the decision brought the new release its traffic.
            TimelineEvent::Switched { .. } if self.decided_ms.is_some() => {
                self.switched_ms.get_or_insert(entry.since_deploy_ms);
            }
            TimelineEvent::Recovered => {
                self.recovered_ms.get_or_insert(entry.since_deploy_ms);
            }
            TimelineEvent::Failed
            | TimelineEvent::Accepted { .. }
            | TimelineEvent::Abandoned
            | TimelineEvent::Unrecovered
            | TimelineEvent::Blocked { .. } => self.because.clone_from(&entry.because),
            _ => {}
        }
    }
}

fn client_notes(report: &TrafficReport) -> Vec<String> {
    let mut notes: Vec<_> =
        report.reasons.iter().map(|(reason, count)| format!("{count} x {reason}")).collect();
    if report.not_sent > 0 {
        notes.push(format!("{} requests not sent, too many were waiting", report.not_sent));
    }
    notes.push(format!("slowest good answer {} ms", report.slowest.as_millis()));
    notes
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milestones = [
            ("first bad answer", self.first_bad_ms),
            ("detected", self.detected_ms),
            ("decided", self.decided_ms),
            ("switched", self.switched_ms),
            ("last bad answer", self.last_bad_ms),
            ("recovered", self.recovered_ms),
        ];
        writeln!(f, "milliseconds since the deploy, and since the first bad answer:")?;
        for (what, at) in milestones {
            match (at, self.first_bad_ms) {
                (Some(at), Some(first)) => {
                    let delta = i128::from(at) - i128::from(first);
                    writeln!(f, "  {what:<17}{at:>8}  {delta:>+8}")?;
                }
                (Some(at), None) => writeln!(f, "  {what:<17}{at:>8}")?,
                (None, _) => writeln!(f, "  {what:<17}{:>8}", "-")?,
            }
        }
        let SessionCounts { kept, migrated, broken } = self.sessions;
        writeln!(f, "requests   {} sent, {} failed", self.requests, self.failed)?;
        writeln!(f, "           {}", self.notes.join("; "))?;
        writeln!(f, "sessions   {kept} kept, {migrated} of them migrated, {broken} broken")?;
        if let (Some(severity), Some(strategy)) = (self.severity, self.strategy) {
            writeln!(f, "rollback   {severity}, {strategy}")?;
        }
        if let Some(toll) = &self.drain_cost {
            writeln!(f, "cost       {toll}")?;
        }
        writeln!(f, "because    {}", self.because)?;
        writeln!(f, "timeline   {}", self.timeline.display())?;
        let end = if self.is_clean_rollback() {
            "the previous release has the traffic and meets its objectives"
        } else {
            "this did not end in a good rollback"
        };
        write!(f, "=> {end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ReleaseLoad, ReleaseNumber};

    fn entry(ms: u64, because: &str, fact: TimelineEvent) -> TimelineEntry {
        TimelineEntry {
            seq: 1,
            wall_time: String::new(),
            moment: Moment(1_000_000 + ms),
            since_deploy_ms: ms,
            service: "weather".to_owned(),
            deploy: ReleaseNumber(2),
            because: because.to_owned(),
            event: fact,
            planned_effects: Vec::new(),
        }
    }

    fn rolled_back() -> Vec<TimelineEntry> {
        let detected = TimelineEvent::Detected {
            verdict: None,
            load: ReleaseLoad::default(),
            order: None,
            forced: false,
        };
        let decided = TimelineEvent::Decided {
            strategy: Strategy::Cut,
            severity: Severity::Down,
            ordered: false,
        };
        vec![
            entry(900, "v2 is ready", TimelineEvent::Ready { contract: None, changes: None }),
            entry(1000, "v2 has the traffic", TimelineEvent::Switched { to: ReleaseNumber(2) }),
            entry(3400, "v2 is down", detected),
            entry(3410, "v1 answers", decided),
            entry(3420, "v1 has the traffic", TimelineEvent::Switched { to: ReleaseNumber(1) }),
            entry(5000, "v1 meets its objectives again", TimelineEvent::Recovered),
        ]
    }

    fn report(last_bad: u64) -> TrafficReport {
        TrafficReport {
            requests: 300,
            failed: 12,
            first_bad: Some(Moment(1_003_000)),
            last_bad: Some(Moment(1_000_000 + last_bad)),
            sessions: SessionCounts { kept: 9, migrated: 8, broken: 0 },
            ..TrafficReport::default()
        }
    }

    #[test]
    fn a_rollback_is_summed_up_from_both_sides() {
        let summary = Summary::new(&rolled_back(), &report(3421), PathBuf::from("t.jsonl"));
        let json = serde_json::to_string(&summary).unwrap();
        let expected = concat!(
            r#"{"first_bad_ms":3000,"detected_ms":3400,"decided_ms":3410,"switched_ms":3420,"#,
            r#""last_bad_ms":3421,"recovered_ms":5000,"requests":300,"failed":12,"#,
            r#""sessions":{"kept":9,"migrated":8,"broken":0},"drain_cost":null,"severity":"down","strategy":"cut","#,
            r#""because":"v2 is down; v1 answers","timeline":"t.jsonl"}"#
        );
        assert_eq!(json, expected);
        assert!(summary.is_clean_rollback());
        let text = summary.to_string();
        assert!(text.contains("  detected             3400      +400\n"), "{text}");
    }

    #[test]
    fn a_bad_answer_after_the_recovery_is_not_good() {
        assert!(!Summary::new(&rolled_back(), &report(5001), PathBuf::new()).is_clean_rollback());
    }

    #[test]
    fn without_a_rollback_the_times_are_missing() {
        let entries = [entry(9, "v2 never became ready", TimelineEvent::Failed)];
        let summary = Summary::new(&entries, &TrafficReport::default(), PathBuf::new());
        assert_eq!((summary.decided_ms, summary.first_bad_ms), (None, None));
        assert_eq!(summary.because, "v2 never became ready");
        assert!(!summary.is_clean_rollback());
    }
}
