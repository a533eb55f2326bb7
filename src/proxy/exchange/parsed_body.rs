//! What the proxy has read of the body of a request.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use crate::mcp::message::Message;
use crate::mutex::lock;
use crate::proxy::exchange::body_error::BodyError;

/// What the body holds so far, shared with the exchange that waits for the responses.
pub(in crate::proxy) type SharedParse = Arc<Mutex<ParsedBody>>;

/// What the body holds so far, and how its transfer proceeds.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ParsedBody {
    /// The messages.
    pub messages: Vec<Message>,
    /// Whether they come in an array.
    pub batch: bool,
    /// Whether the client must send the next piece: the release cannot respond yet.
    pub waiting_on_client: bool,
    /// When the client last sent a piece that the proxy waited for.
    pub last_piece_at: Option<Instant>,
    /// Why the rest cannot be forwarded. The client caused it.
    pub error: Option<BodyError>,
    /// Whether common servers cannot read it: too deep, too long a number, not UTF-8.
    pub is_unreadable: bool,
}

/// The requests of a body.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RequestIds {
    /// Their ids, as the client wrote them.
    pub ids: Vec<Box<str>>,
    /// Whether they came in an array.
    pub batch: bool,
}

impl RequestIds {
    /// The id of the first request.
    pub(in crate::proxy) fn first(&self) -> Option<&str> {
        self.ids.first().map(AsRef::as_ref)
    }
}

impl ParsedBody {
    /// The ids of the requests.
    pub(in crate::proxy) fn request_ids(&self) -> RequestIds {
        let requests = self.messages.iter().filter(|message| message.method.is_some());
        let ids = requests.filter_map(|message| message.id.clone()).collect();
        RequestIds { ids, batch: self.batch }
    }
}

/// Locks what a body holds so far.
pub(in crate::proxy) fn lock_parsed(parsed: &Mutex<ParsedBody>) -> MutexGuard<'_, ParsedBody> {
    lock(parsed)
}
