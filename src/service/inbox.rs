//! The messages that a service loop receives.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::artifact::{Verifier, VerifyError};
use crate::config::{Runtime, Service};
use crate::control::{Explanation, Status};
use crate::decide::CommandRefused;
use crate::model::{CommandRequest, Event, ReleaseNumber, Signal, TimelineEntry, TimelineEvent};
use crate::record::Truncated;
use crate::service::changes::Changes;

/// Added to each time limit of a stop: the loop has other work to do.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);
const STOP_MARGIN: Duration = Duration::from_secs(3);

/// Where the result of a command goes.
pub(crate) type CommandReply = oneshot::Sender<Result<Arc<TimelineEntry>, CommandError>>;

/// Everything that a service loop receives.
#[derive(Debug)]
pub(crate) enum ServiceMessage {
    /// An observation of a release.
    Signal(Signal),
    /// A text about a release for the timeline. It changes no state.
    ReleaseNote(ReleaseNumber, String),
    /// Another program runs in place of a release; how that was noticed.
    ReleaseReplaced(ReleaseNumber, String),
    /// A release started so long ago, without the daemon's doing.
    ReleaseStarted(ReleaseNumber, Duration),
    /// A release gives this name for itself, in several responses in a row.
    IdentityChanged(ReleaseNumber, String),
    /// The result of an effect.
    Event(Event),
    /// A command of an operator.
    Command(CommandRequest, CommandReply),
    /// The same command, after its artifact was resolved.
    ResolvedCommand(CommandRequest, Option<Verifier>, CommandReply),
    /// The artifact of a release cannot be verified.
    VerifyFailed(ReleaseNumber, VerifyError),
    /// A query of the status.
    Status(oneshot::Sender<Status>),
    /// A query of the explanation.
    Explain(oneshot::Sender<Explanation>),
    /// Something about the incident of a deploy for the timeline. It changes no state.
    Fact(ReleaseNumber, TimelineEvent, String),
    /// New settings. The reply says what became of those that differ.
    Configure(Arc<Service>, oneshot::Sender<Changes>),
    /// Another daemon, with this name, takes the service over.
    HandOver(String, oneshot::Sender<()>),
    /// A fault for a test: the loop panics.
    #[cfg(test)]
    Panic,
    /// The daemon stops.
    Stop(Shutdown, oneshot::Sender<()>),
}

/// How a service loop starts.
#[derive(Debug)]
pub(crate) struct Startup {
    /// Why it reads the timeline: the beginning of a sentence, such as "rollbackd started".
    pub cause: String,
    /// What was cut off the end of the timeline.
    pub truncated: Truncated,
    /// What else of the state could not be read: whole sentences.
    pub damage: Vec<String>,
}

/// How the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// It closes open requests and stops the releases.
    Immediate,
    /// Open requests may finish; then it stops the releases.
    Drain,
    /// Open requests may finish. The releases go on: the daemon starts again at once and adopts them.
    Restart,
}

impl Shutdown {
    /// Whether open requests may finish.
    pub(crate) fn drains(self) -> bool {
        self != Self::Immediate
    }

    /// Whether the daemon starts again at once.
    pub(crate) fn is_restart(self) -> bool {
        self == Self::Restart
    }

    /// How long a service may take to stop.
    pub(crate) fn timeout(self, service: &Service) -> Duration {
        let drain = match self.drains() {
            true => service.policy.drain_timeout + DRAIN_MARGIN,
            false => Duration::ZERO,
        };
        let stop = match &service.runtime {
            Runtime::Command(command) => command.stop_timeout,
            Runtime::External | Runtime::Systemd(_) => Duration::ZERO,
        };
        drain + stop + STOP_MARGIN
    }
}

/// Why a command had no effect.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// The state machine refused it.
    Refused(CommandRefused),
    /// Its artifact cannot be deployed.
    ArtifactUnusable(String),
    /// The timeline could not be written.
    NotRecorded(String),
}
