//! The responses that are on their way to one client. One that the client does not read ends, so that it
//! holds no memory and no request of the release.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::proxy::exchange::client_body::ClientBody;
use crate::proxy::server::connections::{ConnectionInFlight, OpenRequests};

/// Streams that are tracked before those that ended are removed.
const STREAMS_SLACK: usize = 128;
/// How many times the progress is compared within the time limit.
const CHECKS: u32 = 8;

/// The responses of one connection.
#[derive(Debug)]
pub(super) struct Answers {
    timeout: Duration,
    open: OpenRequests,
    /// The progress of an HTTP/1 connection, which has one response at a time.
    progress: Arc<Progress>,
    /// The streams of an HTTP/2 connection.
    streams: Mutex<Vec<Weak<Stream>>>,
    /// Its place is needed.
    closing: Notify,
}

/// Whether a client reads a response.
#[derive(Debug)]
struct Progress {
    since: Instant,
    /// Milliseconds from `since` until the body was asked for more.
    asked_at: AtomicU64,
    /// Whether the release must send the next piece.
    waits_on_release: AtomicBool,
}

/// The response on one stream of HTTP/2.
#[derive(Debug)]
struct Stream {
    progress: Progress,
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
    Http1(ClientBody, Arc<Progress>),
    Http2(Arc<Stream>),
}

impl Answers {
    /// A connection whose responses may be unread for `timeout`.
    pub(super) fn new(timeout: Duration, open: OpenRequests) -> Self {
        Self {
            timeout,
            open,
            progress: Arc::default(),
            streams: Mutex::default(),
            closing: Notify::new(),
        }
    }

    /// A request begins: until its response there is nothing to read.
    pub(super) fn begin_request(&self) {
        self.progress.asked(true);
    }

    /// How long the connection has had no open request; `None` while it has one.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let idle = !self.open.any();
        idle.then(|| self.progress.since.elapsed().saturating_sub(self.progress.asked_at()))
    }

    /// Closes the connection as soon as it is idle: its place is needed.
    pub(super) fn close(&self) {
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
            let stream = Stream { progress: Progress::default(), body: Mutex::new(Some(body)) };
            let stream = Arc::new(stream);
            let mut streams = lock(&self.streams);
            if streams.len() >= STREAMS_SLACK {
                streams.retain(|stream| stream.strong_count() > 0);
            }
            streams.push(Arc::downgrade(&stream));
            Content::Http2(stream)
        } else {
            self.progress.asked(false);
            Content::Http1(body, Arc::clone(&self.progress))
        };
        CountedBody { content, _in_flight: in_flight }
    }

    /// Waits until the connection must close: its HTTP/1 client does not read. Meanwhile abandons the
    /// responses on HTTP/2 streams that their client does not read.
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
        let (asked_at, waits_on_release) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { since: monotonic(), asked_at, waits_on_release }
    }
}

impl Progress {
    fn asked(&self, is_pending: bool) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked_at.store(millis, Ordering::Relaxed);
        self.waits_on_release.store(is_pending, Ordering::Relaxed);
    }

    /// Whether the client owes a read for this long.
    fn is_unread(&self, timeout: Duration) -> bool {
        !self.waits_on_release.load(Ordering::Relaxed)
            && self.since.elapsed().saturating_sub(self.asked_at()) >= timeout
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
            Content::Http1(body, progress) => {
                let next = Pin::new(body).poll_frame(cx);
                progress.asked(next.is_pending());
                next
            }
            Content::Http2(stream) => {
                let mut body = lock(&stream.body);
                let Some(body) = body.as_mut() else {
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                };
                let next = Pin::new(body).poll_frame(cx);
                stream.progress.asked(next.is_pending());
                next
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Http1(body, _) => body.is_end_stream(),
            Content::Http2(stream) => lock(&stream.body).as_ref().is_some_and(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Http1(body, _) => body.size_hint(),
            Content::Http2(stream) => {
                lock(&stream.body).as_ref().map(Body::size_hint).unwrap_or_default()
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
