use std::collections::VecDeque;
use std::sync::Mutex;

use crate::mutex::lock;
use crate::proxy::session::id::SessionKey;

/// The most sessions that are remembered.
const RECENT_MOVES_MAX: usize = 128;

/// The sessions that moved last. The predecessor may get a request of one, on a connection that its client
/// kept.
#[derive(Debug, Default)]
pub(super) struct RecentMoves(Mutex<VecDeque<SessionKey>>);

impl RecentMoves {
    /// Remembers that a session moved.
    pub(super) fn record(&self, key: SessionKey) {
        let mut moves = lock(&self.0);
        moves.retain(|it| *it != key);
        if moves.len() == RECENT_MOVES_MAX {
            moves.pop_front();
        }
        moves.push_back(key);
    }

    /// The sessions, the newest last.
    pub(super) fn keys(&self) -> Vec<SessionKey> {
        lock(&self.0).iter().copied().collect()
    }
}
