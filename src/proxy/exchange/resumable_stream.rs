//! The GET stream of a session: it stays open while the session moves between releases.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, request};
use tokio::sync::mpsc;

use crate::mcp::headers::is_readable_stream;
use crate::proxy::backend::Backend;
use crate::proxy::backend::body::{BackendBody, ReleaseBody, decoded};
use crate::proxy::exchange::cancellation::{Cancelled, cancelled};
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::parsed_body::SharedParse;
use crate::proxy::exchange::state::ProxyState;
use crate::proxy::session::{ResumeAt, Session, StreamCommand};

/// Attempts to open the stream at another release, the time limit of each, and the first pause.
const OPEN_ATTEMPTS: u32 = 6;
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
const OPEN_RETRY_DELAY: Duration = Duration::from_millis(100);

type OpenFuture = Pin<Box<dyn Future<Output = Option<ReleaseBody>> + Send>>;

/// The GET stream of a session.
pub(in crate::proxy) struct ResumableStream {
    /// The session.
    pub session: Arc<Session>,
    state: Arc<ProxyState>,
    commands: mpsc::Receiver<StreamCommand>,
    opening: Option<OpenFuture>,
    end_streams: Cancelled,
    release_left: Option<Cancelled>,
}

/// What happens to a resumable stream.
pub(in crate::proxy) enum StreamEvent {
    /// Its session moved.
    Moved(Box<ResumeAt>),
    /// The next release opened it.
    Reopened(ReleaseBody),
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
        let (sender, commands) = mpsc::channel(2);
        session.set_listen_stream(sender);
        let end_streams = cancelled(&state.end_streams);
        let release_left = Some(cancelled(&in_flight.backend.draining));
        let state = Arc::clone(state);
        Some(Box::new(Self { session, state, commands, opening: None, end_streams, release_left }))
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
        let view = self.state.router.view.load();
        let backend = view.routes.get(release).cloned()?;
        let mut in_flight = InFlight::new(
            Arc::clone(&backend),
            ExchangeKind::GetStream,
            SharedParse::default(),
            Arc::clone(&self.state.router.request_states),
            &view.service.limits,
        );
        in_flight.session = Some(Arc::clone(&self.session));
        in_flight.generation = generation;
        self.release_left = Some(cancelled(&backend.draining));
        self.opening = Some(Box::pin(open_with_retry(backend, head)));
        Some(in_flight)
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
