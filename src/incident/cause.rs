//! Which events of a timeline open an incident, or add to an open one.

use serde::{Deserialize, Serialize};

use crate::model::{Finding, Guard, TimelineEntry, TimelineEvent};

/// Why an incident is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The judge found a breach, and the daemon rolls back.
    Rollback,
    /// A person requested the rollback.
    OrderedRollback,
    /// A guard blocked the rollback that a breach asks for.
    GuardHeld,
    /// Both releases fail.
    SharedOutage,
    /// The rollback could not finish, or the previous release fails too.
    RollbackIncomplete,
    /// The new release never became ready.
    NeverReady,
    /// The artifact of the rollback target changed.
    ArtifactChanged,
}

impl Cause {
    /// What happened, as the end of a sentence about a release.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rollback => "rolled back by the daemon",
            Self::OrderedRollback => "rolled back by an operator",
            Self::GuardHeld => "breach without a rollback: a guard held it",
            Self::SharedOutage => "shared outage: both releases fail",
            Self::RollbackIncomplete => "the rollback could not finish",
            Self::NeverReady => "the release never became ready",
            Self::ArtifactChanged => "the artifact of the previous release changed",
        }
    }

    /// Whether the judge found a breach of the release.
    pub fn is_verdict_against_release(self) -> bool {
        matches!(self, Self::Rollback | Self::GuardHeld)
    }

    /// Whether this event leaves the service to a person: nothing more happens by itself.
    pub fn needs_person(self) -> bool {
        match self {
            Self::GuardHeld
            | Self::SharedOutage
            | Self::RollbackIncomplete
            | Self::ArtifactChanged => true,
            Self::Rollback | Self::OrderedRollback | Self::NeverReady => false,
        }
    }
}

/// The cause that an event gives, if it opens an incident.
pub fn cause_of(entry: &TimelineEntry) -> Option<Cause> {
    Some(match &entry.event {
        TimelineEvent::Detected { trigger, .. } if trigger.is_operator() => Cause::OrderedRollback,
        TimelineEvent::Detected { .. } => Cause::Rollback,
        // Missing data is no breach: it pages, and the bake waits.
        TimelineEvent::Blocked { guard: Guard::NoData, .. } => return None,
        TimelineEvent::Blocked { guard: Guard::SharedOutage, .. } => Cause::SharedOutage,
        TimelineEvent::Blocked { verdict, .. } if verdict.finding == Finding::SharedOutage => {
            Cause::SharedOutage
        }
        TimelineEvent::Blocked { .. } => Cause::GuardHeld,
        TimelineEvent::Abandoned if entry.because.starts_with("the artifact of") => {
            Cause::ArtifactChanged
        }
        TimelineEvent::Abandoned | TimelineEvent::Unrecovered => Cause::RollbackIncomplete,
        // An operator who ends a start by hand has no incident.
        TimelineEvent::Failed if !was_aborted(&entry.because) => Cause::NeverReady,
        _ => return None,
    })
}

/// Whether an operator ended the start: `VERSION aborted by uid ...`. A version has no space.
fn was_aborted(because: &str) -> bool {
    because.split_once(' ').is_some_and(|(_, rest)| rest.starts_with("aborted by uid "))
}

/// Whether the facts are complete after this event, so that the draft can be written.
pub fn completes_draft(event: &TimelineEvent) -> bool {
    matches!(
        event,
        TimelineEvent::Recovered
            | TimelineEvent::Unrecovered
            | TimelineEvent::Abandoned
            | TimelineEvent::Blocked { .. }
            | TimelineEvent::Failed
            | TimelineEvent::Accepted { .. }
    )
}
