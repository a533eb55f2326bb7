//! What the demo showed: the daemon's timeline beside what the clients saw.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::demo::traffic::{SessionCounts, TrafficReport};
use crate::model::{DrainCost, Moment, Severity, Strategy, TimelineEntry, TimelineEvent};

/// The result of the demo, and the object of `--json`. Times are in milliseconds since the deploy.
/// Bad responses are as the clients saw them; the rest is from the daemon's timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The first bad response.
    pub first_bad_ms: Option<u64>,
    /// The judge or an operator found a breach.
    pub detected_ms: Option<u64>,
    /// The daemon decided to roll back.
    pub decided_ms: Option<u64>,
    /// The previous release had the traffic again.
    pub switched_ms: Option<u64>,
    /// The last bad response.
    pub last_bad_ms: Option<u64>,
    /// The service met its objectives again.
    pub recovered_ms: Option<u64>,
    /// Requests that the clients sent.
    pub requests: u64,
    /// Requests among them with a bad response or none.
    pub failed: u64,
    /// What became of the sessions.
    pub sessions: SessionCounts,
    /// What the rollback cost, from the timeline.
    pub drain_cost: Option<DrainCost>,
    /// The severity of the verdict.
    pub severity: Option<Severity>,
    /// The strategy of the rollback.
    pub strategy: Option<Strategy>,
    /// The daemon's reason, or how the deploy ended without a rollback.
    pub because: String,
    /// The file of the timeline.
    pub timeline: PathBuf,
    #[serde(skip)]
    notes: Vec<String>,
}

/// When the deploy began, computed from its first event.
pub(crate) fn deploy_started_at(entries: &[TimelineEntry]) -> Option<Moment> {
    entries.first().map(|entry| Moment(entry.moment.0.saturating_sub(entry.since_deploy_ms)))
}

impl Summary {
    /// Combines the events of one deploy with what the clients saw.
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
            because:
                "no decision within the time of the demo; a small fault needs more requests to be \
                      distinguished from chance: try a higher --rate"
                    .to_owned(),
            timeline,
            notes: client_notes(report),
        };
        for entry in entries {
            summary.apply(entry);
        }
        summary
    }

    /// Whether the daemon rolled back, and no client saw a bad response after the recovery.
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
            TimelineEvent::Drained { cost } | TimelineEvent::Cut { cost } => {
                self.drain_cost = Some(cost.clone());
            }
            TimelineEvent::Escalated(_) => self.strategy = Some(Strategy::Cut),
            // The switch before the decision gave the new release its traffic.
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
        notes.push(format!("{} requests not sent: too many in flight", report.not_sent));
    }
    notes.push(format!("slowest good response {} ms", report.slowest.as_millis()));
    notes
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milestones = [
            ("first bad response", self.first_bad_ms),
            ("detected", self.detected_ms),
            ("decided", self.decided_ms),
            ("switched", self.switched_ms),
            ("last bad response", self.last_bad_ms),
            ("recovered", self.recovered_ms),
        ];
        writeln!(f, "milliseconds since the deploy, and since the first bad response:")?;
        for (what, at) in milestones {
            match (at, self.first_bad_ms) {
                (Some(at), Some(first)) => {
                    let delta = i128::from(at) - i128::from(first);
                    writeln!(f, "  {what:<19}{at:>8}  {delta:>+8}")?;
                }
                (Some(at), None) => writeln!(f, "  {what:<19}{at:>8}")?,
                (None, _) => writeln!(f, "  {what:<19}{:>8}", "-")?,
            }
        }
        let SessionCounts { kept, migrated, broken } = self.sessions;
        writeln!(f, "requests   {} sent, {} failed", self.requests, self.failed)?;
        writeln!(f, "           {}", self.notes.join("; "))?;
        writeln!(f, "sessions   {kept} kept, {migrated} of them migrated, {broken} broken")?;
        if let (Some(severity), Some(strategy)) = (self.severity, self.strategy) {
            writeln!(f, "rollback   {severity}, {strategy}")?;
        }
        if let Some(cost) = &self.drain_cost {
            writeln!(f, "cost       {cost}")?;
        }
        writeln!(f, "because    {}", self.because)?;
        writeln!(f, "timeline   {}", self.timeline.display())?;
        let end = if self.is_clean_rollback() {
            "the previous release has the traffic and meets its objectives"
        } else {
            "no clean rollback"
        };
        write!(f, "=> {end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, ReleaseLoad, ReleaseNumber, Trigger};

    fn entry(ms: u64, because: &str, event: TimelineEvent) -> TimelineEntry {
        TimelineEntry {
            seq: 1,
            wall_time: String::new(),
            moment: Moment(1_000_000 + ms),
            since_deploy_ms: ms,
            service: "weather".to_owned(),
            deploy: ReleaseNumber(2),
            because: because.to_owned(),
            event,
            planned_effects: Vec::new(),
        }
    }

    fn rolled_back() -> Vec<TimelineEntry> {
        let order =
            Trigger::Operator { by: Actor::default(), strategy: Strategy::Cut, forced: false };
        let detected = TimelineEvent::Detected { trigger: order, load: ReleaseLoad::default() };
        let decided = TimelineEvent::Decided {
            strategy: Strategy::Cut,
            severity: Severity::Down,
            ordered: false,
            reason: None,
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
    fn the_summary_combines_timeline_and_clients() {
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
        assert!(text.contains("  detected               3400      +400\n"), "{text}");
    }

    #[test]
    fn a_bad_response_after_the_recovery_is_not_clean() {
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
