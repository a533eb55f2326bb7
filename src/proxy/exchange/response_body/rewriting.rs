//! How the events of a stream change on their way to the client.

use std::sync::Arc;

use bytes::Bytes;

use crate::proxy::exchange::held_events::{HeldByStream, HeldEvents};
use crate::proxy::exchange::id_rewrite::Rewriter;
use crate::proxy::exchange::response_body::{OpeningCapture, ResponseBody};

impl ResponseBody {
    /// Rewrites what follows in this way. Only a rewriter holds events, so that other streams cost
    /// nothing here. What the one before holds of an event is dropped: the client has none of it.
    pub(super) fn set_rewriter(&mut self, rewriter: Option<Rewriter>, all: &Arc<HeldEvents>) {
        self.stop_rewriting();
        if rewriter.is_some() && self.held.is_none() {
            self.held = Some(all.stream());
        }
        self.rewriter = rewriter;
    }

    /// Rewrites nothing any more, and drops what is held of an event.
    pub(super) fn stop_rewriting(&mut self) {
        self.rewriter = None;
        self.held.iter_mut().for_each(|held| held.set_incomplete(0));
    }

    /// The client gets what is held of an event that has no end.
    pub(super) fn flush_incomplete(&mut self) {
        let rest = self.rewriter.as_mut().map(Rewriter::take_rest);
        self.ready.extend(rest.filter(|it| !it.is_empty()));
        self.stop_rewriting();
    }

    /// Rewrites one piece of the body.
    pub(super) fn rewrite(&mut self, data: Bytes) -> Bytes {
        let Some(rewriter) = &mut self.rewriter else { return data };
        let out = rewriter.feed(&data);
        if let Some(held) = &mut self.held {
            held.set_incomplete(rewriter.incomplete_bytes());
        }
        if let Some(result) = rewriter.initialize_result.take()
            && let Some(OpeningCapture { router, request }) = self.opening.take()
            && let Some(session) = &self.in_flight.session
        {
            router.session_opened(session, &request, &result);
        }
        match &mut self.held {
            Some(held) => held.put(out),
            None => out,
        }
    }

    /// Whether all that the client got ends with a whole event.
    pub(super) fn at_event_boundary(&self) -> bool {
        match &self.rewriter {
            Some(rewriter) => rewriter.at_event_boundary(),
            None => self.reader.at_event_boundary(),
        }
    }

    /// Whether nothing waits for the client in pieces.
    pub(super) fn holds_nothing(&self) -> bool {
        self.held.as_ref().is_none_or(HeldByStream::is_empty)
    }
}
