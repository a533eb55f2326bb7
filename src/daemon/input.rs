//! What reaches the keeper of a service.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::Service;
use crate::control::Status;
use crate::decide::Refusal;
use crate::model::{Entry, Event, Order, Signal};

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
    /// The daemon ends.
    Stop(oneshot::Sender<()>),
}

/// Why a command came to nothing.
#[derive(Debug)]
pub(super) enum Untaken {
    /// It does not fit.
    Refused(Refusal),
    /// It could not be written down.
    Unwritten(String),
}
