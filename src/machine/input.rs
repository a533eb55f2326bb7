//! What a driver gives to the machine, and what it receives.

use std::time::Duration;

use crate::decide::{MoveSessions, Policy};
use crate::judge::SloSettings;
use crate::model::{
    Decision, Effect, Event, History, Moment, ReleaseNumber, Signal, TimelineEvent,
};

/// The settings of one service that its decisions need.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineSettings {
    /// Of the state machine.
    pub policy: Policy,
    /// Of the judge.
    pub slo: SloSettings,
    /// Whether the daemon starts the releases itself. It then restarts the deployed program, so a
    /// replaced one is no deploy.
    pub restarts_in_place: bool,
    /// Whether the daemon starts the releases, so that the time to ready at a deploy is that of a
    /// start.
    pub starts_releases: bool,
    /// Whether sessions leave the warm release once the new one is accepted.
    pub move_sessions: MoveSessions,
}

/// What happens to a service, besides commands.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An observation of a release.
    Signal(Signal),
    /// The result of an effect, or another event that needs no judge.
    Event(Event),
    /// A text about a release for the timeline.
    Note(ReleaseNumber, String),
    /// Another program runs in place of a release; how that was noticed.
    Replaced(ReleaseNumber, String),
    /// The name that a release reports.
    Identity(ReleaseNumber, String),
    /// All signals of a block are in: verdict, recovery and deadline are due.
    EndOfBlock,
}

/// A decision that is not in the timeline yet. Its effects stay inside until it is.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "record it, or report that it is not recorded"]
pub struct Proposal {
    pub(super) decision: Decision,
    /// What it decides on, if that does not come again by itself.
    pub(super) source: Option<Pending>,
}

/// What waits for a decision. A verdict is computed when its turn comes, in the phase of that moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pending {
    Event(Event),
    Note(ReleaseNumber, String),
    /// Sessions leave the warm release; why.
    WarmFails(ReleaseNumber, String),
    Replaced(ReleaseNumber, Option<String>, String),
    Verdict,
    Recovery,
    Step,
    Deadline,
    /// The daemon did not run for this long.
    Pause(Duration),
}

/// The start of a bake, as the judge needs it and the signal log keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct BakeOpening {
    /// The release on trial.
    pub release: ReleaseNumber,
    /// The release that can take over.
    pub warm: Option<ReleaseNumber>,
    /// Whether its bake is over.
    pub after_bake: bool,
    /// When the bake, or the watch after it, began.
    pub opened: Moment,
    /// The record of the warm release; after the bake, that of the release itself.
    pub history: History,
}

/// What the proxy needs to know of a phase, besides the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingHints {
    /// The release that may have to go again.
    pub on_trial: Option<ReleaseNumber>,
    /// The release that sessions leave at their next request.
    pub migrate_from: Option<ReleaseNumber>,
}

impl Pending {
    /// Whether it happens once. The others return with each block.
    pub(super) fn happens_once(&self) -> bool {
        match self {
            Self::Event(_)
            | Self::Note(..)
            | Self::WarmFails(..)
            | Self::Replaced(..)
            | Self::Pause(_) => true,
            Self::Verdict | Self::Recovery | Self::Step | Self::Deadline => false,
        }
    }
}

impl From<Decision> for Proposal {
    fn from(decision: Decision) -> Self {
        Self { decision, source: None }
    }
}

impl Proposal {
    /// The reason, for the timeline.
    pub fn because(&self) -> &str {
        &self.decision.because
    }

    /// The event, for the timeline.
    pub fn event(&self) -> &TimelineEvent {
        &self.decision.event
    }

    /// The names of its effects, for the timeline.
    pub fn planned_effects(&self) -> Vec<String> {
        self.decision.effects.iter().map(ToString::to_string).collect()
    }

    /// Whether it pages the operator.
    pub fn pages(&self) -> bool {
        self.decision.effects.iter().any(|effect| matches!(effect, Effect::Page(_)))
    }
}
