//! What reaches the keeper of a service.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::Service;
use crate::control::Status;
use crate::decide::Refusal;
use crate::model::{Entry, Event, Order, Signal};
use crate::record::Torn;

/// Everything that reaches a keeper.
#[derive(Debug)]
pub(super) enum Input {
    /// Something was seen of a release.
    Signal(Signal),
    /// An effect came to something.
    Event(Event),
    /// A person gave a command.
    Order(Order, oneshot::Sender<Result<Arc<Entry>, Untaken>>),
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
    /// It could not be written down.
    Unwritten(String),
}
