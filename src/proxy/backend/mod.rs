//! One release as the proxy sees it: how to reach it, what it carries, and when it has to be left.

pub(super) mod headers;
pub(super) mod outcome_counters;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Address;
use crate::model::{DrainCost, ReleaseNumber};
use crate::proxy::backend::outcome_counters::OutcomeCounters;
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::routing::request_states::RequestStates;
use crate::proxy::shadow::samples::{FailedSamples, ReadOnlyTools};

/// How long a connection to a release may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to reach a release that is still being started.
const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Below the keep-alive of common servers (Node and uvicorn close after 5 s), so that a request
/// does not meet a connection that is just being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Limits of an answer's head.
const HEADERS_MAX: usize = 128;
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One release, reachable.
#[derive(Debug)]
pub(super) struct Backend {
    /// The release.
    pub number: ReleaseNumber,
    /// What becomes of its requests.
    pub outcomes: OutcomeCounters,
    /// Sends requests to it.
    pub client: Client<Connector, RequestBody>,
    /// Where it is.
    pub address: Address,
    /// Whether it may still be about to listen.
    startup_grace: Arc<StartupGrace>,
    /// `DaemonHarness` of requests to it.
    pub authority: String,
    /// Fires when nothing new should stay: what can go elsewhere does.
    pub draining: CancellationToken,
    /// Fires when what is open has to be answered by the proxy.
    pub cut: CancellationToken,
    /// Open requests, without streams that only listen.
    pub in_flight_requests: AtomicU64,
    /// Open streams: GET, and `subscriptions/listen`.
    pub open_streams: AtomicU64,
    /// Open `subscriptions/listen` streams, which count as sessions.
    pub subscriptions: AtomicU64,
    /// What is safe to repeat.
    pub read_only_tools: Arc<ReadOnlyTools>,
    /// Which release sealed which state.
    pub request_states: Arc<RequestStates>,
    /// What is kept of it for repeats, and what became of repeats sent here.
    pub samples: FailedSamples,
    error_responses: AtomicU64,
    closed_streams: AtomicU64,
    replayed_requests: AtomicU64,
    truncated_responses: AtomicU64,
    migrated_sessions: AtomicU64,
    ended_subscriptions: AtomicU64,
}

impl Backend {
    /// Reaches a release at its slot's address. No connection is made yet.
    pub(super) fn new(
        number: ReleaseNumber,
        address: Address,
        read_only_tools: Arc<ReadOnlyTools>,
        request_states: Arc<RequestStates>,
    ) -> Self {
        let authority = match &address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let startup_grace = Arc::<StartupGrace>::default();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(256)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(Connector {
                address: address.clone(),
                startup_grace: Arc::clone(&startup_grace),
            });
        Self {
            number,
            address,
            startup_grace,
            outcomes: OutcomeCounters::new(Arc::clone(&read_only_tools)),
            client,
            authority,
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            in_flight_requests: AtomicU64::new(0),
            open_streams: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            read_only_tools,
            request_states,
            samples: FailedSamples::default(),
            error_responses: AtomicU64::new(0),
            closed_streams: AtomicU64::new(0),
            replayed_requests: AtomicU64::new(0),
            truncated_responses: AtomicU64::new(0),
            migrated_sessions: AtomicU64::new(0),
            ended_subscriptions: AtomicU64::new(0),
        }
    }

    /// It may be about to listen, until then: requests wait for its first connection.
    pub(super) fn set_startup_deadline(&self, until: Instant) {
        // Told once, when the daemon starts.
        let _ = self.startup_grace.until.set(until);
    }

    /// Notes that the proxy answered a request itself because the release was left.
    pub(super) fn count_error_response(&self) {
        self.error_responses.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the proxy closed a stream because the release was left.
    pub(super) fn count_closed_stream(&self) {
        self.closed_streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a `subscriptions/listen` stream, which counts as a session, could not go on.
    pub(super) fn count_ended_subscription(&self) {
        self.ended_subscriptions.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an open request was asked again of the release that took over.
    pub(super) fn count_replayed_request(&self) {
        self.replayed_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an answer broke off where none of ours could be put in.
    pub(super) fn count_truncated_response(&self) {
        self.truncated_responses.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a session moved to another release.
    pub(super) fn count_migrated_session(&self) {
        self.migrated_sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// What leaving it cost so far, but for the sessions that are there.
    pub(super) fn drain_cost(&self) -> DrainCost {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        DrainCost {
            error_responses: read(&self.error_responses),
            streams_closed: read(&self.closed_streams),
            requests_replayed: read(&self.replayed_requests),
            responses_lost: read(&self.truncated_responses),
            sessions_migrated: read(&self.migrated_sessions),
            sessions_ended: read(&self.ended_subscriptions),
            ..DrainCost::default()
        }
    }

    /// Whether it was not cut.
    pub(super) fn is_open(&self) -> bool {
        !self.cut.is_cancelled()
    }

    /// Whether nothing is open.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight_requests.load(Ordering::Relaxed) == 0
            && self.open_streams.load(Ordering::Relaxed) == 0
    }
}

/// Opens connections to one address, whatever the URI says.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    address: Address,
    startup_grace: Arc<StartupGrace>,
}

/// How long a release that nobody reached yet may refuse connections.
#[derive(Debug, Default)]
struct StartupGrace {
    until: OnceLock<Instant>,
    was_connected: AtomicBool,
}

/// A connection to a release.
#[derive(Debug)]
pub(super) enum BackendStream {
    /// To a TCP port.
    Tcp(TcpStream),
    /// To a unix socket.
    Unix(UnixStream),
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<BackendStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<BackendStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, startup_grace: awaited } = self.clone();
        Box::pin(async move {
            loop {
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect(&address)).await;
                match stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Err(error) if awaited.covers(&error) => {
                        tokio::time::sleep(CONNECT_RETRY_DELAY).await
                    }
                    Err(error) => return Err(error),
                    Ok(stream) => {
                        awaited.was_connected.store(true, Ordering::Relaxed);
                        return Ok(TokioIo::new(stream));
                    }
                }
            }
        })
    }
}

async fn connect(address: &Address) -> io::Result<BackendStream> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            BackendStream::Tcp(stream)
        }
        Address::Unix(path) => BackendStream::Unix(UnixStream::connect(path).await?),
    })
}

impl StartupGrace {
    /// Whether nobody listens yet, and somebody may soon. Nothing was sent: it is safe to try again.
    fn covers(&self, error: &io::Error) -> bool {
        let is_not_listening =
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
        let in_grace = self.until.get().is_some_and(|until| Instant::now() < *until);
        is_not_listening && in_grace && !self.was_connected.load(Ordering::Relaxed)
    }
}

impl Connection for BackendStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
