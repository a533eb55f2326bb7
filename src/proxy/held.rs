//! What outlives the release that it began at: the stream on which a client listens, and a request
//! that changes nothing.

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

use super::answer::Answer;
use super::exchange::Exchange;
use super::front::Front;
use super::headers;
use super::session::{Onward, Session};
use super::upload::Upload;
use super::upstream::Upstream;

/// How often, how long, and after which pause at first, a stream is opened at another release.
const OPEN_TRIES: u32 = 6;
const OPEN_MAX: Duration = Duration::from_secs(60);
const OPEN_FIRST: Duration = Duration::from_millis(100);

type Opening = Pin<Box<dyn Future<Output = Option<Incoming>> + Send>>;
type Asking = Pin<Box<dyn Future<Output = Response<Answer>> + Send>>;

/// The stream of a session: it stays open while the session moves.
pub(super) struct Held {
    /// The session.
    pub session: Arc<Session>,
    front: Arc<Front>,
    onward: mpsc::Receiver<Onward>,
    opening: Option<Opening>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    left: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// What happens to a held stream.
pub(super) enum Happening {
    /// Its session moved.
    Moved(Box<Onward>),
    /// It goes on at the release that took over.
    Opened(Incoming),
    /// Its release is being left: the client should look what is new, and so move.
    Left,
    /// Nobody finds its session any more, or the proxy stops.
    Over,
    /// Its session has another stream now.
    Replaced,
}

impl Held {
    /// Holds the stream of an exchange, if that belongs to a session.
    pub(super) fn new(front: &Arc<Front>, exchange: &Exchange) -> Option<Box<Self>> {
        let session = Arc::clone(exchange.session.as_ref()?);
        session.captured()?;
        let (tell, onward) = mpsc::channel(2);
        session.listen(tell);
        let stop = Box::pin(front.stop.clone().cancelled_owned());
        let left = Some(fires(&exchange.upstream.left));
        let front = Arc::clone(front);
        Some(Box::new(Self { session, front, onward, opening: None, stop, left }))
    }

    /// What happens next.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Happening::Over);
        }
        match self.onward.poll_recv(cx) {
            Poll::Ready(Some(onward)) => return Poll::Ready(Happening::Moved(Box::new(onward))),
            Poll::Ready(None) if self.session.is_over() => return Poll::Ready(Happening::Over),
            Poll::Ready(None) => return Poll::Ready(Happening::Replaced),
            Poll::Pending => (),
        }
        if let Some(opening) = &mut self.opening
            && let Poll::Ready(body) = opening.as_mut().poll(cx)
        {
            self.opening = None;
            if let Some(body) = body {
                return Poll::Ready(Happening::Opened(body));
            }
        }
        if self.left.as_mut().is_some_and(|left| left.as_mut().poll(cx).is_ready()) {
            self.left = None;
            if self.session.holds(self.front.bound()).is_none() {
                return Poll::Ready(Happening::Left);
            }
        }
        Poll::Pending
    }

    /// Goes on at another release; how the exchange there begins.
    pub(super) fn go_on(&mut self, onward: Onward) -> Exchange {
        let Onward { upstream, head, generation } = onward;
        let deadline = self.front.service.load().limits.deadline;
        let kind = super::exchange::Kind::Stream;
        let mut exchange =
            Exchange::new(Arc::clone(&upstream), kind, Upload::default().asked(), None, deadline);
        exchange.session = Some(Arc::clone(&self.session));
        exchange.generation = generation;
        self.left = Some(fires(&upstream.left));
        self.opening = Some(Box::pin(open(upstream, head)));
        exchange
    }
}

/// Opens a stream; again and again for a while where there is no answer.
async fn open(upstream: Arc<Upstream>, head: request::Parts) -> Option<Incoming> {
    let mut pause = OPEN_FIRST;
    for _ in 0..OPEN_TRIES {
        let request = Request::from_parts(head.clone(), Upload::default());
        let sending = tokio::time::timeout(OPEN_MAX, upstream.client.request(request));
        if let Ok(Ok(response)) = sending.await
            && !response.status().is_server_error()
        {
            let events = response.status().is_success() && headers::is_events(response.headers());
            // A server without a stream of its own is none the worse: ours stays open.
            return events.then(|| response.into_body());
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    None
}

fn fires(token: &CancellationToken) -> Pin<Box<WaitForCancellationFutureOwned>> {
    Box::pin(token.clone().cancelled_owned())
}

/// A request that may be asked again of another release while its answer is already a stream.
pub(super) struct Retry {
    front: Arc<Front>,
    peer: IpAddr,
    head: request::Parts,
    body: Bytes,
}

impl Retry {
    /// `None` where it may not, or can not.
    pub(super) fn new(
        front: &Arc<Front>,
        peer: IpAddr,
        head: &request::Parts,
        upload: &Upload,
        exchange: &Exchange,
    ) -> Option<Self> {
        let body = upload.whole().filter(|_| exchange.is_safe() && exchange.opening.is_none())?;
        let (front, head, body) = (Arc::clone(front), head.clone(), body.clone());
        Some(Self { front, peer, head, body })
    }

    /// Asks again.
    pub(super) fn ask(self) -> Asking {
        let Self { front, peer, head, body } = self;
        Box::pin(async move { front.carry(peer, head, Upload::of(body)).await })
    }
}

/// The answer of another release, within a stream that a first release began.
pub(super) enum Sequel {
    /// It was asked.
    Asked(Asking),
    /// It answers with events.
    Events(Box<Answer>),
    /// It answers with JSON, of which so much has come.
    Json(Box<Answer>, Vec<u8>),
    /// It ended.
    Over,
}

/// Longest JSON answer that becomes an event.
const JSON_MAX: usize = 4 * 1024 * 1024;

impl Sequel {
    /// The next bytes of it. An error: there is no answer. Nothing comes after an error or the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        loop {
            let last = match self {
                Self::Asked(asking) => {
                    let response = std::task::ready!(asking.as_mut().poll(cx));
                    let events = headers::is_events(response.headers());
                    let good = response.status().is_success();
                    let body = Box::new(response.into_body());
                    let next = match (good, events) {
                        (true, true) => Self::Events(body),
                        (true, false) => Self::Json(body, Vec::new()),
                        (false, _) => Self::Over,
                    };
                    *self = next;
                    if good {
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
                            if text.len() <= JSON_MAX {
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

/// An event with this JSON, unless it is empty.
fn event(mut text: Vec<u8>) -> Option<Bytes> {
    // Between the values of JSON, a line's end means as much as a space.
    let line = |byte: &u8| matches!(byte, b'\n' | b'\r');
    text.iter_mut().filter(|it| line(it)).for_each(|it| *it = b' ');
    let event = [b"event: message\ndata: ", text.as_slice(), b"\n\n"];
    (!text.is_empty()).then(|| Bytes::from(event.concat()))
}

impl Answer {
    fn poll_frame_unpin(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        Pin::new(self).poll_frame(cx)
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("session", &self.session).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the head: it may hold credentials.
        f.write_str("Retry")
    }
}

impl std::fmt::Debug for Sequel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sequel")
    }
}
