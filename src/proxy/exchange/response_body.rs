//! The body of a response, on its way to the client.
//!
//! The proxy parses each piece as it passes. Only a [`Rewriter`] holds an event until it is complete.
//! When the release is cut or fails in the middle, the proxy continues the stream elsewhere, or ends
//! it in a way that clients understand.

mod release_left;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::mcp::messages::FailureReason;
use crate::mcp::scan::MessageScanner;
use crate::mcp::sse::SseReader;
use crate::mcp::{messages, outcome, sse};
use crate::model::Outcome;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::exchange::id_rewrite::Rewriter;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::response::OnReleaseLeft;
use crate::proxy::exchange::resumable_stream::{Replay, ResumableStream, SplicedResponse};
use crate::proxy::exchange::subscription::Subscription;

/// The bytes of a response without events that may still pass after the cut of its release.
const AFTER_CUT_BYTES_MAX: usize = 1024 * 1024;

/// A body that streams from a release.
#[derive(Debug)]
pub(in crate::proxy) struct ResponseBody {
    ready: VecDeque<Bytes>,
    body: Option<Incoming>,
    reader: BodyParser,
    status: StatusCode,
    in_flight: InFlight,
    bytes_since_cut: usize,
    /// Whether the release broke a listening stream.
    stream_broken: bool,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    rewriter: Option<Rewriter>,
    state: Option<Arc<ProxyState>>,
    resumable: Option<Box<ResumableStream>>,
    replay: Option<Box<Replay>>,
    subscription: Option<Box<Subscription>>,
    spliced: Option<SplicedResponse>,
}

/// How the proxy parses a body.
#[derive(Debug)]
pub(in crate::proxy) enum BodyParser {
    /// As one JSON-RPC message or batch.
    Json(MessageScanner),
    /// As server-sent events.
    Events(SseReader),
    /// It does not.
    Unparsed,
}

/// Input from elsewhere than the body of the release.
pub(in crate::proxy) enum SideInput {
    /// Nothing yet.
    Idle,
    /// The state of the stream changed.
    Changed,
    /// A frame for the client.
    Frame(io::Result<Frame<Bytes>>),
}

impl ResponseBody {
    /// Sends `ready`, and then `body`.
    pub(in crate::proxy) fn new(
        ready: VecDeque<Bytes>,
        body: Incoming,
        reader: BodyParser,
        status: StatusCode,
        in_flight: InFlight,
    ) -> Self {
        let cut = Box::pin(in_flight.backend.cut.clone().cancelled_owned());
        let rewriter = None;
        let (state, resumable, replay, subscription, spliced) = (None, None, None, None, None);
        let body = Some(body);
        let bytes_since_cut = 0;
        Self {
            ready,
            body,
            reader,
            status,
            in_flight,
            bytes_since_cut,
            stream_broken: false,
            cut,
            rewriter,
            state,
            resumable,
            replay,
            subscription,
            spliced,
        }
    }

    /// Adds the list changes of the session, and rewrites events as the session needs it.
    pub(in crate::proxy) fn with_session_events(mut self, state: &Arc<ProxyState>) -> Self {
        if self.in_flight.clamp_ttl {
            self.rewriter = Some(Rewriter::clamping_ttl());
        }
        let Some(session) = &self.in_flight.session else { return self };
        let opening = self.in_flight.initialize_body.is_some();
        self.rewriter = Rewriter::new(self.in_flight.generation, opening);
        self.state = opening.then(|| Arc::clone(state));
        // A client with a listening stream gets them there.
        if session.listen_stream().is_none() {
            let notifications = session.take_list_changes();
            self.ready
                .extend(notifications.iter().map(|notification| sse::encode_event(notification)));
        }
        self
    }

    /// Continues the stream when its session moves.
    pub(in crate::proxy) fn with_resumable(
        mut self,
        resumable: Option<Box<ResumableStream>>,
    ) -> Self {
        if let Some(resumable) = &resumable {
            let generation = self.in_flight.generation;
            self.rewriter = Rewriter::new(generation, false);
            self.ready.extend(
                resumable
                    .session
                    .take_list_changes()
                    .iter()
                    .map(|notification| sse::encode_event(notification)),
            );
            // The previous release cannot answer detached requests any more.
            if let Some(previous) = generation.checked_sub(1) {
                for id in resumable.session.take_detached(previous) {
                    self.ready.push_back(sse::encode_event(&messages::error_response(
                        &id,
                        FailureReason::Rollback,
                    )));
                }
            }
        }
        self.resumable = resumable;
        self
    }

    /// Sets how the stream continues when its release is cut.
    pub(in crate::proxy) fn with_on_release_left(mut self, on_release_left: OnReleaseLeft) -> Self {
        self.replay = on_release_left.replay.map(Box::new);
        self.subscription = on_release_left.subscription;
        self
    }

    fn parse(&mut self, data: &Bytes) {
        let (status, in_flight) = (self.status, &mut self.in_flight);
        let on_message = |message| in_flight.on_message(status, &message);
        match &mut self.reader {
            BodyParser::Json(scan) => scan.feed(data, on_message),
            BodyParser::Events(events) => events.feed(data, on_message),
            BodyParser::Unparsed => (),
        }
    }

    /// Rewrites one piece of the body.
    fn rewrite(&mut self, data: Bytes) -> Bytes {
        let Some(rewriter) = &mut self.rewriter else { return data };
        let out = rewriter.feed(&data);
        if let (Some(result), Some(state)) = (rewriter.initialize_result.take(), &self.state)
            && let Some(initialize_body) = self.in_flight.initialize_body.take()
        {
            state.session_opened(&self.in_flight, &initialize_body, &result);
        }
        out
    }

    /// Handles the end of the body, with or without an error.
    fn on_end(&mut self, error: Option<hyper::Error>) -> io::Result<()> {
        self.body = None;
        if let Some(rest) =
            self.rewriter.as_mut().map(Rewriter::take_rest).filter(|it| !it.is_empty())
        {
            self.ready.push_back(rest);
        }
        // While its release drains, the stream waits for its session to move; else it ends.
        let is_draining = self.in_flight.backend.draining.is_cancelled();
        if self.subscription.as_ref().is_some_and(|subscription| subscription.is_reopening()) {
            return Ok(());
        }
        self.subscription = None;
        match self.resumable.take() {
            Some(resumable) if is_draining && !resumable.session.is_removed() => {
                self.detach(&resumable);
                self.resumable = Some(resumable);
                return Ok(());
            }
            _ => (),
        }
        let unanswered = !self.in_flight.pending_ids().is_empty();
        self.stream_broken = match self.in_flight.kind() {
            // A subscription that ended well has its result.
            ExchangeKind::Subscription => unanswered,
            ExchangeKind::GetStream => error.is_some(),
            ExchangeKind::Call | ExchangeKind::Other | ExchangeKind::Detached => false,
        };
        match &self.reader {
            // A stream of 2025-11-25 may end early: the client resumes it by its event id. After an
            // error the release cannot resume it.
            BodyParser::Events(events) if events.is_resumable() && error.is_none() => {
                self.in_flight.suspend_for_resume();
            }
            BodyParser::Events(events)
                if unanswered && self.in_flight.kind() == ExchangeKind::Call =>
            {
                if !events.at_event_boundary() {
                    self.ready.push_back(Bytes::from_static(b"\n\n"));
                }
                self.send_errors(FailureReason::BackendFailed);
                self.in_flight.finish(Outcome::ServerFault);
            }
            BodyParser::Events(_) => self.in_flight.finish(Outcome::Ok),
            BodyParser::Json(_) => self.in_flight.finish(Outcome::ServerFault),
            BodyParser::Unparsed if error.is_some() => self.in_flight.finish(Outcome::ServerFault),
            BodyParser::Unparsed => self.in_flight.finish(outcome::from_status(self.status)),
        }
        match (error, &self.reader) {
            (Some(error), BodyParser::Json(_) | BodyParser::Unparsed) => {
                Err(io::Error::other(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let is_stream = match self.in_flight.kind() {
            ExchangeKind::Subscription => true,
            ExchangeKind::GetStream => matches!(self.reader, BodyParser::Events(_)),
            ExchangeKind::Call | ExchangeKind::Other | ExchangeKind::Detached => false,
        };
        if is_stream && self.status.is_success() {
            self.in_flight.backend.outcomes.count_stream(self.stream_broken);
        }
    }
}

impl ResponseBody {
    /// Whether the client got everything.
    pub(in crate::proxy) fn is_finished(&self) -> bool {
        let reopening = self.subscription.as_ref().is_some_and(|it| it.is_reopening());
        let has_more =
            reopening || self.resumable.is_some() || self.spliced.is_some() || self.body.is_some();
        !has_more && self.ready.is_empty()
    }

    /// Polls the input from elsewhere. Pending: there is no body to read either.
    fn poll_side_input(&mut self, cx: &mut Context<'_>) -> Poll<SideInput> {
        if let Some(spliced) = &mut self.spliced {
            match std::task::ready!(spliced.poll(cx)) {
                Some(Ok(data)) => return Poll::Ready(SideInput::Frame(Ok(Frame::data(data)))),
                Some(Err(())) => self.fail_replay(),
                None => (),
            }
            self.spliced = None;
            return Poll::Ready(SideInput::Changed);
        }
        if let Some(mut subscription) = self.subscription.take() {
            let (next, reopening) = (subscription.poll(cx), subscription.is_reopening());
            self.subscription = Some(subscription);
            match next {
                Poll::Ready(next) => return Poll::Ready(self.on_subscription_event(next)),
                Poll::Pending if self.body.is_none() && reopening => return Poll::Pending,
                Poll::Pending => (),
            }
        }
        let Some(mut resumable) = self.resumable.take() else {
            return Poll::Ready(SideInput::Idle);
        };
        match resumable.poll(cx) {
            Poll::Ready(event) => Poll::Ready(match self.on_session_event(resumable, event) {
                Ok(()) => SideInput::Changed,
                Err(error) => SideInput::Frame(Err(error)),
            }),
            Poll::Pending => {
                self.resumable = Some(resumable);
                if self.body.is_none() { Poll::Pending } else { Poll::Ready(SideInput::Idle) }
            }
        }
    }

    /// The next frame.
    pub(in crate::proxy) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match std::task::ready!(self.poll_side_input(cx)) {
                SideInput::Idle => (),
                SideInput::Changed => continue,
                SideInput::Frame(next) => return Poll::Ready(Some(next)),
            }
            let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
            // An event stream ends at the cut even when it never pauses. Other responses may finish
            // what is on its way, up to a limit.
            let is_cut = self.in_flight.backend.cut.is_cancelled();
            let stop_reading = is_cut
                && (matches!(self.reader, BodyParser::Events(_))
                    || self.bytes_since_cut > AFTER_CUT_BYTES_MAX);
            let next = if stop_reading { Poll::Pending } else { Pin::new(body).poll_frame(cx) };
            let result = match next {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        let data = data.clone();
                        self.bytes_since_cut += if is_cut { data.len() } else { 0 };
                        self.parse(&data);
                        let data = self.rewrite(data);
                        if data.is_empty() {
                            continue;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => self.on_end(Some(error)),
                Poll::Ready(None) => self.on_end(None),
                Poll::Pending => {
                    self.in_flight.poll_timer(cx);
                    if self.cut.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    match self.resumable.take() {
                        // The next release continues the subscription.
                        _ if self.subscription.as_ref().is_some_and(|it| it.is_reopening()) => {
                            self.body = None;
                            Ok(())
                        }
                        Some(resumable) if !resumable.session.is_removed() => {
                            self.detach(&resumable);
                            self.resumable = Some(resumable);
                            Ok(())
                        }
                        _ => self.finish(),
                    }
                }
            };
            if let Err(error) = result {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
