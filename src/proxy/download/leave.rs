//! How a body ends, or goes on, when its release is left.

use std::io;

use bytes::Bytes;

use crate::model::Class;

use super::{Beside, Download, Reader};
use crate::proxy::exchange::Kind;
use crate::proxy::held::{Happening, Held, Sequel};
use crate::proxy::listening::Next;
use crate::proxy::notice::{self, Cause};
use crate::proxy::rewrite::Rewriter;
use crate::proxy::sse::{self, Events};

/// How long a client should wait before it opens its stream again.
const RETRY_MS: u32 = 1_000;

impl Download {
    /// Ends an event that was passed on in part.
    pub(super) fn separate(&mut self) {
        if !self.is_between() {
            self.ready.push_back(Bytes::from_static(b"\n\n"));
        }
    }

    /// Whether what was passed on ends with an event.
    fn is_between(&self) -> bool {
        let between = matches!(&self.reader, Reader::Events(events) if events.between());
        between || self.rewriter.is_some()
    }

    /// The stream stays, without a release, until its session is at another one.
    pub(super) fn drift(&mut self, held: &Held) {
        self.body = None;
        self.separate();
        self.reader = Reader::Events(Events::new());
        for id in held.session.take_parked(self.exchange.generation) {
            self.ready.push_back(sse::event(&notice::error(&id, Cause::Rollback)));
            self.exchange.upstream.answered();
        }
        self.exchange.let_go();
    }

    pub(super) fn happens(&mut self, mut held: Box<Held>, happening: Happening) -> io::Result<()> {
        match happening {
            Happening::Moved(onward) => {
                self.drift(&held);
                self.ready.extend(held.session.take_news().iter().map(|news| sse::event(news)));
                self.exchange = held.go_on(*onward);
                self.cut = Box::pin(self.exchange.upstream.cut.clone().cancelled_owned());
            }
            Happening::Opened(body) => {
                self.body = Some(body);
                self.reader = Reader::Events(Events::new());
                self.rewriter = Rewriter::new(self.exchange.generation, false);
            }
            // Within an event nothing can be put in; then it is heard with the move.
            Happening::Left if !self.is_between() => (),
            Happening::Left => {
                self.ready.extend(held.session.lists().iter().map(|news| sse::event(news)));
            }
            Happening::Over => return self.leave(),
            Happening::Replaced => {
                if self.body.is_none() {
                    return self.leave();
                }
                return Ok(());
            }
        }
        self.held = Some(held);
        Ok(())
    }

    /// The next release was asked to go on with a subscription, or nobody is any more.
    pub(super) fn listened(&mut self, next: Next) -> Beside {
        let (body, exchange) = match next {
            Next::At(body, exchange) => (body, *exchange),
            // While its own release lives, it stays there; else it ends gracefully.
            Next::Nowhere if self.body.is_some() => {
                self.listening = None;
                return Beside::Again;
            }
            Next::Nowhere | Next::Over => {
                self.listening = None;
                let left = self.leave();
                return left.map_or_else(|error| Beside::Next(Err(error)), |()| Beside::Again);
            }
        };
        self.separate();
        if let Some(listening) = &mut self.listening {
            listening.at(&exchange);
            self.ready.extend(listening.news().iter().map(|news| sse::event(news)));
        }
        self.exchange.upstream.moved();
        self.exchange = exchange;
        self.cut = Box::pin(self.exchange.upstream.cut.clone().cancelled_owned());
        self.body = Some(body);
        self.reader = Reader::Events(Events::new());
        self.rewriter = Some(Rewriter::acknowledged());
        Beside::Again
    }

    /// The release was left.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.body = None;
        if !matches!(self.reader, Reader::Events(_)) {
            self.exchange.end(Class::Neutral);
            self.exchange.upstream.lost();
            return Err(io::Error::other("the release was left in the middle of its answer"));
        }
        self.separate();
        if let Some(retry) = self.retry.take() {
            self.exchange.replay();
            self.sequel = Some(Sequel::Asked(retry.ask()));
            return Ok(());
        }
        match self.exchange.kind() {
            Kind::Call => self.answer(Cause::Rollback),
            Kind::Listen => {
                let over: Vec<_> =
                    self.exchange.open_ids().into_iter().map(notice::listen_over).collect();
                self.ready.extend(over.iter().map(|result| sse::event(result)));
                self.exchange.upstream.unheard();
                self.exchange.upstream.closed();
            }
            Kind::Stream | Kind::Plain | Kind::Adrift => {
                let session = self.exchange.session.clone();
                let parked = session.as_ref().map(|session| session.take_parked(u32::MAX));
                for id in parked.unwrap_or_default() {
                    self.ready.push_back(sse::event(&notice::error(&id, Cause::Rollback)));
                    self.exchange.upstream.answered();
                }
                let moved = self.exchange.upstream.left.is_cancelled();
                self.ready.push_back(sse::event(&notice::closing(moved)));
                if let Some(refusal) = session.as_ref().and_then(|session| session.ended()) {
                    let closing = notice::session_closing(refusal.word());
                    self.ready.push_back(sse::event(&closing));
                    let lists = session.map(|session| session.lists()).unwrap_or_default();
                    self.ready.extend(lists.iter().map(|news| sse::event(news)));
                }
                self.ready.push_back(sse::retry(RETRY_MS));
                self.exchange.upstream.closed();
            }
        }
        self.exchange.end(Class::Neutral);
        Ok(())
    }

    /// Nor does the release that took over answer what was asked again.
    pub(super) fn unanswered(&mut self) {
        self.separate();
        let (ids, _) = self.exchange.all_ids();
        for id in ids {
            self.ready.push_back(sse::event(&notice::error(&id, Cause::Rollback)));
            self.exchange.upstream.answered();
        }
    }

    /// An error of ours for each request that waits on this stream.
    pub(super) fn answer(&mut self, cause: Cause) {
        let errors: Vec<_> =
            self.exchange.open_ids().into_iter().map(|id| notice::error(id, cause)).collect();
        for error in &errors {
            self.ready.push_back(sse::event(error));
            self.exchange.upstream.answered();
        }
    }
}
