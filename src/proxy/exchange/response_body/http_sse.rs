//! A stream that is a session of the HTTP+SSE transport (2024-11-05).

use std::task::Context;

use bytes::Bytes;

use crate::mcp::messages::FailureReason;
use crate::mcp::sse::SseReader;
use crate::model::Outcome;
use crate::proxy::exchange::endpoint_capture::EndpointCapture;
use crate::proxy::exchange::response_body::{BodyParser, ResponseBody};

impl ResponseBody {
    /// Learns from the first event whether the stream is a session.
    pub(in crate::proxy::exchange) fn with_endpoint(
        mut self,
        endpoint: Option<EndpointCapture>,
    ) -> Self {
        self.endpoint = endpoint.map(Box::new);
        self
    }

    /// Reads the start of the stream. Returns the bytes for the client.
    pub(super) fn learn_endpoint(&mut self, data: Bytes) -> Bytes {
        let Some(endpoint) = &mut self.endpoint else { return data };
        let captured = endpoint.feed(&data, &self.in_flight.backend);
        if captured.is_known {
            self.endpoint = None;
        }
        if captured.session.is_some() {
            self.sse_session = captured.session;
            self.in_flight.become_stream();
            self.reader = BodyParser::Events(SseReader::new());
        }
        captured.data
    }

    /// Adds an event of the proxy itself, where the stream is at the end of one. The deadlines of the
    /// requests expire meanwhile.
    pub(super) fn push_sse_event(&mut self, cx: &mut Context<'_>) -> bool {
        let is_possible = self.accepts_comment();
        let Some(session) = &self.sse_session else { return false };
        session.poll(cx);
        let event = is_possible.then(|| session.next_event()).flatten();
        let has_event = event.is_some();
        self.ready.extend(event);
        has_event
    }

    /// The bytes of a start that ended before it was known.
    pub(super) fn flush_endpoint(&mut self) {
        if let Some(mut endpoint) = self.endpoint.take() {
            self.ready.push_back(endpoint.take_rest());
            self.ready.retain(|data| !data.is_empty());
        }
    }

    /// The session ends with its stream: what waits for an answer gets this outcome and an error.
    pub(super) fn end_sse_session(&mut self, outcome: Outcome, reason: FailureReason) {
        let Some(session) = self.sse_session.take() else { return };
        let errors = session.end(outcome, reason);
        if !errors.is_empty() {
            self.close_event();
            self.ready.extend(errors);
        }
        if outcome == Outcome::Neutral {
            session.backend.count_ended_subscription();
        }
    }
}
