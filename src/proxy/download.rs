//! An answer's body on its way to the client.
//!
//! Nothing is held: each piece is read as it passes, and passed on. When the release is left, or
//! fails in the middle, the proxy ends the stream in a way that clients understand.

mod leave;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::model::Class;

use super::classify;
use super::exchange::{Exchange, Kind};
use super::front::Front;
use super::held::{Held, Retry, Sequel};
use super::listening::Listening;
use super::notice::{self, Cause};
use super::reply::Later;
use super::rewrite::Rewriter;
use super::scan::Scan;
use super::sse::{self, Events};

/// Bytes of a JSON answer that may still come after its release was left.
const AFTER_CUT_MAX: usize = 1024 * 1024;

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
    rewriter: Option<Rewriter>,
    front: Option<Arc<Front>>,
    held: Option<Box<Held>>,
    retry: Option<Box<Retry>>,
    listening: Option<Box<Listening>>,
    sequel: Option<Sequel>,
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

/// What comes from elsewhere than the body.
pub(super) enum Beside {
    /// Nothing now.
    Nothing,
    /// Something changed.
    Again,
    /// This.
    Next(io::Result<Frame<Bytes>>),
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
        let cut = Box::pin(exchange.upstream.cut.clone().cancelled_owned());
        let rewriter = None;
        let (front, held, retry, listening, sequel) = (None, None, None, None, None);
        let body = Some(body);
        let since_cut = 0;
        Self {
            ready,
            body,
            reader,
            status,
            exchange,
            since_cut,
            broken: false,
            cut,
            rewriter,
            front,
            held,
            retry,
            listening,
            sequel,
        }
    }

    /// Events that belong to a session: what changed since, and what has to be read differently.
    pub(super) fn told(mut self, front: &Arc<Front>) -> Self {
        if self.exchange.clamp {
            self.rewriter = Some(Rewriter::clamping());
        }
        let Some(session) = &self.exchange.session else { return self };
        let opening = self.exchange.opening.is_some();
        self.rewriter = Rewriter::new(self.exchange.generation, opening);
        self.front = opening.then(|| Arc::clone(front));
        // Where the client listens, it hears it there.
        if session.stream().is_none() {
            let news = session.take_news();
            self.ready.extend(news.iter().map(|news| sse::event(news)));
        }
        self
    }

    /// A stream that goes on when its session moves.
    pub(super) fn held(mut self, held: Option<Box<Held>>) -> Self {
        if let Some(held) = &held {
            let generation = self.exchange.generation;
            self.rewriter = Rewriter::new(generation, false);
            self.ready.extend(held.session.take_news().iter().map(|news| sse::event(news)));
            // What waited on a stream of a release that was left will not be answered any more.
            if let Some(before) = generation.checked_sub(1) {
                for id in held.session.take_parked(before) {
                    self.ready.push_back(sse::event(&notice::error(&id, Cause::Rollback)));
                }
            }
        }
        self.held = held;
        self
    }

    /// How it goes on when its release is left.
    pub(super) fn repeatable(mut self, later: Later) -> Self {
        self.retry = later.retry.map(Box::new);
        self.listening = later.listening;
        self
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

    /// What the client gets for a piece of the release's answer.
    fn passed(&mut self, data: Bytes) -> Bytes {
        let Some(rewriter) = &mut self.rewriter else { return data };
        let out = rewriter.feed(&data);
        if let (Some(result), Some(front)) = (rewriter.result.take(), &self.front)
            && let Some(opening) = self.exchange.opening.take()
        {
            front.opened(&self.exchange, &opening, &result);
        }
        out
    }

    /// The release ended its answer, well or not.
    fn ended(&mut self, error: Option<hyper::Error>) -> io::Result<()> {
        self.body = None;
        if let Some(rest) = self.rewriter.as_mut().map(Rewriter::rest).filter(|it| !it.is_empty()) {
            self.ready.push_back(rest);
        }
        // While its release is being left, the stream waits for its session; else it ends with it.
        let left = self.exchange.upstream.left.is_cancelled();
        if self.listening.as_ref().is_some_and(|listening| listening.is_opening()) {
            return Ok(());
        }
        self.listening = None;
        match self.held.take() {
            Some(held) if left && !held.session.is_over() => {
                self.drift(&held);
                self.held = Some(held);
                return Ok(());
            }
            _ => (),
        }
        let unanswered = !self.exchange.open_ids().is_empty();
        self.broken = match self.exchange.kind() {
            // Its end is its result.
            Kind::Listen => unanswered,
            Kind::Stream => error.is_some(),
            Kind::Call | Kind::Plain | Kind::Adrift => false,
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
}

impl Drop for Download {
    fn drop(&mut self) {
        let listens = match self.exchange.kind() {
            Kind::Listen => true,
            Kind::Stream => matches!(self.reader, Reader::Events(_)),
            Kind::Call | Kind::Plain | Kind::Adrift => false,
        };
        if listens && self.status.is_success() {
            self.exchange.upstream.tally.stream(self.broken);
        }
    }
}

impl Download {
    /// Whether nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        let opening = self.listening.as_ref().is_some_and(|it| it.is_opening());
        let more = opening || self.held.is_some() || self.sequel.is_some() || self.body.is_some();
        !more && self.ready.is_empty()
    }

    /// What comes from elsewhere than the release's body. Pending: there is no body either.
    fn poll_beside(&mut self, cx: &mut Context<'_>) -> Poll<Beside> {
        if let Some(sequel) = &mut self.sequel {
            match std::task::ready!(sequel.poll(cx)) {
                Some(Ok(data)) => return Poll::Ready(Beside::Next(Ok(Frame::data(data)))),
                Some(Err(())) => self.unanswered(),
                None => (),
            }
            self.sequel = None;
            return Poll::Ready(Beside::Again);
        }
        if let Some(mut listening) = self.listening.take() {
            let (next, opening) = (listening.poll(cx), listening.is_opening());
            self.listening = Some(listening);
            match next {
                Poll::Ready(next) => return Poll::Ready(self.listened(next)),
                Poll::Pending if self.body.is_none() && opening => return Poll::Pending,
                Poll::Pending => (),
            }
        }
        let Some(mut held) = self.held.take() else { return Poll::Ready(Beside::Nothing) };
        match held.poll(cx) {
            Poll::Ready(happening) => Poll::Ready(match self.happens(held, happening) {
                Ok(()) => Beside::Again,
                Err(error) => Beside::Next(Err(error)),
            }),
            Poll::Pending => {
                self.held = Some(held);
                if self.body.is_none() { Poll::Pending } else { Poll::Ready(Beside::Nothing) }
            }
        }
    }

    /// The next piece.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match std::task::ready!(self.poll_beside(cx)) {
                Beside::Nothing => (),
                Beside::Again => continue,
                Beside::Next(next) => return Poll::Ready(Some(next)),
            }
            let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
            // A stream that never pauses has to be left too; other answers may finish what is on
            // its way, but not go on for ever.
            let left = self.exchange.upstream.cut.is_cancelled();
            let leave = left
                && (matches!(self.reader, Reader::Events(_)) || self.since_cut > AFTER_CUT_MAX);
            let next = if leave { Poll::Pending } else { Pin::new(body).poll_frame(cx) };
            let over = match next {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        let data = data.clone();
                        self.since_cut += if left { data.len() } else { 0 };
                        self.read(&data);
                        let data = self.passed(data);
                        if data.is_empty() {
                            continue;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(data))));
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
                    match self.held.take() {
                        // The next release is asked to go on.
                        _ if self.listening.as_ref().is_some_and(|it| it.is_opening()) => {
                            self.body = None;
                            Ok(())
                        }
                        Some(held) if !held.session.is_over() => {
                            self.drift(&held);
                            self.held = Some(held);
                            Ok(())
                        }
                        _ => self.leave(),
                    }
                }
            };
            if let Err(error) = over {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
