//! What the end of a response body means for its requests.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::content_coding;
use crate::mcp::messages::FailureReason;
use crate::mcp::outcome;
use crate::model::Outcome;
use crate::proxy::exchange::held_events::{HeldByStream, SUM_MAX_MIB};
use crate::proxy::exchange::in_flight::ExchangeKind;
use crate::proxy::exchange::response_body::{BodyParser, OnReleaseLeft, ResponseBody};

impl ResponseBody {
    /// Handles the end of the body, with or without an error.
    pub(super) fn on_end(&mut self, error: Option<io::Error>) -> io::Result<()> {
        self.body = None;
        self.flush_endpoint();
        // While its release drains, the stream waits for its session to move. One that breaks is taken up
        // again; so is one that the release ends because it stops. Else it ends.
        let is_draining = self.in_flight.backend.draining.is_cancelled();
        let is_broken_stream = error.is_some() && matches!(self.reader, BodyParser::Events(_));
        match &mut self.on_release_left {
            OnReleaseLeft::Reopen(subscription) if subscription.is_reopening() => return Ok(()),
            OnReleaseLeft::Reopen(subscription) if is_broken_stream => {
                subscription.take_up();
                self.in_flight.backend.outcomes.count_stream(true);
                return Ok(());
            }
            OnReleaseLeft::Resume(stream) if !stream.session.is_removed() => {
                match is_draining || error.is_some() {
                    true => self.hold_stream(error.is_some()),
                    false => {
                        stream.watch_end(&self.in_flight.backend, self.in_flight.generation);
                    }
                }
                return Ok(());
            }
            _ => (),
        }
        self.end(error)
    }

    /// Ends the stream as the release ended it.
    pub(super) fn end(&mut self, error: Option<io::Error>) -> io::Result<()> {
        self.on_release_left = OnReleaseLeft::End;
        self.flush_incomplete();
        self.end_sse_session(Outcome::ServerFault, FailureReason::BackendFailed);
        let unanswered = !self.in_flight.pending_ids().is_empty();
        self.stream_broken = match self.in_flight.kind() {
            // A subscription that ended well has its result.
            ExchangeKind::Subscription => unanswered,
            ExchangeKind::GetStream => error.is_some(),
            _ => false,
        };
        let failed = self.failure(error.as_ref());
        match &self.reader {
            // A stream of 2025-11-25 may end early: the client resumes it by its event id. After an
            // error the release cannot resume it.
            BodyParser::Events(events) if events.is_resumable() && error.is_none() => {
                self.in_flight.suspend_for_resume();
            }
            BodyParser::Events(_) if unanswered && self.in_flight.kind() == ExchangeKind::Call => {
                self.close_event();
                self.send_errors(FailureReason::BackendFailed);
                self.in_flight.finish(failed);
            }
            BodyParser::Events(_) => self.in_flight.finish(Outcome::Ok),
            BodyParser::Json(_) => self.in_flight.finish(failed),
            BodyParser::Unparsed if error.is_some() => self.in_flight.finish(failed),
            BodyParser::Unparsed => self.finish_unparsed(),
        }
        match (error, &self.reader) {
            (Some(error), BodyParser::Json(_) | BodyParser::Unparsed) => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps the client's stream open without a release. Where that does not drain, the stream is taken up
    /// again. `is_broken`: the release did not end it in order.
    pub(super) fn hold_stream(&mut self, is_broken: bool) {
        let OnReleaseLeft::Resume(stream) = &mut self.on_release_left else { return };
        let session = Arc::clone(&stream.session);
        if self.in_flight.backend.draining.is_cancelled() {
            return self.detach(&session, FailureReason::Rollback);
        }
        let last_event_id = match &self.reader {
            BodyParser::Events(events) => events.last_event_id(),
            _ => None,
        };
        stream.take_up(self.in_flight.generation, last_event_id);
        self.in_flight.backend.outcomes.count_stream(is_broken);
        self.detach(&session, FailureReason::BackendFailed);
    }

    /// Ends the stream: of those that hold too much together, it held most.
    pub(super) fn end_over_limit(&mut self) {
        let held = self.held.take();
        self.body = None;
        self.stop_rewriting();
        self.ready.clear();
        // The client has a part of the event.
        self.ready.push_back(Bytes::from_static(b"\n\n"));
        self.on_release_left = OnReleaseLeft::End;
        if self.in_flight.kind() == ExchangeKind::Call {
            self.send_errors(FailureReason::OwnShortage);
        }
        self.in_flight.backend.outcomes.count_own_shortage();
        self.in_flight.finish(Outcome::Neutral);
        tracing::warn!(
            service = held.as_ref().map(HeldByStream::service),
            release = self.in_flight.backend.number.0,
            "a stream to a client ended: all events that wait for their end, or for a client that does \
             not read, have over {SUM_MAX_MIB} MiB, and it had most of them; look for a tool with very \
             large results, or for a client that does not read"
        );
    }

    /// Only the status says what became of the requests.
    fn finish_unparsed(&mut self) {
        let class = outcome::from_status(self.status);
        self.in_flight.set_failure_status(self.status, b"");
        // A response that could not be read is never a good one.
        let class = if class == Outcome::Ok { Outcome::Neutral } else { class };
        self.in_flight.finish(class);
    }

    /// What a response that is not complete means. One that rollbackd does not decode to its end is no
    /// evidence.
    fn failure(&self, error: Option<&io::Error>) -> Outcome {
        if error.is_some_and(content_coding::is_over_limit) {
            self.in_flight.backend.outcomes.count_unread();
            return Outcome::Neutral;
        }
        Outcome::ServerFault
    }
}
