//! A request's body on its way to a release.
//!
//! A small body is read before the request is sent, so that its id and method are known. The rest
//! of a large one streams behind, read as it passes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::mcp::message::Message;
use crate::mcp::scan::MessageScanner;
use crate::proxy::exchange::header_check::ExpectedBody;
use crate::proxy::shadow::samples::ReadOnlyTools;

/// A body up to this size is read before it is sent.
const BUFFERED_MAX: usize = 64 * 1024;
/// How long a client may stay silent in the middle of a body.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to send the rest of a body that no release reads any more.
const READ_TO_END_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages of a batch whose answers are waited for.
const BATCH_MAX: usize = 128;

/// What a body was found to hold so far, shared with the exchange that waits for the answers.
pub(in crate::proxy) type SharedParse = Arc<Mutex<ParsedBody>>;

/// What a body was found to hold so far, and whose turn it is.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ParsedBody {
    /// Its messages.
    pub messages: Vec<Message>,
    /// Whether they come in an array.
    pub batch: bool,
    /// Whether the client owes the next piece: the release can not answer yet.
    pub waiting_on_client: bool,
    /// When the client last gave a piece that it owed.
    pub last_piece_at: Option<Instant>,
    /// Why the rest can not be passed on, which is the client's own doing.
    pub error: Option<BodyError>,
}

/// The body of a request to a release. Who holds a clone can read on when the release can not.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct RequestBody {
    parsed: SharedParse,
    stream: Arc<Mutex<BodyStream>>,
    /// All of it, where it was small enough to be read before it is sent.
    buffered: Option<Bytes>,
}

/// A body on its way.
#[derive(Debug, Default)]
struct BodyStream {
    ready: VecDeque<Bytes>,
    incoming: Option<Incoming>,
    remaining: u64,
    scanner: MessageScanner,
    parsed: SharedParse,
    silence_timer: Option<Pin<Box<Sleep>>>,
    error: Option<BodyError>,
    /// What the headers say of it.
    expected: Option<ExpectedBody>,
    /// The release gets no more of it.
    detached: bool,
}

/// Why a body can not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BodyError {
    /// It is longer than the operator allows.
    TooLarge,
    /// The client stayed silent in the middle of it.
    TimedOut,
    /// The client left.
    Disconnected,
    /// Its headers say something else.
    HeaderMismatch,
}

impl RequestBody {
    fn new(stream: BodyStream) -> Self {
        let parsed = Arc::clone(&stream.parsed);
        Self { parsed, stream: Arc::new(Mutex::new(stream)), buffered: None }
    }

    /// A body that is known whole.
    pub(in crate::proxy) fn from_bytes(body: Bytes) -> Self {
        let mut stream = BodyStream { remaining: u64::MAX, ..BodyStream::default() };
        // It was read before, within its limit.
        let _ = stream.consume(&body);
        if !body.is_empty() {
            stream.ready.push_back(body.clone());
        }
        Self { buffered: Some(body), ..Self::new(stream) }
    }

    /// Holds what comes from now on against the headers.
    pub(in crate::proxy) fn set_expected(&self, expected: ExpectedBody) {
        self.lock().expected = Some(expected);
    }

    /// All of it, where it was small enough to be read before it is sent.
    pub(in crate::proxy) fn buffered(&self) -> Option<&Bytes> {
        self.buffered.as_ref()
    }

    /// A body of at most `max` bytes that nobody reads on the way.
    ///
    /// # Errors
    /// A [`BodyError`] found before anything was sent.
    pub(in crate::proxy) fn opaque(body: Incoming, max: u64) -> Result<Self, BodyError> {
        match body.size_hint().lower() {
            _ if body.is_end_stream() => Ok(Self::default()),
            size if size > max => Err(BodyError::TooLarge),
            _ => Ok(Self::new(BodyStream {
                incoming: Some(body),
                remaining: max,
                ..BodyStream::default()
            })),
        }
    }

    /// Begins to read a body of at most `max` bytes.
    ///
    /// # Errors
    /// A [`BodyError`] found before anything was sent.
    pub(in crate::proxy) async fn read(body: Incoming, max: u64) -> Result<Self, BodyError> {
        if body.size_hint().lower() > max {
            return Err(BodyError::TooLarge);
        }
        let mut stream =
            BodyStream { incoming: Some(body), remaining: max, ..BodyStream::default() };
        // Copied together: a client that sends single bytes would cost a piece for each of them.
        let mut buffer = BytesMut::new();
        while buffer.len() < BUFFERED_MAX {
            let Some(incoming) = stream.incoming.as_mut() else { break };
            let frame = tokio::time::timeout(SILENCE_TIMEOUT, incoming.frame()).await;
            match frame.map_err(|_| BodyError::TimedOut)? {
                None => stream.incoming = None,
                Some(frame) => {
                    let Ok(data) = frame.map_err(|_| BodyError::Disconnected)?.into_data() else {
                        continue;
                    };
                    stream.consume(&data)?;
                    buffer.extend_from_slice(&data);
                }
            }
        }
        let buffer = buffer.freeze();
        let buffered = stream.incoming.is_none().then(|| buffer.clone());
        if !buffer.is_empty() {
            stream.ready.push_back(buffer);
        }
        Ok(Self { buffered, ..Self::new(stream) })
    }

    /// A body that is known whole, and that nobody reads on the way.
    pub(in crate::proxy) fn unparsed(body: Bytes) -> Self {
        Self::new(BodyStream { ready: [body].into(), ..BodyStream::default() })
    }

    /// Whether it holds one request, and one that is safe to repeat.
    pub(in crate::proxy) fn is_single_read_only(&self, tools: &ReadOnlyTools) -> bool {
        let parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let [message] = parsed.messages.as_slice() else { return false };
        let (Some(_), Some(method)) = (&message.id, &message.method) else { return false };
        // Nobody but the release that sealed a state can open it.
        let has_no_state = !parsed.batch && message.request_state_hash.is_none();
        has_no_state && tools.is_read_only(method, message.name.as_deref().unwrap_or_default())
    }

    /// What the body was found to hold so far; it grows while a large body passes.
    pub(in crate::proxy) fn parsed(&self) -> SharedParse {
        Arc::clone(&self.parsed)
    }

    /// Reads what the client still sends, for the ids in it: many clients write the id last.
    /// Whether the end was reached.
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

    fn lock(&self) -> MutexGuard<'_, BodyStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyStream {
    fn consume(&mut self, data: &Bytes) -> Result<(), BodyError> {
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.remaining = self.remaining.checked_sub(size).ok_or(BodyError::TooLarge)?;
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matches_headers = true;
        self.scanner.feed(data, |message| {
            matches_headers &= self.expected.as_ref().is_none_or(|mirror| mirror.matches(&message));
            if parsed.messages.len() < BATCH_MAX {
                parsed.messages.push(message);
            }
        });
        parsed.batch = self.scanner.is_batch();
        if matches_headers { Ok(()) } else { Err(BodyError::HeaderMismatch) }
    }

    /// The rest can not be passed on.
    fn fail(&mut self, error: BodyError) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.error = Some(error);
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner).error = Some(error);
        Poll::Ready(Some(Err(error.into())))
    }

    /// Notes whether the client owes the next piece.
    fn set_waiting_on_client(&mut self, waiting: bool) {
        if waiting != self.silence_timer.is_some() {
            let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
            parsed.waiting_on_client = waiting;
            parsed.last_piece_at =
                if waiting { parsed.last_piece_at } else { Some(Instant::now()) };
            self.silence_timer = waiting.then(|| Box::pin(tokio::time::sleep(SILENCE_TIMEOUT)));
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
                let timer = self.silence_timer.as_mut().map(|it| it.as_mut().poll(cx));
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

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut stream = self.lock();
        if stream.detached {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        stream.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        let stream = self.lock();
        stream.ready.is_empty() && stream.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let stream = self.lock();
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

impl ParsedBody {
    /// Ids of the requests, and whether they came in an array.
    pub(in crate::proxy) fn request_ids(&self) -> (Vec<Box<str>>, bool) {
        let requests = self.messages.iter().filter(|message| message.method.is_some());
        (requests.filter_map(|message| message.id.clone()).collect(), self.batch)
    }
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        Self::other(error.text())
    }
}

impl BodyError {
    /// How the client is told.
    pub(in crate::proxy) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TimedOut | Self::Disconnected => StatusCode::REQUEST_TIMEOUT,
            Self::HeaderMismatch => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client is told.
    pub(in crate::proxy) fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "the request body is too large",
            Self::TimedOut => "the request body did not come",
            Self::Disconnected => "the client left",
            Self::HeaderMismatch => "the headers say something else than the body",
        }
    }
}
