//! How a response body ends, or continues, when its release drains or is cut.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use crate::mcp::messages::FailureReason;
use crate::mcp::sse::SseReader;
use crate::mcp::{messages, sse};
use crate::model::Outcome;
use crate::proxy::backend::body::ReleaseBody;
use crate::proxy::exchange::cancellation::cancelled;
use crate::proxy::exchange::held_events::HeldEvents;
use crate::proxy::exchange::id_rewrite::Rewriter;
use crate::proxy::exchange::in_flight::ExchangeKind;
use crate::proxy::exchange::response_body::{BodyParser, OnReleaseLeft, ResponseBody, SideInput};
use crate::proxy::exchange::resumable_stream::StreamEvent;
use crate::proxy::exchange::spliced_response::SplicedResponse;
use crate::proxy::exchange::subscription::SubscriptionEvent;
use crate::proxy::session::Session;

/// How long the client should wait before it reconnects.
pub(in crate::proxy::exchange) const RECONNECT_MS: u32 = 1_000;

impl ResponseBody {
    /// Terminates an event that was sent in part.
    pub(super) fn close_event(&mut self) {
        if !self.at_event_boundary() {
            self.ready.push_back(Bytes::from_static(b"\n\n"));
        }
    }

    /// Whether a comment may be sent now: the stream is one of events, and at the end of one.
    pub(super) fn accepts_comment(&self) -> bool {
        // The proxy does not parse what a spliced response sends.
        let is_spliced = matches!(self.on_release_left, OnReleaseLeft::Splice(_));
        matches!(self.reader, BodyParser::Events(_)) && !is_spliced && self.at_event_boundary()
    }

    /// Keeps the stream open without a release, until its session has moved.
    pub(super) fn detach(&mut self, session: &Session, cause: FailureReason) {
        self.body = None;
        self.close_event();
        self.stop_rewriting();
        self.reader = BodyParser::Events(SseReader::new());
        for id in session.take_detached(self.in_flight.generation) {
            self.ready.push_back(sse::encode_event(&messages::error_response(&id, cause)));
            self.in_flight.backend.count_error_response();
        }
        self.in_flight.detach_from_release();
    }

    /// Polls the input from elsewhere. Pending: there is no body to read either.
    pub(super) fn poll_side_input(&mut self, cx: &mut Context<'_>) -> Poll<SideInput> {
        match &mut self.on_release_left {
            OnReleaseLeft::End | OnReleaseLeft::Replay(_) => Poll::Ready(SideInput::Idle),
            // A session of HTTP+SSE is its stream: it lasts as long as the proxy.
            OnReleaseLeft::Stay(_) if self.endpoint.is_some() || self.sse_session.is_some() => {
                Poll::Ready(SideInput::Idle)
            }
            OnReleaseLeft::Stay(end_streams) => {
                if end_streams.as_mut().poll(cx).is_pending() {
                    return Poll::Ready(SideInput::Idle);
                }
                self.on_release_left = OnReleaseLeft::End;
                let finished = self.finish();
                Poll::Ready(
                    finished.map_or_else(|it| SideInput::Frame(Err(it)), |()| SideInput::Changed),
                )
            }
            OnReleaseLeft::Splice(spliced) => {
                match std::task::ready!(spliced.poll(cx)) {
                    Some(Ok(data)) => return Poll::Ready(SideInput::Frame(Ok(Frame::data(data)))),
                    Some(Err(())) => self.fail_replay(),
                    None => (),
                }
                self.on_release_left = OnReleaseLeft::End;
                Poll::Ready(SideInput::Changed)
            }
            OnReleaseLeft::Reopen(subscription) => match subscription.poll(cx) {
                Poll::Ready(event) => Poll::Ready(self.on_subscription_event(event)),
                Poll::Pending if self.body.is_none() && subscription.is_reopening() => {
                    Poll::Pending
                }
                Poll::Pending => Poll::Ready(SideInput::Idle),
            },
            OnReleaseLeft::Resume(stream) => match stream.poll(cx) {
                Poll::Ready(event) => Poll::Ready(match self.on_session_event(event) {
                    Ok(()) => SideInput::Changed,
                    Err(error) => SideInput::Frame(Err(error)),
                }),
                Poll::Pending if self.body.is_none() => Poll::Pending,
                Poll::Pending => Poll::Ready(SideInput::Idle),
            },
        }
    }

    /// Handles an event of the session's stream.
    pub(super) fn on_session_event(&mut self, event: StreamEvent) -> io::Result<()> {
        let OnReleaseLeft::Resume(mut resumable) = std::mem::take(&mut self.on_release_left) else {
            return Ok(());
        };
        match event {
            StreamEvent::Moved(resume_at) => {
                self.detach(&resumable.session, FailureReason::Rollback);
                self.ready.extend(
                    resumable
                        .session
                        .take_list_changes()
                        .iter()
                        .map(|notification| sse::encode_event(notification)),
                );
                let Some(in_flight) = resumable.resume(*resume_at) else { return self.finish() };
                self.in_flight = in_flight;
                self.cut = cancelled(&self.in_flight.backend.cut);
            }
            StreamEvent::Reopened(body) => {
                self.continue_with(body, resumable.held_events());
            }
            StreamEvent::TakenUp(body, in_flight) => {
                self.in_flight = *in_flight;
                self.cut = cancelled(&self.in_flight.backend.cut);
                self.continue_with(body, resumable.held_events());
            }
            // The client opens another one, and learns how its session is.
            StreamEvent::NotTakenUp => {
                self.ready.push_back(sse::encode_retry(RECONNECT_MS));
                return Ok(());
            }
            StreamEvent::ReleaseEnded => return self.end(None),
            StreamEvent::ReleaseStopped => {
                self.on_release_left = OnReleaseLeft::Resume(resumable);
                self.hold_stream(false);
                return Ok(());
            }
            // Inside an event nothing can be inserted; the client gets it after the move.
            StreamEvent::ReleaseLeft if !self.at_event_boundary() => (),
            StreamEvent::ReleaseLeft => {
                self.ready.extend(
                    resumable
                        .session
                        .announce_list_changes()
                        .iter()
                        .map(|notification| sse::encode_event(notification)),
                );
            }
            StreamEvent::Ended | StreamEvent::Replaced if resumable.is_ended() => {
                return self.end(None);
            }
            StreamEvent::Ended => return self.finish(),
            StreamEvent::Replaced => {
                if self.body.is_none() {
                    return self.finish();
                }
                self.on_release_left = OnReleaseLeft::Stay(resumable.into_end_streams());
                return Ok(());
            }
        }
        self.on_release_left = OnReleaseLeft::Resume(resumable);
        Ok(())
    }

    /// Continues the stream of a session with this body.
    fn continue_with(&mut self, body: ReleaseBody, held_events: &Arc<HeldEvents>) {
        self.body = Some(body);
        self.reader = BodyParser::Events(SseReader::new());
        self.set_rewriter(Rewriter::new(self.in_flight.generation, false), held_events);
    }

    /// Continues a subscription at the next release, or ends it.
    pub(super) fn on_subscription_event(&mut self, event: SubscriptionEvent) -> SideInput {
        let (body, exchange) = match event {
            SubscriptionEvent::Reopened(body, exchange) => (body, *exchange),
            // It stays at its own release while that sends; else it ends gracefully.
            SubscriptionEvent::ReopenFailed if self.body.is_some() => {
                self.on_release_left = OnReleaseLeft::End;
                return SideInput::Changed;
            }
            SubscriptionEvent::ReopenFailed | SubscriptionEvent::Ended => {
                self.on_release_left = OnReleaseLeft::End;
                let finished = self.finish();
                return finished
                    .map_or_else(|error| SideInput::Frame(Err(error)), |()| SideInput::Changed);
            }
        };
        self.close_event();
        if let OnReleaseLeft::Reopen(subscription) = &mut self.on_release_left {
            let held_events = subscription.held_events();
            subscription.moved_to(&exchange);
            self.ready.extend(
                subscription
                    .changed_notifications()
                    .iter()
                    .map(|notification| sse::encode_event(notification)),
            );
            self.set_rewriter(Some(Rewriter::suppressing_ack()), &held_events);
        }
        if self.in_flight.backend.number != exchange.backend.number {
            self.in_flight.backend.count_migrated_session();
        }
        self.in_flight = exchange;
        self.cut = cancelled(&self.in_flight.backend.cut);
        self.body = Some(body);
        self.reader = BodyParser::Events(SseReader::new());
        SideInput::Changed
    }

    /// Ends the stream, or replays its request.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.body = None;
        if !matches!(self.reader, BodyParser::Events(_)) {
            self.in_flight.finish(Outcome::Neutral);
            self.in_flight.backend.count_truncated_response();
            return Err(io::Error::other("the release was stopped in the middle of its response"));
        }
        self.close_event();
        self.end_sse_session(Outcome::Neutral, FailureReason::Rollback);
        if let OnReleaseLeft::Replay(replay) = std::mem::take(&mut self.on_release_left) {
            self.in_flight.mark_replayed();
            self.on_release_left = OnReleaseLeft::Splice(SplicedResponse::Requested(replay.send()));
            return Ok(());
        }
        match self.in_flight.kind() {
            ExchangeKind::Call => self.send_errors(FailureReason::Rollback),
            ExchangeKind::Subscription => {
                let results: Vec<_> =
                    self.in_flight.pending_ids().into_iter().map(messages::listen_result).collect();
                self.ready.extend(results.iter().map(|result| sse::encode_event(result)));
                self.in_flight.backend.count_ended_subscription();
                self.in_flight.backend.count_closed_stream();
            }
            ExchangeKind::GetStream
            | ExchangeKind::Other
            | ExchangeKind::NotMcp
            | ExchangeKind::Detached => {
                let session = self.in_flight.session.clone();
                let parked = session.as_ref().map(|session| session.take_detached(u32::MAX));
                for id in parked.unwrap_or_default() {
                    self.ready.push_back(sse::encode_event(&messages::error_response(
                        &id,
                        FailureReason::Rollback,
                    )));
                    self.in_flight.backend.count_error_response();
                }
                let release_left = self.in_flight.backend.draining.is_cancelled();
                self.ready
                    .push_back(sse::encode_event(&messages::stream_closing_warning(release_left)));
                if let Some(refusal) = session.as_ref().and_then(|session| session.end_reason()) {
                    let closing = messages::session_closing_notification(refusal.label());
                    self.ready.push_back(sse::encode_event(&closing));
                    let lists = session.map(|session| session.list_changes()).unwrap_or_default();
                    self.ready
                        .extend(lists.iter().map(|notification| sse::encode_event(notification)));
                }
                self.ready.push_back(sse::encode_retry(RECONNECT_MS));
                self.in_flight.backend.count_closed_stream();
            }
        }
        self.in_flight.finish(Outcome::Neutral);
        Ok(())
    }

    /// Sends errors: the replay got no response either.
    pub(super) fn fail_replay(&mut self) {
        self.close_event();
        for id in self.in_flight.request_ids().ids {
            self.ready.push_back(sse::encode_event(&messages::error_response(
                &id,
                FailureReason::Rollback,
            )));
            self.in_flight.backend.count_error_response();
        }
    }

    /// Sends an error for each pending request.
    pub(super) fn send_errors(&mut self, cause: FailureReason) {
        let errors: Vec<_> = self
            .in_flight
            .pending_ids()
            .into_iter()
            .map(|id| messages::error_response(id, cause))
            .collect();
        for error in &errors {
            self.ready.push_back(sse::encode_event(error));
            self.in_flight.count_error_response();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(handed_at) = self.handed_at {
            self.in_flight.client_left(handed_at);
        }
        let is_stream = match self.in_flight.kind() {
            ExchangeKind::Subscription => true,
            ExchangeKind::GetStream => matches!(self.reader, BodyParser::Events(_)),
            _ => false,
        };
        if is_stream && self.status.is_success() {
            self.in_flight.backend.outcomes.count_stream(self.stream_broken);
        }
    }
}
