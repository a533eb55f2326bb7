//! One deploy in one row: what was deployed, when, and how it ended.

use crate::model::{ReleaseNumber, TimelineEntry, TimelineEvent};

/// The sum of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeploySummary {
    /// Its number.
    pub number: ReleaseNumber,
    /// The version; `None` for a timeline without a deploy.
    pub version: Option<String>,
    /// When it began: RFC 3339, UTC.
    pub began: String,
    /// How it ended.
    pub ending: Ending,
    /// The event that ended it, in words.
    pub because: String,
    /// Milliseconds until then.
    pub took_ms: u64,
    ordered: bool,
}

/// How a deploy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
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

impl Ending {
    /// In words.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Running => "in progress",
            Self::Accepted => "accepted",
            Self::Unverified => "accepted (unverified)",
            Self::RolledBack => "rolled back",
            Self::RolledBackByOperator => "rolled back by an operator",
            Self::Failed => "did not become ready",
            Self::Breach => "breach, not rolled back",
            Self::Incomplete => "rollback incomplete",
        }
    }
}

impl DeploySummary {
    /// The summary of a timeline with this first line.
    pub(super) fn begin(first: &TimelineEntry) -> Self {
        let version = match &first.event {
            TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. } => {
                Some(release.version.clone())
            }
            _ => None,
        };
        Self {
            number: first.deploy,
            version,
            began: first.wall_time.clone(),
            ending: Ending::Running,
            because: first.because.clone(),
            took_ms: 0,
            ordered: false,
        }
    }

    /// Adds a line.
    pub(super) fn add(&mut self, entry: &TimelineEntry) {
        self.ending = match &entry.event {
            TimelineEvent::Detected { trigger, .. } => {
                self.ordered = trigger.is_operator();
                self.because.clone_from(&entry.because);
                return;
            }
            TimelineEvent::Recovered if self.ordered => Ending::RolledBackByOperator,
            TimelineEvent::Recovered => Ending::RolledBack,
            TimelineEvent::Accepted { verified: true } => Ending::Accepted,
            TimelineEvent::Accepted { verified: false } => Ending::Unverified,
            TimelineEvent::Failed => Ending::Failed,
            TimelineEvent::Blocked { .. } => Ending::Breach,
            TimelineEvent::Cleared => Ending::Running,
            TimelineEvent::Abandoned | TimelineEvent::Unrecovered => Ending::Incomplete,
            _ => return,
        };
        // Of a rollback, the cause says more than the end.
        if !matches!(entry.event, TimelineEvent::Recovered) {
            self.because.clone_from(&entry.because);
        }
        self.took_ms = entry.since_deploy_ms;
    }
}
