//! What reaches the keeper of a service.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::artifact::{Verifier, VerifyError};
use crate::config::Service;
use crate::control::Status;
use crate::decide::CommandRefused;
use crate::model::{CommandRequest, Event, ReleaseNumber, Signal, TimelineEntry};
use crate::record::Truncated;

/// Whoever waits for what comes of a command.
pub(crate) type CommandReply = oneshot::Sender<Result<Arc<TimelineEntry>, CommandError>>;

/// Everything that reaches a keeper.
#[derive(Debug)]
pub(crate) enum ServiceMessage {
    /// Something was seen of a release.
    Signal(Signal),
    /// Something happened to a release that is worth knowing, and changes nothing.
    ReleaseNote(ReleaseNumber, String),
    /// In place of a release something else runs, which nobody deployed; how that was noticed.
    ReleaseReplaced(ReleaseNumber, String),
    /// A release calls itself this, in several answers in a row.
    IdentityChanged(ReleaseNumber, String),
    /// An effect came to something.
    Event(Event),
    /// A person gave a command.
    Command(CommandRequest, CommandReply),
    /// The same, with what its artifact is.
    ResolvedCommand(CommandRequest, Option<Verifier>, CommandReply),
    /// The artifact of a release is not known to be what was deployed.
    VerifyFailed(ReleaseNumber, VerifyError),
    /// Somebody wants to know.
    Status(oneshot::Sender<Status>),
    /// New settings.
    Configure(Arc<Service>),
    /// Another daemon, named here, takes the service over.
    HandOver(String, oneshot::Sender<()>),
    /// The daemon ends.
    Stop(Shutdown, oneshot::Sender<()>),
}

/// How a keeper begins.
#[derive(Debug)]
pub(crate) struct Startup {
    /// Who reads the timeline, and since when: the beginning of a sentence.
    pub cause: String,
    /// What was cut off the timeline.
    pub truncated: Truncated,
}

/// How the daemon ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shutdown {
    /// What is open may finish.
    pub drain: bool,
    /// The daemon is started again at once: releases go on, and the next one adopts them.
    pub restart: bool,
}

/// Why a command came to nothing.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// It does not fit.
    Refused(CommandRefused),
    /// Its artifact can not be what is deployed.
    ArtifactUnusable(String),
    /// It could not be written down.
    NotRecorded(String),
}
