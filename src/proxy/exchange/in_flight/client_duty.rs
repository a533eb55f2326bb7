//! What the client owes, and what it did wrong: neither is a fault of the release.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mcp::message::Message;
use crate::mcp::{methods, request_check};
use crate::model::Outcome;
use crate::proxy::exchange::in_flight::InFlight;
use crate::proxy::exchange::parsed_body::lock_parsed;
use crate::proxy::exchange::pending::PendingRequest;

/// A client that takes no data for longer than this is slow to read.
const READ_PAUSE_MAX: Duration = Duration::from_secs(1);

impl InFlight {
    /// The class of an outcome, when a failure may be the client's own.
    pub(super) fn charge(&self, request: &PendingRequest, class: Outcome) -> Outcome {
        match class {
            Outcome::ServerFault | Outcome::ToolFault if self.is_client_mistake(request) => {
                Outcome::ClientFault
            }
            _ => class,
        }
    }

    /// Whether the body breaks JSON-RPC or the protocol, or is one that common servers cannot read.
    pub(in crate::proxy) fn has_invalid_body(&self) -> bool {
        match &self.client_body {
            Some(body) => request_check::is_invalid(body),
            None => lock_parsed(&self.parsed).is_unreadable,
        }
    }

    fn is_client_mistake(&self, request: &PendingRequest) -> bool {
        if self.unreachable {
            return false;
        }
        if self.has_invalid_body() {
            return true;
        }
        let parsed = lock_parsed(&self.parsed);
        let mut messages = parsed.messages.iter();
        let message = messages.find(|it| it.id.as_ref() == Some(&request.id));
        let Some((message, method)) = message.and_then(|it| Some((it, it.method.as_deref()?)))
        else {
            return false;
        };
        let (name, tools) = (message.name.as_deref(), &self.backend.read_only_tools);
        let is_unknown = methods::lookup(method).is_none()
            || name.is_some_and(|name| tools.is_unlisted(self.backend.number, method, name));
        is_unknown && request.counters.call().is_none_or(|call| !tools.was_answered(call))
    }

    /// Notes that the server asks the client something, and waits for the reply.
    pub(super) fn note_question(&mut self, message: &Message) {
        let method = message.method.as_deref().filter(|_| message.id.is_some());
        self.asked_client |= method.is_some_and(methods::asks_the_client);
    }

    /// Whether the server waits for a reply of the client. Without a session the reply cannot be seen:
    /// then it waits until the end.
    pub(super) fn client_owes_reply(&self) -> bool {
        match &self.session {
            Some(session) => session.with_machine(|machine| machine.awaits_client()),
            None => self.asked_client,
        }
    }

    /// The client took a piece of the response at `handed_at` and comes for the next one now. Time in
    /// which it read nothing is not the release's.
    pub(in crate::proxy) fn client_came_back(&mut self, handed_at: Instant) {
        let pause = monotonic().saturating_duration_since(handed_at);
        if pause > READ_PAUSE_MAX {
            self.started += pause;
        }
    }

    /// The client left; it took its last piece at `handed_at`.
    pub(in crate::proxy) fn client_left(&mut self, handed_at: Instant) {
        let pause = monotonic().saturating_duration_since(handed_at);
        self.left_owing |= pause > READ_PAUSE_MAX;
    }
}
