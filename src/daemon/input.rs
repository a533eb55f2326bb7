//! What reaches the keeper of a service.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::artifact::{Doubt, Seal};
use crate::config::Service;
use crate::control::Status;
use crate::decide::Refusal;
use crate::model::{Entry, Event, Number, Order, Signal};
use crate::record::Torn;

/// Whoever waits for what comes of a command.
pub(super) type Told = oneshot::Sender<Result<Arc<Entry>, Untaken>>;

/// Everything that reaches a keeper.
#[derive(Debug)]
pub(super) enum Input {
    /// Something was seen of a release.
    Signal(Signal),
    /// Something happened to a release that is worth knowing, and changes nothing.
    Told(Number, String),
    /// In place of a release something else runs, which nobody deployed; how that was noticed.
    Found(Number, String),
    /// A release calls itself this, in several answers in a row.
    Named(Number, String),
    /// An effect came to something.
    Event(Event),
    /// A person gave a command.
    Order(Order, Told),
    /// The same, with what its artifact is.
    Sealed(Order, Option<Seal>, Told),
    /// The artifact of a release is not known to be what was deployed.
    Doubted(Number, Doubt),
    /// Somebody wants to know.
    Status(oneshot::Sender<Status>),
    /// New settings.
    Configure(Arc<Service>),
    /// Another daemon, named here, takes the service over.
    HandOver(String, oneshot::Sender<()>),
    /// The daemon ends.
    Stop(Ending, oneshot::Sender<()>),
}

/// How a keeper begins.
#[derive(Debug)]
pub(super) struct Begin {
    /// Who reads the timeline, and since when: the beginning of a sentence.
    pub who: String,
    /// What was cut off the timeline.
    pub torn: Torn,
}

/// How the daemon ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ending {
    /// What is open may finish.
    pub gently: bool,
    /// The daemon is started again at once: releases go on, and the next one adopts them.
    pub again: bool,
}

/// Why a command came to nothing.
#[derive(Debug)]
pub(super) enum Untaken {
    /// It does not fit.
    Refused(Refusal),
    /// Its artifact can not be what is deployed.
    Unfit(String),
    /// It could not be written down.
    Unwritten(String),
}
