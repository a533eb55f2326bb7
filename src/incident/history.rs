//! One deploy in a row: what was deployed, when, by whom, how it ended.

use serde::{Deserialize, Serialize};

use crate::model::{Actor, Guard, Moment, ReleaseNumber, TimelineEntry, TimelineEvent, Trigger};

/// How a deploy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployOutcome {
    /// It is not over.
    Running,
    /// The release stayed, with evidence.
    Accepted,
    /// The release stayed, without enough evidence.
    Unverified,
    /// The daemon rolled back.
    RolledBack,
    /// An operator rolled back.
    RolledBackByOperator,
    /// The release never got traffic.
    Failed,
    /// A breach that was not rolled back.
    Breach,
    /// A rollback that did not finish.
    Incomplete,
}

/// One deploy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Its number.
    pub deploy: ReleaseNumber,
    /// The version.
    pub version: String,
    /// The wall's time: RFC 3339, UTC.
    pub at: String,
    /// When it began.
    pub began: Moment,
    /// Who; none for a release that was exchanged by hand.
    pub by: Option<Actor>,
    /// How it ended.
    pub outcome: DeployOutcome,
    /// The event that ended it, or the cause of a rollback, in words.
    #[serde(default)]
    pub because: String,
    /// Until its end, in milliseconds.
    pub duration_ms: u64,
    /// From the onset to the verdict, in milliseconds.
    #[serde(default)]
    pub detect_ms: Option<u64>,
    /// From the onset to the recovery, in milliseconds.
    #[serde(default)]
    pub restore_ms: Option<u64>,
    /// Requests a second, and the lower bound of their failing share, at the verdict.
    #[serde(default)]
    pub failing: Option<(f64, f64)>,
    /// How long the bake would have gone on after the verdict, in milliseconds.
    #[serde(default)]
    pub bake_left_ms: Option<u64>,
}

/// Sums up the timeline of one deploy, line by line.
#[derive(Debug, Clone, PartialEq)]
pub struct DeployHistory {
    row: HistoryRow,
    bake_ms: u64,
    is_ordered: bool,
    onset: Option<Moment>,
    switched: Option<Moment>,
    /// How it was accepted, once it was.
    accepted: Option<DeployOutcome>,
}

impl DeployHistory {
    /// Begins with the first line. `None` for a timeline without a deploy. `bake_ms` is the length of a
    /// bake.
    pub fn begin(first: &TimelineEntry, bake_ms: u64) -> Option<Self> {
        let (version, by) = match &first.event {
            TimelineEvent::Deployed { release, by, .. } => {
                (release.version.clone(), Some(by.clone()))
            }
            TimelineEvent::Replaced { release, .. } => (release.version.clone(), None),
            _ => return None,
        };
        let row = HistoryRow {
            deploy: first.deploy,
            version,
            at: first.wall_time.clone(),
            began: Moment(first.moment.0.saturating_sub(first.since_deploy_ms)),
            by,
            outcome: DeployOutcome::Running,
            because: first.because.clone(),
            duration_ms: 0,
            detect_ms: None,
            restore_ms: None,
            failing: None,
            bake_left_ms: None,
        };
        Some(Self { row, bake_ms, is_ordered: false, onset: None, switched: None, accepted: None })
    }

    /// Adds the next line.
    pub fn add(&mut self, entry: &TimelineEntry) {
        let outcome = match &entry.event {
            TimelineEvent::Switched { .. } => {
                self.switched.get_or_insert(entry.moment);
                return;
            }
            TimelineEvent::Detected { trigger, .. } => return self.on_detected(entry, trigger),
            TimelineEvent::Recovered => {
                self.row.restore_ms = self.onset.map(|it| entry.moment.0.saturating_sub(it.0));
                match self.is_ordered {
                    true => DeployOutcome::RolledBackByOperator,
                    false => DeployOutcome::RolledBack,
                }
            }
            TimelineEvent::Accepted { verified: true } => DeployOutcome::Accepted,
            TimelineEvent::Accepted { verified: false } => DeployOutcome::Unverified,
            TimelineEvent::Failed => DeployOutcome::Failed,
            // No breach: the bake goes on, or a person ends the ramp.
            TimelineEvent::Blocked {
                guard: Guard::NoData | Guard::OneUser | Guard::Differs | Guard::Ramp,
                ..
            } => {
                return;
            }
            TimelineEvent::Blocked { .. } => DeployOutcome::Breach,
            // A breach after the bake, or in it.
            TimelineEvent::Cleared => self.accepted.unwrap_or(DeployOutcome::Running),
            TimelineEvent::Abandoned | TimelineEvent::Unrecovered => DeployOutcome::Incomplete,
            _ => return,
        };
        // Of a rollback, the cause says more than the end.
        if !matches!(entry.event, TimelineEvent::Recovered) {
            self.row.because.clone_from(&entry.because);
        }
        self.row.outcome = outcome;
        if matches!(entry.event, TimelineEvent::Accepted { .. }) {
            self.accepted = Some(outcome);
        }
        self.row.duration_ms = entry.moment.0.saturating_sub(self.row.began.0);
    }

    fn on_detected(&mut self, entry: &TimelineEntry, trigger: &Trigger) {
        self.is_ordered = trigger.is_operator();
        self.row.because.clone_from(&entry.because);
        let Some(verdict) = trigger.verdict() else { return };
        self.onset = Some(verdict.onset);
        self.row.detect_ms = Some(entry.moment.0.saturating_sub(verdict.onset.0));
        self.row.failing = Some((verdict.request_rate, verdict.failure_rate_lower));
        let ends = self.switched.map(|it| it.0 + self.bake_ms);
        self.row.bake_left_ms = ends.map(|it| it.saturating_sub(entry.moment.0));
    }

    /// The sum so far.
    pub fn row(&self) -> &HistoryRow {
        &self.row
    }
}

/// Sums up the timeline of one deploy. `None` for a timeline without a deploy. `bake_ms` is the length of
/// a bake.
pub fn summarise(entries: &[TimelineEntry], bake_ms: u64) -> Option<DeployHistory> {
    let (first, rest) = entries.split_first()?;
    let mut history = DeployHistory::begin(first, bake_ms)?;
    rest.iter().for_each(|entry| history.add(entry));
    Some(history)
}

impl DeployOutcome {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Accepted => "accepted",
            Self::Unverified => "accepted (unverified)",
            Self::RolledBack => "rolled back",
            Self::RolledBackByOperator => "rolled back by an operator",
            Self::Failed => "never ready",
            Self::Breach => "breach, not rolled back",
            Self::Incomplete => "rollback incomplete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Guard;

    #[test]
    fn a_rollback_has_its_times() {
        let history = summarise(&example::timeline(), 600_000).unwrap();
        let row = history.row();
        assert_eq!(row.outcome, DeployOutcome::RolledBack);
        assert_eq!((row.detect_ms, row.restore_ms), (Some(5_681), Some(6_931)));
        assert_eq!((row.duration_ms, row.bake_left_ms), (9_931, Some(591_633)));
        for (guard, outcome) in [
            (Guard::OneUser, DeployOutcome::Running),
            (Guard::Differs, DeployOutcome::Running),
            (Guard::NoData, DeployOutcome::Running),
            (Guard::Hold, DeployOutcome::Breach),
        ] {
            let mut facts = example::facts();
            example::block(&mut facts, guard);
            assert_eq!(summarise(&facts.timeline, 0).unwrap().row().outcome, outcome, "{guard}");
        }
        let failed = summarise(&example::failed_start("v2 never became ready"), 0).unwrap();
        assert_eq!(failed.row().outcome, DeployOutcome::Failed);
        assert_eq!(summarise(&example::timeline()[1..], 0), None);
    }

    #[test]
    fn a_breach_after_the_bake_is_over_when_it_is_cleared() {
        let mut facts = example::facts();
        example::block(&mut facts, Guard::AfterBake);
        let outcome = |entries: &[TimelineEntry]| summarise(entries, 0).unwrap().row().outcome;
        let blocked = facts.timeline.pop().unwrap();
        let like = |event| TimelineEntry { event, ..blocked.clone() };
        facts.timeline.push(like(TimelineEvent::Accepted { verified: true }));
        assert_eq!(outcome(&facts.timeline), DeployOutcome::Accepted);
        facts.timeline.push(blocked.clone());
        assert_eq!(outcome(&facts.timeline), DeployOutcome::Breach);
        facts.timeline.push(like(TimelineEvent::Cleared));
        assert_eq!(outcome(&facts.timeline), DeployOutcome::Accepted);
    }
}
