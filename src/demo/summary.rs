//! What the demo showed: the daemon's timeline beside what the clients saw.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::demo::draft::Draft;
use crate::demo::scenario::Scenario;
use crate::demo::traffic::{SessionCounts, TrafficReport};
use crate::model::{DrainCost, Moment, Severity, Strategy, TimelineEntry, TimelineEvent};

/// The result of the demo, and the object of `--json`. Times are in milliseconds since the deploy.
/// Bad responses are as the clients saw them; the rest is from the daemon's timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// A client sent the first request that got a bad response.
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
    /// The daemon accepted the new release.
    pub accepted_ms: Option<u64>,
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
    /// The file of the timeline, if the demo kept its folder.
    pub timeline: Option<PathBuf>,
    /// The post-mortem and the message about it, if the deploy has an incident.
    pub draft: Option<Draft>,
    #[serde(skip)]
    notes: Vec<String>,
    #[serde(skip)]
    scenario: Scenario,
}

/// When the deploy began, computed from its first event.
pub(crate) fn deploy_started_at(entries: &[TimelineEntry]) -> Option<Moment> {
    entries.first().map(|entry| Moment(entry.moment.0.saturating_sub(entry.since_deploy_ms)))
}

impl Summary {
    /// Combines the events of one deploy with what the clients saw.
    pub fn new(
        scenario: &Scenario,
        entries: &[TimelineEntry],
        report: &TrafficReport,
        timeline: PathBuf,
    ) -> Self {
        let deployed = deploy_started_at(entries).unwrap_or_default();
        let since = |at: Option<Moment>| at.map(|at| at.0.saturating_sub(deployed.0));
        let mut summary = Self {
            first_bad_ms: since(report.first_bad),
            detected_ms: None,
            decided_ms: None,
            switched_ms: None,
            last_bad_ms: since(report.last_bad),
            recovered_ms: None,
            accepted_ms: None,
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
            timeline: Some(timeline),
            draft: None,
            notes: client_notes(report),
            scenario: *scenario,
        };
        for entry in entries {
            summary.apply(entry);
        }
        summary
    }

    /// Whether the daemon did what it should. If the release was to blame, it rolled back, and no
    /// client saw a bad response after the recovery. If not, it accepted the release.
    pub fn is_as_expected(&self) -> bool {
        let are_sessions_safe = self.sessions.broken == 0 || self.scenario.sticky;
        let is_decided = if self.scenario.fault.is_of_the_release() {
            self.decided_ms.is_some() && self.is_over_before(self.recovered_ms)
        } else {
            self.decided_ms.is_none() && self.is_over_before(self.accepted_ms)
        };
        is_decided && are_sessions_safe
    }

    fn is_over_before(&self, end_ms: Option<u64>) -> bool {
        end_ms.is_some_and(|end| self.last_bad_ms.is_none_or(|last| last <= end))
    }

    /// The end in one sentence.
    fn sentence(&self) -> String {
        let Self { requests, failed, .. } = self;
        let ending = match (self.decided_ms, self.accepted_ms, self.first_bad_ms) {
            (Some(_), _, Some(first)) => {
                let end = self.last_bad_ms.unwrap_or(first).max(first);
                let seconds = (end - first) as f64 / 1000.0;
                let bad = if *failed == 0 { "late responses" } else { "failures" };
                format!("v2 was rolled back; clients saw {bad} for {seconds:.2} s")
            }
            (Some(_), _, None) => "v2 was rolled back before a client saw a failure".to_owned(),
            (None, Some(accepted), _) => {
                format!("v2 was accepted {:.1} s after its deploy", accepted as f64 / 1000.0)
            }
            (None, None, _) => "the deploy of v2 came to no end in the time of the demo".to_owned(),
        };
        let sessions = match self.sessions.broken {
            0 => "no session was lost".to_owned(),
            1 => "1 session was lost".to_owned(),
            broken => format!("{broken} sessions were lost"),
        };
        let why = if self.sessions.broken > 0 && self.scenario.sticky {
            ", because their state cannot move"
        } else {
            ""
        };
        format!("{ending}; {failed} of {requests} requests failed; {sessions}{why}")
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
            TimelineEvent::Accepted { .. } => {
                self.accepted_ms.get_or_insert(entry.since_deploy_ms);
                self.because.clone_from(&entry.because);
            }
            TimelineEvent::Failed
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
            ("first bad request", self.first_bad_ms),
            ("detected", self.detected_ms),
            ("decided", self.decided_ms),
            ("switched", self.switched_ms),
            ("last bad response", self.last_bad_ms),
            ("recovered", self.recovered_ms),
            ("accepted", self.accepted_ms),
        ];
        writeln!(f, "milliseconds since the deploy, and since the first bad request was sent:")?;
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
        if let Some(timeline) = &self.timeline {
            writeln!(f, "timeline   {}", timeline.display())?;
        }
        if let Some(Draft { message, html }) = &self.draft {
            writeln!(f, "message    {message}")?;
            writeln!(f, "draft      {}", html.display())?;
        }
        let verdict = if self.is_as_expected() { "" } else { "not as it should be: " };
        write!(f, "=> {verdict}{}", self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::fault::Fault;
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
            entry(
                900,
                "v2 is ready",
                TimelineEvent::Ready { contract: None, changes: None, ramp: None, choice: None },
            ),
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

    fn scenario(fault: Fault) -> Scenario {
        Scenario { fault, rate: 50, sticky: false, page: false }
    }

    fn summary(entries: &[TimelineEntry], last_bad: u64) -> Summary {
        let timeline = PathBuf::from("t.jsonl");
        Summary::new(&scenario(Fault::Total), entries, &report(last_bad), timeline)
    }

    #[test]
    fn the_summary_combines_timeline_and_clients() {
        let summary = summary(&rolled_back(), 3421);
        let json = serde_json::to_string(&summary).unwrap();
        let expected = concat!(
            r#"{"first_bad_ms":3000,"detected_ms":3400,"decided_ms":3410,"switched_ms":3420,"#,
            r#""last_bad_ms":3421,"recovered_ms":5000,"accepted_ms":null,"requests":300,"failed":12,"#,
            r#""sessions":{"kept":9,"migrated":8,"broken":0},"drain_cost":null,"severity":"down","strategy":"cut","#,
            r#""because":"v2 is down; v1 answers","timeline":"t.jsonl","draft":null}"#
        );
        assert_eq!(json, expected);
        assert!(summary.is_as_expected());
        let text = summary.to_string();
        assert!(text.contains("  detected               3400      +400\n"), "{text}");
        let end = "\n=> v2 was rolled back; clients saw failures for 0.42 s; \
                   12 of 300 requests failed; no session was lost";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_bad_response_after_the_recovery_is_not_as_expected() {
        let summary = summary(&rolled_back(), 5001);
        assert!(!summary.is_as_expected());
        assert!(summary.to_string().contains("=> not as it should be: v2 was rolled back"));
    }

    #[test]
    fn lost_sessions_are_expected_only_where_their_state_cannot_move() {
        let mut summary = summary(&rolled_back(), 3421);
        summary.sessions.broken = 2;
        assert!(!summary.is_as_expected());
        summary.scenario.sticky = true;
        assert!(summary.is_as_expected());
        let end = "2 sessions were lost, because their state cannot move";
        assert!(summary.to_string().ends_with(end), "{summary}");
    }

    #[test]
    fn without_a_rollback_the_times_are_missing() {
        let entries = [entry(9, "v2 never became ready", TimelineEvent::Failed)];
        let summary = Summary::new(
            &scenario(Fault::Total),
            &entries,
            &TrafficReport::default(),
            PathBuf::new(),
        );
        assert_eq!((summary.decided_ms, summary.first_bad_ms), (None, None));
        assert_eq!(summary.because, "v2 never became ready");
        assert!(!summary.is_as_expected());
    }

    #[test]
    fn a_release_without_a_fault_has_to_be_accepted() {
        let report = TrafficReport { requests: 900, ..TrafficReport::default() };
        let accepted = TimelineEvent::Accepted { verified: true };
        for (event, expected) in [(accepted, true), (TimelineEvent::Abandoned, false)] {
            let entries = [entry(15_000, "v2 meets its objectives", event)];
            let summary = Summary::new(&scenario(Fault::None), &entries, &report, PathBuf::new());
            assert_eq!(summary.is_as_expected(), expected);
        }
        let blamed =
            Summary::new(&scenario(Fault::SharedOutage), &rolled_back(), &report, PathBuf::new());
        assert!(!blamed.is_as_expected());
    }
}
