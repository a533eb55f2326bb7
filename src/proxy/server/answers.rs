//! The responses that are on their way to one client. One that the client does not read, or reads too
//! slowly, ends, so that it holds no memory and no request of the release.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::config::ProxyLimits;
use crate::mutex::lock;
use crate::proxy::backend::client_connection::ClientConnectionState;
use crate::proxy::exchange::client_body::ClientBody;
use crate::proxy::server::connections::{ConnectionInFlight, OpenRequests};

/// Streams that are tracked before those that ended are removed.
const STREAMS_SLACK: usize = 128;
/// How many times the progress is compared within the time limit.
const CHECKS: u32 = 8;

/// The responses of one connection.
#[derive(Debug)]
pub(in crate::proxy) struct Answers {
    timeout: Duration,
    /// Bytes that a client must take within `timeout`.
    bytes_min: u64,
    open: OpenRequests,
    client: Arc<ClientConnectionState>,
    /// The progress of an HTTP/1 connection, which has one response at a time.
    progress: Arc<Progress>,
    /// The streams of an HTTP/2 connection.
    streams: Mutex<Vec<Weak<Stream>>>,
    /// Its place is needed.
    closing: Notify,
    is_closing: AtomicBool,
    is_abandoned: AtomicBool,
}

/// Whether a client reads a response.
#[derive(Debug)]
struct Progress {
    since: Instant,
    /// Milliseconds from `since` until the connection last polled the body.
    asked_at: AtomicU64,
    /// Whether the release must send the next piece.
    waits_on_release: AtomicBool,
    /// Milliseconds before `asked_at` in which the client owed a read.
    owed: AtomicU64,
    /// Bytes that it took in that time, and those that it was given at `asked_at`.
    taken: AtomicU64,
    given: AtomicU64,
}

/// The response on one stream of HTTP/2.
#[derive(Debug)]
struct Stream {
    progress: Progress,
    bytes_min: u64,
    /// `None` after it was abandoned.
    body: Mutex<Option<ClientBody>>,
}

/// A response body; its request counts as open until it is dropped.
#[derive(Debug)]
pub(super) struct CountedBody {
    content: Content,
    _in_flight: ConnectionInFlight,
}

#[derive(Debug)]
enum Content {
    Http1(ClientBody, Arc<Progress>, u64),
    Http2(Arc<Stream>),
}

impl Answers {
    /// A connection whose responses may be unread for the time that these limits have.
    pub(super) fn new(
        limits: &ProxyLimits,
        open: OpenRequests,
        client: Arc<ClientConnectionState>,
    ) -> Self {
        let timeout = limits.unread_timeout;
        Self {
            timeout,
            bytes_min: limits.min_rate.saturating_mul(timeout.as_secs()).max(1),
            open,
            client,
            progress: Arc::default(),
            streams: Mutex::default(),
            closing: Notify::new(),
            is_closing: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
        }
    }

    /// A request begins: until its response there is nothing to read.
    pub(super) fn begin_request(&self) {
        self.progress.restart();
    }

    /// How many requests are open.
    pub(super) fn open_requests(&self) -> usize {
        self.open.count()
    }

    /// How long the connection has had no open request; `None` while it has one, or closes.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let idle = !self.open.any() && !self.is_closing();
        idle.then(|| self.progress.since.elapsed().saturating_sub(self.progress.asked_at()))
    }

    /// How long the client of HTTP/1 has sent too little of a body, or taken too little of a response;
    /// `None` where it owes nothing.
    pub(super) fn owed_for(&self) -> Option<Duration> {
        let is_open = self.open.any() && !self.is_closing();
        is_open.then(|| self.client.body_owed_for().or_else(|| self.progress.unread_for()))?
    }

    /// Closes the connection with its request: its place is needed, and its client is slow.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        self.close();
    }

    /// Whether the connection closes with its request.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    /// Whether its place is needed.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// Closes the connection as soon as it is idle: its place is needed.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        self.closing.notify_one();
    }

    /// Waits until the connection has to close.
    pub(super) async fn wait_closing(&self) {
        self.closing.notified().await;
    }

    /// Tracks a response.
    pub(super) fn track(
        &self,
        body: ClientBody,
        is_http2: bool,
        in_flight: ConnectionInFlight,
    ) -> CountedBody {
        let content = if is_http2 {
            let (progress, bytes_min) = (Progress::default(), self.bytes_min);
            let stream = Stream { progress, bytes_min, body: Mutex::new(Some(body)) };
            let stream = Arc::new(stream);
            let mut streams = lock(&self.streams);
            if streams.len() >= STREAMS_SLACK {
                streams.retain(|stream| stream.strong_count() > 0);
            }
            streams.push(Arc::downgrade(&stream));
            Content::Http2(stream)
        } else {
            self.progress.asked(Some(0), self.bytes_min);
            Content::Http1(body, Arc::clone(&self.progress), self.bytes_min)
        };
        CountedBody { content, _in_flight: in_flight }
    }

    /// Waits until the connection must close: its HTTP/1 client does not read, or too slowly. Meanwhile
    /// abandons such responses on HTTP/2 streams.
    pub(super) async fn wait_unread(&self) {
        loop {
            tokio::time::sleep(self.timeout / CHECKS).await;
            if self.open.any() && self.progress.is_unread(self.timeout) {
                return;
            }
            let unread = |stream: &Arc<Stream>| stream.progress.is_unread(self.timeout);
            let streams: Vec<_> =
                lock(&self.streams).iter().filter_map(Weak::upgrade).filter(unread).collect();
            for stream in streams {
                // Dropped outside the lock: this ends the request at the release.
                let abandoned = lock(&stream.body).take();
                drop(abandoned);
            }
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            since: monotonic(),
            asked_at: AtomicU64::new(0),
            waits_on_release: AtomicBool::new(false),
            owed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            given: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// The next response has nothing to read yet.
    fn restart(&self) {
        self.asked_at.store(self.elapsed(), Ordering::Relaxed);
        for counter in [&self.owed, &self.taken, &self.given] {
            counter.store(0, Ordering::Relaxed);
        }
        self.waits_on_release.store(true, Ordering::Relaxed);
    }

    /// The connection polled the body: the client has taken what it was given before. Now it is given
    /// these bytes, or the release must send them. After `bytes_min` its time starts again.
    ///
    /// Only the task of the connection writes here, so that it needs no read-modify-write, which costs
    /// more and runs for each piece of each response. [`Self::is_unread`] reads in the reverse order.
    fn asked(&self, given: Option<usize>, bytes_min: u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let now = self.elapsed();
        let waited = match self.waits_on_release.load(Ordering::Relaxed) {
            true => 0,
            false => now.saturating_sub(load(&self.asked_at)),
        };
        let taken = load(&self.taken).saturating_add(load(&self.given));
        let (taken, owed) = match taken >= bytes_min {
            true => (0, 0),
            false => (taken, load(&self.owed).saturating_add(waited)),
        };
        let given_now = u64::try_from(given.unwrap_or_default()).unwrap_or(u64::MAX);
        self.taken.store(taken, Ordering::Relaxed);
        self.given.store(given_now, Ordering::Relaxed);
        self.asked_at.store(now, Ordering::Relaxed);
        self.owed.store(owed, Ordering::Release);
        self.waits_on_release.store(given.is_none(), Ordering::Relaxed);
    }

    /// Whether the client owes a read for this long, in sum since it last took enough.
    fn is_unread(&self, timeout: Duration) -> bool {
        self.unread_for().is_some_and(|owed| owed >= timeout)
    }

    /// How long the client owes a read, in sum since it last took enough; `None` if it owes none.
    fn unread_for(&self) -> Option<Duration> {
        // First what is owed, which was written last: no time counts twice.
        let owed = Duration::from_millis(self.owed.load(Ordering::Acquire));
        let since_asked = self.since.elapsed().saturating_sub(self.asked_at());
        (!self.waits_on_release.load(Ordering::Relaxed)).then_some(owed + since_asked)
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn asked_at(&self) -> Duration {
        Duration::from_millis(self.asked_at.load(Ordering::Relaxed))
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.get_mut().content {
            Content::Http1(body, progress, bytes_min) => {
                let next = Pin::new(body).poll_frame(cx);
                progress.asked(given(&next), *bytes_min);
                next
            }
            Content::Http2(stream) => {
                let mut body = lock(&stream.body);
                let Some(body) = body.as_mut() else {
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                };
                let next = Pin::new(body).poll_frame(cx);
                stream.progress.asked(given(&next), stream.bytes_min);
                next
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Http1(body, ..) => body.is_end_stream(),
            Content::Http2(stream) => lock(&stream.body).as_ref().is_some_and(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Http1(body, ..) => body.size_hint(),
            Content::Http2(stream) => {
                lock(&stream.body).as_ref().map(Body::size_hint).unwrap_or_default()
            }
        }
    }
}

/// The bytes that the client is given; `None` while the release must send them.
fn given(next: &Poll<Option<io::Result<Frame<Bytes>>>>) -> Option<usize> {
    let Poll::Ready(next) = next else { return None };
    let frame = next.as_ref().and_then(|it| it.as_ref().ok());
    Some(frame.and_then(Frame::data_ref).map(Bytes::len).unwrap_or_default())
}
