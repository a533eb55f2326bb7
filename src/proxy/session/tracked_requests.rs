//! Requests of one session that the proxy remembers after their HTTP exchange: those that the client
//! cancelled, and those whose response comes on a stream that the client has yet to open.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::mcp::message::same_id;

/// The most requests that are remembered of each kind.
const TRACKED_REQUESTS_MAX: usize = 64;

/// The remembered requests of one session.
#[derive(Debug, Default)]
pub(in crate::proxy) struct TrackedRequests {
    cancelled: VecDeque<Cancellation>,
    detached: Vec<DetachedRequest>,
    /// When the client last replied to a request of the server.
    pub(in crate::proxy) replied_at: Option<Instant>,
}

#[derive(Debug)]
struct Cancellation {
    id: Box<str>,
    at: Instant,
}

/// A request whose response comes on another stream.
#[derive(Debug)]
struct DetachedRequest {
    generation: u32,
    id: Box<str>,
}

impl TrackedRequests {
    /// Records that the client cancelled a request. It uses each id once in a session.
    pub(in crate::proxy) fn record_cancellation(&mut self, id: &str, at: Instant) {
        if self.cancelled.len() == TRACKED_REQUESTS_MAX {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back(Cancellation { id: id.into(), at });
    }

    /// When the client cancelled a request, if it did.
    pub(in crate::proxy) fn cancelled_at(&self, id: &str) -> Option<Instant> {
        self.cancelled.iter().find(|it| same_id(&it.id, id)).map(|it| it.at)
    }

    /// The requests that the client cancelled.
    pub(super) fn cancelled(&self) -> impl Iterator<Item = &str> {
        self.cancelled.iter().map(|it| &*it.id)
    }

    /// Records a detached request; `false` if there are too many.
    pub(super) fn add_detached(&mut self, generation: u32, id: &str) -> bool {
        let has_room = self.detached.len() < TRACKED_REQUESTS_MAX;
        if has_room {
            self.detached.push(DetachedRequest { generation, id: id.into() });
        }
        has_room
    }

    /// Removes a detached request; returns its generation.
    pub(super) fn remove_detached(&mut self, id: &str) -> Option<u32> {
        let at = self.detached.iter().position(|it| same_id(&it.id, id))?;
        Some(self.detached.remove(at).generation)
    }

    /// Removes the detached requests up to a generation; returns each id with its generation.
    pub(super) fn take_detached(&mut self, generation: u32) -> Vec<(u32, Box<str>)> {
        let taken = self.detached.extract_if(.., |it| it.generation <= generation);
        taken.map(|it| (it.generation, it.id)).collect()
    }
}
