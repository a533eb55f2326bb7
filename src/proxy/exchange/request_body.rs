//! The body of a request, on its way to a release.
//!
//! The proxy reads a small body before it sends the request, so that it knows id and method. The rest
//! of a large body streams; the proxy parses it as it passes.

mod whole;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::clock::monotonic;
use crate::mcp::large_body::LargeBodyCheck;
use crate::mcp::lenient_json::without_bom;
use crate::mcp::scan::MessageScanner;
use crate::mutex::lock;
use crate::proxy::backend::body::{BackendBody, SharedBody};
use crate::proxy::backend::client_connection::ClientConnectionState;
use crate::proxy::backend::read_only_tools::ReadOnlyTools;
pub(in crate::proxy) use crate::proxy::exchange::body_error::BodyError;
use crate::proxy::exchange::body_limits::BodyLimits;
use crate::proxy::exchange::header_check::ExpectedBody;
use crate::proxy::exchange::pace::Pace;
use crate::proxy::exchange::parsed_body::{SharedParse, lock_parsed};

/// The proxy reads this much of a body before it sends the request.
const BUFFERED_MAX: usize = 64 * 1024;
/// The time limit for the rest of a body that no release reads any more.
const READ_TO_END_TIMEOUT: Duration = Duration::from_secs(5);
/// The messages of a batch that are tracked.
const BATCH_MAX: usize = 128;

/// The body of a request to a release. A clone can read the rest when the release does not.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct RequestBody {
    parsed: SharedParse,
    stream: Arc<Mutex<BodyStream>>,
    /// All bytes, when the body was small enough to be read first.
    buffered: Option<Bytes>,
}

/// The state of a transfer.
#[derive(Debug, Default)]
struct BodyStream {
    ready: VecDeque<Bytes>,
    incoming: Option<Incoming>,
    remaining: u64,
    scanner: MessageScanner,
    /// For a body that is not kept.
    large: LargeBodyCheck,
    is_large: bool,
    parsed: SharedParse,
    pace: Pace,
    connection: Option<Arc<ClientConnectionState>>,
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
    error: Option<BodyError>,
    /// What the headers promise about it.
    expected: Option<ExpectedBody>,
    /// The release gets no more of it: the proxy reads the rest itself.
    detached: bool,
    /// Whether a connection has read any of it.
    was_read: bool,
    /// It is no MCP: the proxy does not read it.
    opaque: bool,
}

impl RequestBody {
    fn new(stream: BodyStream) -> Self {
        let parsed = Arc::clone(&stream.parsed);
        Self { parsed, stream: Arc::new(Mutex::new(stream)), buffered: None }
    }

    /// A body of which all bytes are known.
    pub(in crate::proxy) fn from_bytes(body: Bytes) -> Self {
        let mut stream = BodyStream { remaining: u64::MAX, ..BodyStream::default() };
        // It was read before, within the limit.
        let _ = stream.consume(&body);
        if !body.is_empty() {
            stream.ready.push_back(body.clone());
        }
        Self { buffered: Some(body), ..Self::new(stream) }
    }

    /// Whether what was read is one message, whole if all of the body was read. Readers differ in what
    /// they take from anything else.
    pub(in crate::proxy) fn is_one_message(&self) -> bool {
        let stream = self.lock();
        let parsed = lock_parsed(&self.parsed);
        let count = usize::from(self.buffered.is_some());
        let is_readable = if self.buffered.is_some() {
            stream.scanner.is_whole()
        } else {
            !stream.scanner.is_broken()
        };
        is_readable && !parsed.batch && (count..=1).contains(&parsed.messages.len())
    }

    /// Compares the rest of the body with the headers.
    pub(in crate::proxy) fn set_expected(&self, expected: ExpectedBody) {
        self.lock().expected = Some(expected);
    }

    /// All bytes, when the body was small enough to be read first.
    pub(in crate::proxy) fn buffered(&self) -> Option<&Bytes> {
        self.buffered.as_ref()
    }

    /// A body within these limits, which streams from the first byte.
    ///
    /// # Errors
    /// When the body cannot be forwarded, and nothing was sent yet.
    pub(in crate::proxy) fn opaque(body: Incoming, limits: BodyLimits) -> Result<Self, BodyError> {
        match body.size_hint().lower() {
            _ if body.is_end_stream() => Ok(Self::default()),
            size if size > limits.max => Err(BodyError::TooLarge),
            _ => Ok(Self::new(BodyStream { opaque: true, ..BodyStream::new(body, limits) })),
        }
    }

    /// Reads the first 64 KiB of a body within these limits.
    ///
    /// # Errors
    /// When the body cannot be forwarded, and nothing was sent yet.
    pub(in crate::proxy) async fn read(
        body: Incoming,
        limits: BodyLimits,
    ) -> Result<Self, BodyError> {
        Self::read_start(body, limits, |_, _| false).await
    }

    /// Reads the start of a body that may be JSON-RPC, as [`Self::read`] does; `false` as soon as it
    /// is not. Then the rest streams unread.
    ///
    /// # Errors
    /// When the body cannot be forwarded, and nothing was sent yet.
    pub(in crate::proxy) async fn read_if_json_rpc(
        body: Incoming,
        limits: BodyLimits,
    ) -> Result<(Self, bool), BodyError> {
        let is_other = |buffer: &[u8], stream: &BodyStream| {
            let text = without_bom(buffer).trim_ascii_start();
            let starts_otherwise = text.first().is_some_and(|first| !matches!(first, b'{' | b'['));
            let parsed = lock_parsed(&stream.parsed);
            let is_rpc = parsed.messages.iter().any(|message| message.json_rpc);
            starts_otherwise || (!parsed.messages.is_empty() && !is_rpc)
        };
        let body = Self::read_start(body, limits, is_other).await?;
        let mut stream = body.lock();
        let is_rpc = stream.scanner.is_json_rpc()
            || lock_parsed(&stream.parsed).messages.iter().any(|message| message.json_rpc);
        if !is_rpc {
            stream.opaque = true;
            lock_parsed(&stream.parsed).messages.clear();
        }
        drop(stream);
        Ok((body, is_rpc))
    }

    async fn read_start(
        body: Incoming,
        limits: BodyLimits,
        is_enough: impl Fn(&[u8], &BodyStream) -> bool,
    ) -> Result<Self, BodyError> {
        if body.size_hint().lower() > limits.max {
            return Err(BodyError::TooLarge);
        }
        let mut stream = BodyStream::new(body, limits.clone());
        // Copied into one buffer: a client that sends single bytes would cost a piece for each.
        let mut buffer = BytesMut::new();
        while buffer.len() < BUFFERED_MAX {
            let Some(incoming) = stream.incoming.as_mut() else { break };
            let since = monotonic();
            limits.connection.set_body_owed(Some(stream.pace.waited()));
            let frame = tokio::time::timeout(stream.pace.remaining(), incoming.frame()).await;
            limits.connection.set_body_owed(None);
            match frame.map_err(|_| BodyError::TimedOut)? {
                None => stream.incoming = None,
                Some(frame) => {
                    let Ok(data) = frame.map_err(|_| BodyError::Disconnected)?.into_data() else {
                        continue;
                    };
                    stream.pace.add(since.elapsed(), 0);
                    stream.consume(&data)?;
                    buffer.extend_from_slice(&data);
                    if is_enough(&buffer, &stream) {
                        break;
                    }
                }
            }
        }
        let buffer = buffer.freeze();
        if stream.incoming.is_some() && !stream.opaque {
            stream.is_large = true;
            stream.large.feed(&buffer);
            lock_parsed(&stream.parsed).is_unreadable |= stream.large.is_invalid();
        }
        let buffered = stream.incoming.is_none().then(|| buffer.clone());
        if !buffer.is_empty() {
            stream.ready.push_back(buffer);
        }
        Ok(Self { buffered, ..Self::new(stream) })
    }

    /// Whether it holds one request, and that is read-only.
    pub(in crate::proxy) fn is_single_read_only(&self, tools: &ReadOnlyTools) -> bool {
        let parsed = lock_parsed(&self.parsed);
        let [message] = parsed.messages.as_slice() else { return false };
        let (Some(_), Some(method)) = (&message.id, &message.method) else { return false };
        // Only the release that issued a state can decode it.
        let has_no_state = !parsed.batch && message.request_state_hash.is_none();
        !message.is_ambiguous
            && has_no_state
            && tools.is_read_only(method, message.name.as_deref().unwrap_or_default())
    }

    /// What the body holds so far; it grows while a large body passes.
    pub(in crate::proxy) fn parsed(&self) -> SharedParse {
        Arc::clone(&self.parsed)
    }

    /// Whether a connection to a release has read any of it.
    pub(in crate::proxy) fn was_read(&self) -> bool {
        self.lock().was_read
    }

    /// Reads the rest of the body for the ids in it: many clients write the id last. Returns whether
    /// it reached the end.
    pub(in crate::proxy) async fn read_to_end(&self) -> bool {
        self.lock().detached = true;
        let reading = std::future::poll_fn(|cx| {
            let mut stream = self.lock();
            stream.ready.clear();
            loop {
                match std::task::ready!(stream.poll_next(cx)) {
                    Some(Ok(_)) => (),
                    end => return Poll::Ready(end.is_none()),
                }
            }
        });
        tokio::time::timeout(READ_TO_END_TIMEOUT, reading).await.unwrap_or(false)
    }

    /// Reads the rest in the background: a client that still sends may lose a response to a closed
    /// connection.
    pub(in crate::proxy) fn discard_rest(self) {
        let is_read = self.lock().incoming.as_ref().is_none_or(Body::is_end_stream);
        if !is_read {
            tokio::spawn(async move { self.read_to_end().await });
        }
    }

    /// The body for the request to a release.
    pub(in crate::proxy) fn to_backend_body(&self) -> BackendBody {
        BackendBody::Shared(Arc::<Mutex<BodyStream>>::clone(&self.stream))
    }

    fn lock(&self) -> MutexGuard<'_, BodyStream> {
        lock(&self.stream)
    }
}

impl BodyStream {
    fn new(body: Incoming, limits: BodyLimits) -> Self {
        let pace = Pace::new(limits.min_rate);
        let connection = Some(limits.connection);
        Self { incoming: Some(body), remaining: limits.max, pace, connection, ..Self::default() }
    }

    fn consume(&mut self, data: &Bytes) -> Result<(), BodyError> {
        self.pace.add(Duration::ZERO, data.len());
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.remaining = self.remaining.checked_sub(size).ok_or(BodyError::TooLarge)?;
        if self.opaque {
            return Ok(());
        }
        if self.is_large {
            self.large.feed(data);
        }
        let mut parsed = lock_parsed(&self.parsed);
        let mut matches_headers = true;
        self.scanner.feed(data, |message| {
            matches_headers &=
                self.expected.as_ref().is_none_or(|expected| expected.matches(&message));
            if parsed.messages.len() < BATCH_MAX {
                parsed.messages.push(message);
            }
        });
        parsed.batch = self.scanner.is_batch();
        if self.expected.is_some() {
            let is_one = parsed.messages.len() <= 1 && !parsed.batch;
            matches_headers &= is_one && !self.scanner.is_broken();
        }
        parsed.is_unreadable |= self.scanner.is_too_deep() || self.large.is_invalid();
        if matches_headers { Ok(()) } else { Err(BodyError::HeaderMismatch) }
    }

    /// Records why the rest cannot be forwarded.
    fn fail(&mut self, error: BodyError) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.error = Some(error);
        lock_parsed(&self.parsed).error = Some(error);
        Poll::Ready(Some(Err(error.into())))
    }

    /// Records whether the client must send the next piece.
    fn set_waiting_on_client(&mut self, waiting: bool) {
        if waiting == self.wait.is_some() {
            return;
        }
        let now = monotonic();
        if let Some(connection) = &self.connection {
            connection.set_body_owed(waiting.then(|| self.pace.waited()));
        }
        let mut parsed = lock_parsed(&self.parsed);
        parsed.waiting_on_client = waiting;
        match self.wait.take() {
            Some((since, _)) => {
                parsed.last_piece_at = Some(now);
                self.pace.add(now.saturating_duration_since(since), 0);
            }
            None => {
                let timer = Box::pin(tokio::time::sleep(self.pace.remaining()));
                self.wait = Some((now, timer));
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(error) = self.error {
            return Poll::Ready(Some(Err(error.into())));
        }
        let Some(incoming) = self.incoming.as_mut() else { return Poll::Ready(None) };
        let next = Pin::new(incoming).poll_frame(cx);
        self.set_waiting_on_client(next.is_pending());
        match next {
            Poll::Pending => {
                let timer = self.wait.as_mut().map(|(_, timer)| timer.as_mut().poll(cx));
                if timer.is_some_and(|it| it.is_ready()) {
                    return self.fail(BodyError::TimedOut);
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.incoming = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => self.fail(BodyError::Disconnected),
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref().map(|data| self.consume(data)) {
                None | Some(Ok(())) => Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => self.fail(error),
            },
        }
    }
}

impl SharedBody for Mutex<BodyStream> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut stream = lock(self);
        stream.was_read = true;
        if stream.detached {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        stream.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        let stream = lock(self);
        stream.ready.is_empty() && stream.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let stream = lock(self);
        let ready: usize = stream.ready.iter().map(Bytes::len).sum();
        let ready = u64::try_from(ready).unwrap_or(u64::MAX);
        match stream.incoming.as_ref().map(Body::size_hint) {
            None => SizeHint::with_exact(ready),
            Some(hint) => {
                let mut sum = SizeHint::new();
                sum.set_lower(hint.lower().saturating_add(ready));
                if let Some(upper) = hint.upper() {
                    sum.set_upper(upper.saturating_add(ready));
                }
                sum
            }
        }
    }
}
