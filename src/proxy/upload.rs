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

use super::message::Message;
use super::mirror::Mirror;
use super::repeat::Safe;
use super::scan::Scan;

/// A body up to this size is read before it is sent.
const AHEAD_MAX: usize = 64 * 1024;
/// How long a client may stay silent in the middle of a body.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to send the rest of a body that no release reads any more.
const FINISH_MAX: Duration = Duration::from_secs(5);
/// Messages of a batch whose answers are waited for.
const BATCH_MAX: usize = 128;

/// What a body was found to hold so far, shared with the exchange that waits for the answers.
pub(super) type Asked = Arc<Mutex<Found>>;

/// What a body was found to hold so far, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its messages.
    pub messages: Vec<Message>,
    /// Whether they come in an array.
    pub batch: bool,
    /// Whether the client owes the next piece: the release can not answer yet.
    pub owed: bool,
    /// When the client last gave a piece that it owed.
    pub paid: Option<Instant>,
    /// Why the rest can not be passed on, which is the client's own doing.
    pub flaw: Option<Flaw>,
}

/// The body of a request to a release. Who holds a clone can read on when the release can not.
#[derive(Debug, Clone, Default)]
pub(super) struct Upload {
    asked: Asked,
    body: Arc<Mutex<Passing>>,
    /// All of it, where it was small enough to be read before it is sent.
    whole: Option<Bytes>,
}

/// A body on its way.
#[derive(Debug, Default)]
struct Passing {
    ready: VecDeque<Bytes>,
    rest: Option<Incoming>,
    left: u64,
    scan: Scan,
    asked: Asked,
    silence: Option<Pin<Box<Sleep>>>,
    broken: Option<Flaw>,
    /// What the headers say of it.
    mirror: Option<Mirror>,
    /// The release gets no more of it.
    kept: bool,
}

/// Why a body can not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is longer than the operator allows.
    TooLarge,
    /// The client stayed silent in the middle of it.
    Silent,
    /// The client left.
    Left,
    /// Its headers say something else.
    Mismatch,
}

impl Upload {
    fn new(passing: Passing) -> Self {
        let asked = Arc::clone(&passing.asked);
        Self { asked, body: Arc::new(Mutex::new(passing)), whole: None }
    }

    /// A body that is known whole.
    pub(super) fn of(body: Bytes) -> Self {
        let mut passing = Passing { left: u64::MAX, ..Passing::default() };
        // It was read before, within its limit.
        let _ = passing.take(&body);
        if !body.is_empty() {
            passing.ready.push_back(body.clone());
        }
        Self { whole: Some(body), ..Self::new(passing) }
    }

    /// Holds what comes from now on against the headers.
    pub(super) fn expect(&self, mirror: Mirror) {
        self.lock().mirror = Some(mirror);
    }

    /// All of it, where it was small enough to be read before it is sent.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        self.whole.as_ref()
    }

    /// A body of at most `max` bytes that nobody reads on the way.
    ///
    /// # Errors
    /// A [`Flaw`] found before anything was sent.
    pub(super) fn plain(body: Incoming, max: u64) -> Result<Self, Flaw> {
        match body.size_hint().lower() {
            _ if body.is_end_stream() => Ok(Self::default()),
            size if size > max => Err(Flaw::TooLarge),
            _ => Ok(Self::new(Passing { rest: Some(body), left: max, ..Passing::default() })),
        }
    }

    /// Begins to read a body of at most `max` bytes.
    ///
    /// # Errors
    /// A [`Flaw`] found before anything was sent.
    pub(super) async fn read(body: Incoming, max: u64) -> Result<Self, Flaw> {
        if body.size_hint().lower() > max {
            return Err(Flaw::TooLarge);
        }
        let mut passing = Passing { rest: Some(body), left: max, ..Passing::default() };
        // Copied together: a client that sends single bytes would cost a piece for each of them.
        let mut ahead = BytesMut::new();
        while ahead.len() < AHEAD_MAX {
            let Some(rest) = passing.rest.as_mut() else { break };
            let frame = tokio::time::timeout(SILENCE_MAX, rest.frame()).await;
            match frame.map_err(|_| Flaw::Silent)? {
                None => passing.rest = None,
                Some(frame) => {
                    let Ok(data) = frame.map_err(|_| Flaw::Left)?.into_data() else { continue };
                    passing.take(&data)?;
                    ahead.extend_from_slice(&data);
                }
            }
        }
        let ahead = ahead.freeze();
        let whole = passing.rest.is_none().then(|| ahead.clone());
        if !ahead.is_empty() {
            passing.ready.push_back(ahead);
        }
        Ok(Self { whole, ..Self::new(passing) })
    }

    /// A body that is known whole, and that nobody reads on the way.
    pub(super) fn ready(body: Bytes) -> Self {
        Self::new(Passing { ready: [body].into(), ..Passing::default() })
    }

    /// Whether it holds one request, and one that is safe to repeat.
    pub(super) fn asks_one(&self, safe: &Safe) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let [message] = asked.messages.as_slice() else { return false };
        let (Some(_), Some(method)) = (&message.id, &message.method) else { return false };
        // Nobody but the release that sealed a state can open it.
        let open = !asked.batch && message.state.is_none();
        open && safe.covers(method, message.name.as_deref().unwrap_or_default())
    }

    /// What the body was found to hold so far; it grows while a large body passes.
    pub(super) fn asked(&self) -> Asked {
        Arc::clone(&self.asked)
    }

    /// Reads what the client still sends, for the ids in it: many clients write the id last.
    /// Whether the end was reached.
    pub(super) async fn finish(&self) -> bool {
        self.lock().kept = true;
        let end = std::future::poll_fn(|cx| {
            let mut passing = self.lock();
            passing.ready.clear();
            loop {
                match std::task::ready!(passing.poll_next(cx)) {
                    Some(Ok(_)) => (),
                    end => return Poll::Ready(end.is_none()),
                }
            }
        });
        tokio::time::timeout(FINISH_MAX, end).await.unwrap_or(false)
    }

    fn lock(&self) -> MutexGuard<'_, Passing> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passing {
    fn take(&mut self, data: &Bytes) -> Result<(), Flaw> {
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(size).ok_or(Flaw::TooLarge)?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fits = true;
        self.scan.feed(data, |message| {
            fits &= self.mirror.as_ref().is_none_or(|mirror| mirror.fits(&message));
            if asked.messages.len() < BATCH_MAX {
                asked.messages.push(message);
            }
        });
        asked.batch = self.scan.is_batch();
        if fits { Ok(()) } else { Err(Flaw::Mismatch) }
    }

    /// The rest can not be passed on.
    fn fail(&mut self, flaw: Flaw) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.broken = Some(flaw);
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).flaw = Some(flaw);
        Poll::Ready(Some(Err(flaw.into())))
    }

    /// Notes whether the client owes the next piece.
    fn owe(&mut self, owed: bool) {
        if owed != self.silence.is_some() {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.owed = owed;
            asked.paid = if owed { asked.paid } else { Some(Instant::now()) };
            self.silence = owed.then(|| Box::pin(tokio::time::sleep(SILENCE_MAX)));
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(flaw) = self.broken {
            return Poll::Ready(Some(Err(flaw.into())));
        }
        let Some(rest) = self.rest.as_mut() else { return Poll::Ready(None) };
        let next = Pin::new(rest).poll_frame(cx);
        self.owe(next.is_pending());
        match next {
            Poll::Pending => {
                let silence = self.silence.as_mut().map(|it| it.as_mut().poll(cx));
                if silence.is_some_and(|it| it.is_ready()) {
                    return self.fail(Flaw::Silent);
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.rest = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => self.fail(Flaw::Left),
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref().map(|data| self.take(data)) {
                None | Some(Ok(())) => Poll::Ready(Some(Ok(frame))),
                Some(Err(flaw)) => self.fail(flaw),
            },
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut passing = self.lock();
        if passing.kept {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        passing.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        let passing = self.lock();
        passing.ready.is_empty() && passing.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let passing = self.lock();
        let ready: usize = passing.ready.iter().map(Bytes::len).sum();
        let ready = u64::try_from(ready).unwrap_or(u64::MAX);
        match passing.rest.as_ref().map(Body::size_hint) {
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

impl Found {
    /// Ids of the requests, and whether they came in an array.
    pub(super) fn ids(&self) -> (Vec<Box<str>>, bool) {
        let requests = self.messages.iter().filter(|message| message.method.is_some());
        (requests.filter_map(|message| message.id.clone()).collect(), self.batch)
    }
}

impl From<Flaw> for io::Error {
    fn from(flaw: Flaw) -> Self {
        Self::other(flaw.text())
    }
}

impl Flaw {
    /// How the client is told.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Silent | Self::Left => StatusCode::REQUEST_TIMEOUT,
            Self::Mismatch => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client is told.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "the request body is too large",
            Self::Silent => "the request body did not come",
            Self::Left => "the client left",
            Self::Mismatch => "the headers say something else than the body",
        }
    }
}
