//! The GET stream of a session: it stays open while the session moves between releases.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::proxy::backend::body::BackendBody;
use crate::proxy::backend::{Backend, headers};
use crate::proxy::exchange::error_response::ClientBody;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::exchange::in_flight::InFlight;
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::session::{ResumeAt, Session};

/// Attempts to open the stream at another release, the time limit of each, and the first pause.
const OPEN_ATTEMPTS: u32 = 6;
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(100);

type OpenFuture = Pin<Box<dyn Future<Output = Option<Incoming>> + Send>>;
type ReplayFuture = Pin<Box<dyn Future<Output = Response<ClientBody>> + Send>>;

/// The GET stream of a session.
pub(in crate::proxy) struct ResumableStream {
    /// The session.
    pub session: Arc<Session>,
    state: Arc<ProxyState>,
    moves: mpsc::Receiver<ResumeAt>,
    opening: Option<OpenFuture>,
    end_streams: Pin<Box<WaitForCancellationFutureOwned>>,
    release_left: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What happens to a resumable stream.
pub(in crate::proxy) enum StreamEvent {
    /// Its session moved.
    Moved(Box<ResumeAt>),
    /// The next release opened it.
    Reopened(Incoming),
    /// Its release drains: list changes make the client send requests, and so move its session.
    ReleaseLeft,
    /// Its session was removed, or the proxy closes.
    Ended,
    /// The client opened another stream for the session.
    Replaced,
}

impl ResumableStream {
    /// The stream of an exchange; `None` without a session that can move.
    pub(in crate::proxy) fn new(
        state: &Arc<ProxyState>,
        in_flight: &InFlight,
    ) -> Option<Box<Self>> {
        let session = Arc::clone(in_flight.session.as_ref()?);
        session.snapshot()?;
        let (sender, moves) = mpsc::channel(2);
        session.set_listen_stream(sender);
        let end_streams = Box::pin(state.end_streams.clone().cancelled_owned());
        let release_left = Some(cancelled(&in_flight.backend.draining));
        let state = Arc::clone(state);
        Some(Box::new(Self { session, state, moves, opening: None, end_streams, release_left }))
    }

    /// The next event.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StreamEvent> {
        if self.end_streams.as_mut().poll(cx).is_ready() {
            return Poll::Ready(StreamEvent::Ended);
        }
        match self.moves.poll_recv(cx) {
            Poll::Ready(Some(resume_at)) => {
                return Poll::Ready(StreamEvent::Moved(Box::new(resume_at)));
            }
            Poll::Ready(None) if self.session.is_removed() => {
                return Poll::Ready(StreamEvent::Ended);
            }
            Poll::Ready(None) => return Poll::Ready(StreamEvent::Replaced),
            Poll::Pending => (),
        }
        if let Some(opening) = &mut self.opening
            && let Poll::Ready(body) = opening.as_mut().poll(cx)
        {
            self.opening = None;
            if let Some(body) = body {
                return Poll::Ready(StreamEvent::Reopened(body));
            }
        }
        if self
            .release_left
            .as_mut()
            .is_some_and(|release_left| release_left.as_mut().poll(cx).is_ready())
        {
            self.release_left = None;
            if self.session.pin_reason(self.state.pinned_reason()).is_none() {
                return Poll::Ready(StreamEvent::ReleaseLeft);
            }
        }
        Poll::Pending
    }

    /// Opens the stream at another release, and returns the new exchange.
    pub(in crate::proxy) fn resume(&mut self, resume_at: ResumeAt) -> InFlight {
        let ResumeAt { backend, head, generation } = resume_at;
        let deadline = self.state.service.load().limits.deadline;
        let kind = crate::proxy::exchange::in_flight::ExchangeKind::GetStream;
        let mut in_flight = InFlight::new(
            Arc::clone(&backend),
            kind,
            RequestBody::default().parsed(),
            None,
            deadline,
        );
        in_flight.session = Some(Arc::clone(&self.session));
        in_flight.generation = generation;
        self.release_left = Some(cancelled(&backend.draining));
        self.opening = Some(Box::pin(open_with_retry(backend, head)));
        in_flight
    }
}

/// Opens a stream, with retries while the release does not respond or fails.
async fn open_with_retry(backend: Arc<Backend>, head: request::Parts) -> Option<Incoming> {
    let mut delay = OPEN_RETRY_DELAY;
    for _ in 0..OPEN_ATTEMPTS {
        let request = Request::from_parts(head.clone(), BackendBody::default());
        let sending = tokio::time::timeout(OPEN_TIMEOUT, backend.send(request));
        if let Ok(Ok(response)) = sending.await
            && !response.status().is_server_error()
        {
            let is_events =
                response.status().is_success() && headers::is_event_stream(response.headers());
            // A server need not have a GET stream: the client's stream stays open.
            return is_events.then(|| response.into_body());
        }
        tokio::time::sleep(delay).await;
        delay *= 2;
    }
    None
}

fn cancelled(token: &CancellationToken) -> Pin<Box<WaitForCancellationFutureOwned>> {
    Box::pin(token.clone().cancelled_owned())
}

/// A request that can be sent to another release although its response already streams.
pub(in crate::proxy) struct Replay {
    state: Arc<ProxyState>,
    peer: IpAddr,
    head: request::Parts,
    body: Bytes,
}

impl Replay {
    /// `None` when a replay is not safe or not possible.
    pub(in crate::proxy) fn new(
        state: &Arc<ProxyState>,
        peer: IpAddr,
        head: &request::Parts,
        request_body: &RequestBody,
        in_flight: &InFlight,
    ) -> Option<Self> {
        let body = request_body
            .buffered()
            .filter(|_| in_flight.is_idempotent() && in_flight.initialize_body.is_none())?;
        let (state, head, body) = (Arc::clone(state), head.clone(), body.clone());
        Some(Self { state, peer, head, body })
    }

    /// Sends the request again.
    pub(in crate::proxy) fn send(self) -> ReplayFuture {
        let Self { state: front, peer, head, body } = self;
        Box::pin(async move {
            front.forward_with_retry(peer, head, RequestBody::from_bytes(body)).await
        })
    }
}

/// The response of another release, inside a stream that the first release started.
pub(in crate::proxy) enum SplicedResponse {
    /// The request was sent.
    Requested(ReplayFuture),
    /// The response is a stream of events.
    Events(Box<ClientBody>),
    /// The response is JSON; these bytes arrived.
    Json(Box<ClientBody>, Vec<u8>),
    /// It ended.
    Over,
}

/// The largest JSON response that becomes an event.
const JSON_EVENT_MAX: usize = 4 * 1024 * 1024;

impl SplicedResponse {
    /// The next bytes. An error: there is no response. Nothing follows an error or the end.
    pub(in crate::proxy) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ()>>> {
        loop {
            let last = match self {
                Self::Requested(response_future) => {
                    let response = std::task::ready!(response_future.as_mut().poll(cx));
                    let is_events = headers::is_event_stream(response.headers());
                    let is_success = response.status().is_success();
                    let body = Box::new(response.into_body());
                    let next = match (is_success, is_events) {
                        (true, true) => Self::Events(body),
                        (true, false) => Self::Json(body, Vec::new()),
                        (false, _) => Self::Over,
                    };
                    *self = next;
                    if is_success {
                        continue;
                    }
                    Some(Err(()))
                }
                Self::Events(body) => match std::task::ready!(body.as_mut().poll_frame_unpin(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(data))),
                        Err(_) => continue,
                    },
                    Some(Err(_)) => Some(Err(())),
                    None => None,
                },
                Self::Json(body, text) => {
                    match std::task::ready!(body.as_mut().poll_frame_unpin(cx)) {
                        Some(Ok(frame)) => {
                            text.extend(frame.data_ref().into_iter().flatten());
                            if text.len() <= JSON_EVENT_MAX {
                                continue;
                            }
                            Some(Err(()))
                        }
                        Some(Err(_)) => Some(Err(())),
                        None => event(std::mem::take(text)).map(Ok),
                    }
                }
                Self::Over => None,
            };
            *self = Self::Over;
            return Poll::Ready(last);
        }
    }
}

/// An event with this JSON; `None` for an empty text.
fn event(mut text: Vec<u8>) -> Option<Bytes> {
    // Between JSON tokens a line end equals a space.
    let line = |byte: &u8| matches!(byte, b'\n' | b'\r');
    text.iter_mut().filter(|it| line(it)).for_each(|it| *it = b' ');
    let event = [b"event: message\ndata: ", text.as_slice(), b"\n\n"];
    (!text.is_empty()).then(|| Bytes::from(event.concat()))
}

impl ClientBody {
    fn poll_frame_unpin(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        Pin::new(self).poll_frame(cx)
    }
}

impl std::fmt::Debug for ResumableStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumableStream").field("session", &self.session).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the head: it may hold credentials.
        f.write_str("Replay")
    }
}

impl std::fmt::Debug for SplicedResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SplicedResponse")
    }
}
