//! The body of a response, on its way to the client.
//!
//! The proxy parses each piece as it passes. Only a [`Rewriter`] holds an event until it is complete.
//! When the release is cut or fails in the middle, the proxy continues the stream elsewhere, or ends
//! it in a way that clients understand.

mod ending;
mod http_sse;
pub(super) mod ping;
pub(super) mod release_left;
mod rewriting;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame};
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mcp::messages::FailureReason;
use crate::mcp::scan::MessageScanner;
use crate::mcp::sse::SseReader;
use crate::mcp::{messages, sse};
use crate::proxy::backend::body::ReleaseBody;
use crate::proxy::exchange::cancellation::{Cancelled, cancelled};
use crate::proxy::exchange::endpoint_capture::EndpointCapture;
use crate::proxy::exchange::held_events::HeldByStream;
use crate::proxy::exchange::id_rewrite::Rewriter;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::replay::Replay;
use crate::proxy::exchange::request_place::RequestPlace;
use crate::proxy::exchange::response_body::ping::Ping;
use crate::proxy::exchange::resumable_stream::ResumableStream;
use crate::proxy::exchange::spliced_response::SplicedResponse;
use crate::proxy::exchange::sse_sessions::OpenSseSession;
use crate::proxy::exchange::state::ProxyState;
use crate::proxy::exchange::subscription::Subscription;
use crate::proxy::routing::router::Router;
use crate::proxy::session::{OpenStream, Session};

/// The bytes of a response without events that may still pass after the cut of its release.
const AFTER_CUT_BYTES_MAX: usize = 1024 * 1024;

/// A body that streams from a release.
#[derive(Debug)]
pub(in crate::proxy) struct ResponseBody {
    ready: VecDeque<Bytes>,
    body: Option<ReleaseBody>,
    reader: BodyParser,
    status: StatusCode,
    in_flight: InFlight,
    bytes_since_cut: usize,
    /// When the client took the last piece.
    handed_at: Option<Instant>,
    /// Whether the release broke a listening stream.
    stream_broken: bool,
    cut: Cancelled,
    rewriter: Option<Rewriter>,
    opening: Option<OpeningCapture>,
    on_release_left: OnReleaseLeft,
    ping: Ping,
    /// Keeps the session of a GET stream, also while that has no release.
    _open_stream: Option<OpenStream>,
    /// The place of the client's address.
    _place: RequestPlace,
    /// The start of a stream that may be a session of HTTP+SSE, until it is known.
    endpoint: Option<Box<EndpointCapture>>,
    /// The session that the stream is.
    sse_session: Option<OpenSseSession>,
    /// What the rewriter keeps of events. A stream without one never has it.
    held: Option<HeldByStream>,
}

/// How a stream continues when its release drains or is cut.
#[derive(Debug, Default)]
pub(in crate::proxy) enum OnReleaseLeft {
    /// It ends as its kind demands.
    #[default]
    End,
    /// The same for a GET stream that is not the one of a session that can move: it also ends when the
    /// proxy closes.
    Stay(Cancelled),
    /// The GET stream of a session: it waits until the session has moved, and continues there.
    Resume(Box<ResumableStream>),
    /// An idempotent POST: the proxy sends it to the next release.
    Replay(Box<Replay>),
    /// The proxy did so: the response of the next release follows.
    Splice(SplicedResponse),
    /// `subscriptions/listen`: the proxy opens it at the next release.
    Reopen(Box<Subscription>),
}

/// The `initialize` request whose response this stream carries.
#[derive(Debug)]
struct OpeningCapture {
    router: Arc<Router>,
    request: Bytes,
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

impl BodyParser {
    /// Whether it reads events, and all bytes so far end with a whole one.
    fn at_event_boundary(&self) -> bool {
        matches!(self, Self::Events(events) if events.at_event_boundary())
    }
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
        body: ReleaseBody,
        reader: BodyParser,
        status: StatusCode,
        in_flight: InFlight,
    ) -> Self {
        let is_stream =
            in_flight.kind() == ExchangeKind::GetStream && matches!(reader, BodyParser::Events(_));
        let session = in_flight.session.as_ref().filter(|_| is_stream);
        Self {
            _open_stream: session.map(Session::stream_opened),
            ready,
            body: Some(body),
            reader,
            status,
            bytes_since_cut: 0,
            handed_at: None,
            stream_broken: false,
            cut: cancelled(&in_flight.backend.cut),
            rewriter: None,
            opening: None,
            on_release_left: OnReleaseLeft::End,
            ping: Ping::new(in_flight.sse_ping),
            _place: RequestPlace::default(),
            endpoint: None,
            sse_session: None,
            held: None,
            in_flight,
        }
    }

    /// Adds the list changes of the session, and rewrites events as the session needs it.
    pub(in crate::proxy) fn with_session_events(mut self, state: &ProxyState) -> Self {
        if self.in_flight.clamp_ttl {
            self.set_rewriter(Some(Rewriter::clamping_ttl()), &state.held_events);
        }
        if self.in_flight.session.is_none() {
            return self;
        }
        let request = self.in_flight.initialize_body.take();
        let rewriter = Rewriter::new(self.in_flight.generation, request.is_some());
        self.set_rewriter(rewriter, &state.held_events);
        self.opening =
            request.map(|request| OpeningCapture { router: Arc::clone(&state.router), request });
        // A client with a listening stream gets them there.
        let session = self.in_flight.session.as_ref();
        if let Some(session) = session.filter(|session| session.listen_stream().is_none()) {
            let notifications = session.take_list_changes();
            self.ready
                .extend(notifications.iter().map(|notification| sse::encode_event(notification)));
        }
        self
    }

    /// Continues the GET stream when its session moves. One without such a session stays.
    pub(in crate::proxy) fn with_resumable(
        mut self,
        resumable: Option<Box<ResumableStream>>,
        end_streams: Cancelled,
    ) -> Self {
        self.on_release_left = OnReleaseLeft::Stay(end_streams);
        if let Some(resumable) = resumable {
            let generation = self.in_flight.generation;
            self.set_rewriter(Rewriter::new(generation, false), resumable.held_events());
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
            self.on_release_left = OnReleaseLeft::Resume(resumable);
        }
        self
    }

    /// Sets how the stream continues when its release is cut.
    pub(in crate::proxy) fn with_on_release_left(mut self, on_release_left: OnReleaseLeft) -> Self {
        self.on_release_left = on_release_left;
        self
    }

    /// Keeps the place of the client's address until the end.
    pub(in crate::proxy) fn set_place(&mut self, place: RequestPlace) {
        self._place = place;
    }

    fn parse(&mut self, data: &Bytes) {
        let (status, in_flight) = (self.status, &mut self.in_flight);
        let session = self.sse_session.as_ref();
        let on_message = |message| {
            in_flight.on_message(status, &message);
            session.iter().for_each(|session| session.on_message(&message, data));
        };
        match &mut self.reader {
            BodyParser::Json(scan) => scan.feed(data, on_message),
            BodyParser::Events(events) => events.feed(data, on_message),
            BodyParser::Unparsed => (),
        }
        in_flight.explain_failures(data);
    }
}

impl ResponseBody {
    /// Whether the client got everything.
    pub(in crate::proxy) fn is_finished(&self) -> bool {
        let has_more = match &self.on_release_left {
            OnReleaseLeft::End | OnReleaseLeft::Stay(_) | OnReleaseLeft::Replay(_) => {
                self.body.is_some()
            }
            OnReleaseLeft::Reopen(subscription) => {
                self.body.is_some() || subscription.is_reopening()
            }
            OnReleaseLeft::Resume(_) | OnReleaseLeft::Splice(_) => true,
        };
        !has_more && self.ready.is_empty() && self.holds_nothing()
    }

    /// Continues the stream elsewhere after the cut of its release, or ends it.
    fn on_cut(&mut self) -> io::Result<()> {
        match &self.on_release_left {
            // The next release continues the subscription.
            OnReleaseLeft::Reopen(subscription) if subscription.is_reopening() => {
                self.body = None;
                Ok(())
            }
            OnReleaseLeft::Resume(stream) if !stream.session.is_removed() => {
                let session = Arc::clone(&stream.session);
                self.detach(&session, FailureReason::Rollback);
                Ok(())
            }
            _ => self.finish(),
        }
    }

    /// The next frame.
    pub(in crate::proxy) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(handed_at) = self.handed_at.take() {
            self.in_flight.client_came_back(handed_at);
        }
        let next = self.poll_content(cx);
        if next.is_ready() {
            self.ping.on_data();
            self.handed_at = matches!(next, Poll::Ready(Some(Ok(_)))).then(monotonic);
            return next;
        }
        if self.in_flight.client.as_ref().is_some_and(|it| it.half_closed_at().is_some()) {
            self.ping.probe();
        }
        if self.accepts_comment() && self.ping.poll(cx).is_ready() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(ping::COMMENT)))));
        }
        next
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if self.held.as_ref().is_some_and(|held| held.has_ended(cx.waker())) {
                self.end_over_limit();
            }
            let held = self.held.as_mut().and_then(HeldByStream::next_piece);
            if let Some(data) = held.or_else(|| self.ready.pop_front()) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match std::task::ready!(self.poll_side_input(cx)) {
                SideInput::Idle => (),
                SideInput::Changed => continue,
                SideInput::Frame(next) => return Poll::Ready(Some(next)),
            }
            if self.push_sse_event(cx) {
                continue;
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
                        let data = self.learn_endpoint(data);
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
                    if self.in_flight.poll_unwanted(cx).is_ready() {
                        self.on_release_left = OnReleaseLeft::End;
                        self.finish()
                    } else if self.cut.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    } else {
                        self.on_cut()
                    }
                }
            };
            if let Err(error) = result {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
