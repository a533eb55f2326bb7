//! An answer's body on its way to the client.
//!
//! Nothing is held: each piece is read as it passes, and passed on. When the release is left, or
//! fails in the middle, the proxy ends the stream in a way that clients understand.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::model::Class;

use super::classify;
use super::exchange::{Exchange, Kind};
use super::notice::{self, Cause};
use super::scan::Scan;
use super::sse::{self, Events};

/// How long a client should wait before it opens its stream again.
const RETRY_MS: u32 = 1_000;

/// Bytes of a JSON answer that may still come after its release was left.
const AFTER_CUT_MAX: usize = 1024 * 1024;

/// The body of an answer to a client.
#[derive(Debug)]
pub(super) enum Answer {
    /// Known whole.
    Full(Full<Bytes>),
    /// Passing through.
    Passing(Box<Download>),
}

/// A body that passes through.
#[derive(Debug)]
pub(super) struct Download {
    ready: VecDeque<Bytes>,
    body: Option<Incoming>,
    reader: Reader,
    status: StatusCode,
    exchange: Exchange,
    since_cut: usize,
    /// The release broke a stream off that only listens.
    broken: bool,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// How a body is read on the way.
#[derive(Debug)]
pub(super) enum Reader {
    /// As one JSON-RPC message or batch.
    Json(Scan),
    /// As server-sent events.
    Events(Events),
    /// Not at all.
    Nothing,
}

impl Download {
    /// Passes `ready` on, and then `body`.
    pub(super) fn new(
        ready: VecDeque<Bytes>,
        body: Incoming,
        reader: Reader,
        status: StatusCode,
        exchange: Exchange,
    ) -> Self {
        let cut = Box::pin(end_of(&exchange).clone().cancelled_owned());
        Self { ready, body: Some(body), reader, status, exchange, since_cut: 0, broken: false, cut }
    }

    fn read(&mut self, data: &Bytes) {
        let (status, exchange) = (self.status, &mut self.exchange);
        let found = |message| exchange.heard(status, &message);
        match &mut self.reader {
            Reader::Json(scan) => scan.feed(data, found),
            Reader::Events(events) => events.feed(data, found),
            Reader::Nothing => (),
        }
    }

    /// The release was left.
    fn leave(&mut self) -> io::Result<()> {
        self.body = None;
        let Reader::Events(events) = &self.reader else {
            self.exchange.end(Class::Neutral);
            self.exchange.upstream.answered();
            return Err(io::Error::other("the release was left in the middle of its answer"));
        };
        if !events.between() {
            self.ready.push_back(Bytes::from_static(b"\n\n"));
        }
        match self.exchange.kind() {
            Kind::Call => self.answer(Cause::Rollback),
            Kind::Listen => {
                let over: Vec<_> =
                    self.exchange.open_ids().into_iter().map(notice::listen_over).collect();
                self.ready.extend(over.iter().map(|result| sse::event(result)));
                self.exchange.upstream.closed();
            }
            Kind::Stream | Kind::Plain => {
                // Before a restart of the daemon they are not lost: the release goes on with them.
                let lost = self.exchange.upstream.cut.is_cancelled();
                let session = self.exchange.session.as_ref().filter(|_| lost);
                for id in session.map(|session| session.take_parked()).unwrap_or_default() {
                    self.ready.push_back(sse::event(&notice::error(&id, Cause::Rollback)));
                    self.exchange.upstream.answered();
                }
                self.ready.push_back(sse::event(&notice::closing(lost)));
                self.ready.push_back(sse::retry(RETRY_MS));
                self.exchange.upstream.closed();
            }
        }
        self.exchange.end(Class::Neutral);
        Ok(())
    }

    /// The release ended its answer, well or not.
    fn ended(&mut self, error: Option<hyper::Error>) -> io::Result<()> {
        self.body = None;
        let unanswered = !self.exchange.open_ids().is_empty();
        self.broken = match self.exchange.kind() {
            // Its end is its result.
            Kind::Listen => unanswered,
            Kind::Stream => error.is_some(),
            Kind::Call | Kind::Plain => false,
        };
        match &self.reader {
            // A stream of 2025-11-25 may end early: the client takes it up again by its event id.
            // One that breaks off has lost its release, and whatever it remembered.
            Reader::Events(events) if events.resumable() && error.is_none() => {
                self.exchange.park();
            }
            Reader::Events(events) if unanswered && self.exchange.kind() == Kind::Call => {
                if !events.between() {
                    self.ready.push_back(Bytes::from_static(b"\n\n"));
                }
                self.answer(Cause::Upstream);
                self.exchange.end(Class::ServerFault);
            }
            Reader::Events(_) => self.exchange.end(Class::Ok),
            Reader::Json(_) => self.exchange.end(Class::ServerFault),
            Reader::Nothing if error.is_some() => self.exchange.end(Class::ServerFault),
            Reader::Nothing => self.exchange.end(classify::status(self.status)),
        }
        match (error, &self.reader) {
            (Some(error), Reader::Json(_) | Reader::Nothing) => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }

    /// An error of ours for each request that waits on this stream.
    fn answer(&mut self, cause: Cause) {
        let errors: Vec<_> =
            self.exchange.open_ids().into_iter().map(|id| notice::error(id, cause)).collect();
        for error in &errors {
            self.ready.push_back(sse::event(error));
            self.exchange.upstream.answered();
        }
    }
}

/// What tells that an answer has to end. One that is waited for may outlast streams that listen.
fn end_of(exchange: &Exchange) -> &CancellationToken {
    match exchange.kind() {
        Kind::Stream | Kind::Listen => &exchange.upstream.hush,
        Kind::Call | Kind::Plain => &exchange.upstream.cut,
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let listens = match self.exchange.kind() {
            Kind::Listen => true,
            Kind::Stream => matches!(self.reader, Reader::Events(_)),
            Kind::Call | Kind::Plain => false,
        };
        if listens && self.status.is_success() {
            self.exchange.upstream.tally.stream(self.broken);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|it| it.map(|it| it.map_err(|never| match never {}))),
            Self::Passing(download) => download.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Passing(download) => download.body.is_none() && download.ready.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Passing(_) => SizeHint::new(),
        }
    }
}

impl Download {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
            // A stream that never pauses has to be left too; other answers may finish what is on
            // its way, but not go on for ever.
            let left = end_of(&self.exchange).is_cancelled();
            let leave = left
                && (matches!(self.reader, Reader::Events(_)) || self.since_cut > AFTER_CUT_MAX);
            let next = if leave { Poll::Pending } else { Pin::new(body).poll_frame(cx) };
            let over = match next {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        let data = data.clone();
                        self.since_cut += if left { data.len() } else { 0 };
                        self.read(&data);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => self.ended(Some(error)),
                Poll::Ready(None) => self.ended(None),
                Poll::Pending => {
                    self.exchange.poll_alarm(cx);
                    if self.cut.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.leave()
                }
            };
            if let Err(error) = over {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
