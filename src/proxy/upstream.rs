//! One release as the proxy sees it: how to reach it, what it carries, and when it has to be left.

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
use crate::model::{Number, Toll};

use super::repeat::{Repeats, Safe};
use super::states::States;
use super::tally::Tally;
use super::upload::Upload;

/// How long a connection to a release may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Between two tries to reach a release that is still being started.
const AGAIN: Duration = Duration::from_millis(50);
/// Below the keep-alive of common servers (Node and uvicorn close after 5 s), so that a request
/// does not meet a connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Limits of an answer's head.
const HEADERS_MAX: usize = 128;
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One release, reachable.
#[derive(Debug)]
pub(super) struct Upstream {
    /// The release.
    pub number: Number,
    /// What becomes of its requests.
    pub tally: Tally,
    /// Sends requests to it.
    pub client: Client<Connector, Upload>,
    /// Where it is.
    pub address: Address,
    /// Whether it may still be about to listen.
    awaited: Arc<Awaited>,
    /// `Host` of requests to it.
    pub authority: String,
    /// Fires when nothing new should stay: what can go elsewhere does.
    pub left: CancellationToken,
    /// Fires when what is open has to be answered by the proxy.
    pub cut: CancellationToken,
    /// Open requests, without streams that only listen.
    pub in_flight: AtomicU64,
    /// Open streams: GET, and `subscriptions/listen`.
    pub streams: AtomicU64,
    /// Open `subscriptions/listen` streams, which count as sessions.
    pub listens: AtomicU64,
    /// What is safe to repeat.
    pub safe: Arc<Safe>,
    /// Which release sealed which state.
    pub states: Arc<States>,
    /// What is kept of it for repeats, and what became of repeats sent here.
    pub repeats: Repeats,
    answered: AtomicU64,
    closed: AtomicU64,
    replayed: AtomicU64,
    lost: AtomicU64,
    moved: AtomicU64,
    unheard: AtomicU64,
}

impl Upstream {
    /// Reaches a release at its slot's address. No connection is made yet.
    pub(super) fn new(
        number: Number,
        address: Address,
        safe: Arc<Safe>,
        states: Arc<States>,
    ) -> Self {
        let authority = match &address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let awaited = Arc::<Awaited>::default();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(256)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(Connector { address: address.clone(), awaited: Arc::clone(&awaited) });
        Self {
            number,
            address,
            awaited,
            tally: Tally::new(Arc::clone(&safe)),
            client,
            authority,
            left: CancellationToken::new(),
            cut: CancellationToken::new(),
            in_flight: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            listens: AtomicU64::new(0),
            safe,
            states,
            repeats: Repeats::default(),
            answered: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
        }
    }

    /// It may be about to listen, until then: requests wait for its first connection.
    pub(super) fn await_start(&self, until: Instant) {
        // Told once, when the daemon starts.
        let _ = self.awaited.until.set(until);
    }

    /// Notes that the proxy answered a request itself because the release was left.
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the proxy closed a stream because the release was left.
    pub(super) fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a `subscriptions/listen` stream, which counts as a session, could not go on.
    pub(super) fn unheard(&self) {
        self.unheard.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an open request was asked again of the release that took over.
    pub(super) fn replayed(&self) {
        self.replayed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that an answer broke off where none of ours could be put in.
    pub(super) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a session moved to another release.
    pub(super) fn moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// What leaving it cost so far, but for the sessions that are there.
    pub(super) fn toll(&self) -> Toll {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Toll {
            answered: read(&self.answered),
            streams: read(&self.closed),
            replayed: read(&self.replayed),
            lost: read(&self.lost),
            moved: read(&self.moved),
            ended: read(&self.unheard),
            ..Toll::default()
        }
    }

    /// Whether it was not cut.
    pub(super) fn is_open(&self) -> bool {
        !self.cut.is_cancelled()
    }

    /// Whether nothing is open.
    pub(super) fn empty(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && self.streams.load(Ordering::Relaxed) == 0
    }
}

/// Opens connections to one address, whatever the URI says.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    address: Address,
    awaited: Arc<Awaited>,
}

/// How long a release that nobody reached yet may refuse connections.
#[derive(Debug, Default)]
struct Awaited {
    until: OnceLock<Instant>,
    reached: AtomicBool,
}

/// A connection to a release.
#[derive(Debug)]
pub(super) enum Stream {
    /// To a TCP port.
    Tcp(TcpStream),
    /// To a unix socket.
    Unix(UnixStream),
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, awaited } = self.clone();
        Box::pin(async move {
            loop {
                let stream = tokio::time::timeout(CONNECT_MAX, connect(&address)).await;
                match stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Err(error) if awaited.excuses(&error) => tokio::time::sleep(AGAIN).await,
                    Err(error) => return Err(error),
                    Ok(stream) => {
                        awaited.reached.store(true, Ordering::Relaxed);
                        return Ok(TokioIo::new(stream));
                    }
                }
            }
        })
    }
}

async fn connect(address: &Address) -> io::Result<Stream> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        }
        Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
    })
}

impl Awaited {
    /// Whether nobody listens yet, and somebody may soon. Nothing was sent: it is safe to try again.
    fn excuses(&self, error: &io::Error) -> bool {
        let absent =
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
        let due = self.until.get().is_some_and(|until| Instant::now() < *until);
        absent && due && !self.reached.load(Ordering::Relaxed)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
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

impl AsyncWrite for Stream {
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
