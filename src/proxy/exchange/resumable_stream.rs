//! The GET stream of a session: it stays open while the session moves between releases, and while its
//! release restarts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, request};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mcp::headers::is_readable_stream;
use crate::proxy::backend::Backend;
use crate::proxy::backend::body::{BackendBody, ReleaseBody, decoded};
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::cancellation::{Cancelled, cancelled};
use crate::proxy::exchange::ended_stream::is_stopping;
use crate::proxy::exchange::held_events::HeldEvents;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::parsed_body::SharedParse;
use crate::proxy::exchange::state::ProxyState;
use crate::proxy::exchange::take_up::BrokenStream;
use crate::proxy::session::{ResumeAt, Session, StreamCommand};

/// Attempts to open the stream at another release, the time limit of each, and the first pause.
const OPEN_ATTEMPTS: u32 = 6;
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// A stream that breaks again so soon after it was taken up waits longer.
pub(super) const REPEATED_WITHIN: Duration = Duration::from_secs(10);

type TakeUpFuture = Pin<Box<dyn Future<Output = Option<(ReleaseBody, Arc<Backend>)>> + Send>>;
type WatchFuture = Pin<Box<dyn Future<Output = bool> + Send>>;
type OpenFuture = Pin<Box<dyn Future<Output = Option<ReleaseBody>> + Send>>;

/// The GET stream of a session.
pub(in crate::proxy) struct ResumableStream {
    /// The session.
    pub session: Arc<Session>,
    state: Arc<ProxyState>,
    request: Arc<ClientRequest>,
    commands: mpsc::Receiver<StreamCommand>,
    opening: Option<OpenFuture>,
    /// Its release ended it: whether it stops.
    ended: Option<WatchFuture>,
    /// Its release broke it: the attempts to open it again.
    taking_up: Option<TakeUpFuture>,
    taken_up_at: Option<Instant>,
    /// The id of the last event of this release, where the stream has broken before.
    last_event_id: Option<HeaderValue>,
    end_streams: Cancelled,
    release_left: Option<Cancelled>,
}

/// What happens to a resumable stream.
pub(in crate::proxy) enum StreamEvent {
    /// Its session moved.
    Moved(Box<ResumeAt>),
    /// The next release opened it.
    Reopened(ReleaseBody),
    /// It continues after its release broke it.
    TakenUp(ReleaseBody, Box<InFlight>),
    /// It could not be taken up again.
    NotTakenUp,
    /// Its release ended it, and goes on: the client's stream ends as well.
    ReleaseEnded,
    /// Its release ended it, and stops.
    ReleaseStopped,
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
        request: &Arc<ClientRequest>,
        in_flight: &InFlight,
    ) -> Option<Box<Self>> {
        let session = Arc::clone(in_flight.session.as_ref()?);
        session.snapshot()?;
        let (sender, commands) = mpsc::channel(2);
        session.set_listen_stream(sender);
        let end_streams = cancelled(&state.end_streams);
        let release_left = Some(cancelled(&in_flight.backend.draining));
        let (state, request) = (Arc::clone(state), Arc::clone(request));
        let (opening, ended) = (None, None);
        let (taking_up, taken_up_at, last_event_id) = (None, None, None);
        Some(Box::new(Self {
            session,
            state,
            request,
            commands,
            opening,
            ended,
            taking_up,
            taken_up_at,
            last_event_id,
            end_streams,
            release_left,
        }))
    }

    /// What the streams of the service keep of events.
    pub(in crate::proxy) fn held_events(&self) -> &Arc<HeldEvents> {
        &self.state.held_events
    }

    /// What ends the stream when the proxy closes.
    pub(in crate::proxy) fn into_end_streams(self) -> Cancelled {
        self.end_streams
    }

    /// The release ended the stream: watches whether it stops.
    pub(in crate::proxy) fn watch_end(&mut self, backend: &Arc<Backend>, generation: u32) {
        let (backend, session) = (Arc::clone(backend), Arc::clone(&self.session));
        self.ended = Some(Box::pin(is_stopping(backend, session, generation)));
    }

    /// Whether its release ended it a moment ago, and may stop.
    pub(in crate::proxy) fn is_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The release broke the stream: opens it again as soon as the release, or another one, serves. The
    /// id is that of the last event since it was opened.
    pub(in crate::proxy) fn take_up(&mut self, generation: u32, last_event_id: Option<&[u8]>) {
        // One that broke again before its first event continues where it broke before.
        let last_event_id = last_event_id.and_then(|id| HeaderValue::from_bytes(id).ok());
        self.last_event_id = last_event_id.or(self.last_event_id.take());
        let broken = BrokenStream {
            state: Arc::clone(&self.state),
            session: Arc::clone(&self.session),
            request: Arc::clone(&self.request),
            generation,
            // A release that breaks each stream is not asked all the time.
            is_repeated: self.taken_up_at.is_some_and(|at| at.elapsed() < REPEATED_WITHIN),
            last_event_id: self.last_event_id.clone(),
        };
        self.taking_up = Some(Box::pin(broken.take_up()));
    }

    /// The next event.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StreamEvent> {
        if self.end_streams.as_mut().poll(cx).is_ready() {
            return Poll::Ready(StreamEvent::Ended);
        }
        match self.commands.poll_recv(cx) {
            Poll::Ready(Some(StreamCommand::Resume(resume_at))) => {
                return Poll::Ready(StreamEvent::Moved(resume_at));
            }
            Poll::Ready(Some(StreamCommand::End)) => return Poll::Ready(StreamEvent::Ended),
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
        if let Some(ended) = &mut self.ended
            && let Poll::Ready(is_stopping) = ended.as_mut().poll(cx)
        {
            self.ended = None;
            return Poll::Ready(match is_stopping {
                true => StreamEvent::ReleaseStopped,
                false => StreamEvent::ReleaseEnded,
            });
        }
        if let Some(taking_up) = &mut self.taking_up
            && let Poll::Ready(taken_up) = taking_up.as_mut().poll(cx)
        {
            self.taking_up = None;
            self.taken_up_at = Some(monotonic());
            return Poll::Ready(match taken_up {
                Some((body, backend)) => {
                    let generation = self.session.generation();
                    StreamEvent::TakenUp(body, Box::new(self.start_at(&backend, generation)))
                }
                None => StreamEvent::NotTakenUp,
            });
        }
        if self
            .release_left
            .as_mut()
            .is_some_and(|release_left| release_left.as_mut().poll(cx).is_ready())
        {
            self.release_left = None;
            if self.session.pin_reason(self.state.router.view.load().pinned_reason()).is_none() {
                return Poll::Ready(StreamEvent::ReleaseLeft);
            }
        }
        Poll::Pending
    }

    /// Opens the stream at another release, and returns the new exchange. `None` if the release has
    /// been removed meanwhile.
    pub(in crate::proxy) fn resume(&mut self, resume_at: ResumeAt) -> Option<InFlight> {
        let ResumeAt { release, head, generation } = resume_at;
        let backend = self.state.router.view.load().routes.get(release).cloned()?;
        let in_flight = self.start_at(&backend, generation);
        (self.ended, self.taking_up) = (None, None);
        // The next release does not know the events of this one.
        self.last_event_id = None;
        self.opening = Some(Box::pin(open_with_retry(backend, head)));
        Some(in_flight)
    }

    /// Starts to track the stream at a release.
    fn start_at(&mut self, backend: &Arc<Backend>, generation: u32) -> InFlight {
        let view = self.state.router.view.load();
        let mut in_flight = InFlight::new(
            Arc::clone(backend),
            ExchangeKind::GetStream,
            SharedParse::default(),
            Arc::clone(&self.state.router.request_states),
            &view.service.limits,
        );
        in_flight.session = Some(Arc::clone(&self.session));
        in_flight.generation = generation;
        self.release_left = Some(cancelled(&backend.draining));
        in_flight
    }
}

/// Opens a stream, with retries while the release does not respond or fails.
async fn open_with_retry(backend: Arc<Backend>, head: request::Parts) -> Option<ReleaseBody> {
    let mut delay = OPEN_RETRY_DELAY;
    for _ in 0..OPEN_ATTEMPTS {
        let request = Request::from_parts(head.clone(), BackendBody::default());
        let sending = tokio::time::timeout(OPEN_TIMEOUT, backend.send(request));
        if let Ok(Ok(response)) = sending.await
            && !response.status().is_server_error()
        {
            let response = decoded(response);
            let is_events =
                response.status().is_success() && is_readable_stream(response.headers());
            // A server need not have a GET stream: the client's stream stays open.
            return is_events.then(|| response.into_body());
        }
        tokio::time::sleep(delay).await;
        delay *= 2;
    }
    None
}

impl std::fmt::Debug for ResumableStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumableStream").field("session", &self.session).finish_non_exhaustive()
    }
}
