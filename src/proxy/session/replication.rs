//! What the session table of this daemon sends to its successor, and applies of its predecessor.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::monotonic;
use crate::model::Moment;
use crate::proxy::session::change_sink::ChangeSink;
use crate::proxy::session::credentials::Owner;
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::live_session::{InFlightGuard, Session};
use crate::proxy::session::persistence::SessionStore;
use crate::proxy::session::record::{
    PersistedSession, SessionLocation, SessionRecord, StoredChange, decode_key,
};
use crate::proxy::session::table::Sessions;
use crate::proxy::session::tracked_requests::TrackedRequests;

/// The bytes of the id of a cancelled request, and of the id of a moved session at its release, that the
/// other daemon is told.
const CANCELLED_ID_MAX: usize = 128;
const MOVED_ID_MAX: usize = 256;

impl Sessions {
    /// Reports every later change to `sink`.
    pub(in crate::proxy) fn set_change_sink(&self, sink: Arc<dyn ChangeSink>) {
        let _ = self.change_sink.set(sink);
    }

    /// Closes the file. Returns whether it contains every change so far. Blocks.
    pub(in crate::proxy) fn close_store(&self) -> bool {
        self.store.get().is_none_or(SessionStore::close)
    }

    /// The record of a session, for the successor. `None` when its id already contains everything:
    /// the proxy did not see its opening. `None` also for an ended session that is still in the table;
    /// its end is sent when it is removed.
    pub(in crate::proxy) fn record(&self, key: SessionKey) -> Option<SessionRecord> {
        let Some(session) = self.by_key.pin().get(&key).cloned() else {
            return Some(SessionRecord::new(&key, None));
        };
        session.to_persisted().map(|persisted| SessionRecord::new(&key, Some(persisted)))
    }

    /// The keys of all sessions.
    pub(in crate::proxy) fn keys(&self) -> Vec<SessionKey> {
        self.by_key.pin().keys().copied().collect()
    }

    /// The keys of the sessions that are busy.
    pub(in crate::proxy) fn busy_keys(&self) -> BTreeSet<SessionKey> {
        let by_key = self.by_key.pin();
        by_key.iter().filter(|(_, session)| session.is_busy()).map(|(key, _)| *key).collect()
    }

    /// Applies a record of the predecessor.
    pub(in crate::proxy) fn apply(&self, record: SessionRecord, now: Moment) {
        let (key, persisted) = match record.into_change() {
            Some(StoredChange::Live(key, persisted)) => (key, persisted),
            Some(StoredChange::Ended(key)) => return self.remove_key(&key),
            None => return,
        };
        self.merge(key, persisted, now);
    }

    /// Applies what the other daemon knows of a live session.
    fn merge(&self, key: SessionKey, persisted: PersistedSession, now: Moment) {
        let by_key = self.by_key.pin();
        let session = match by_key.get(&key) {
            Some(session) => {
                session.merge(persisted);
                Arc::clone(session)
            }
            None if by_key.len() >= self.limits.count => return,
            None => {
                let session = Arc::new(Session::new(key, now, persisted));
                Arc::clone(by_key.get_or_insert(key, session))
            }
        };
        self.mark_changed(&session);
    }

    /// A session moved to another release.
    pub(in crate::proxy) fn mark_moved(&self, session: &Session) {
        self.moves.record(session.key);
        self.mark_changed(session);
    }

    /// Where the sessions are that moved last.
    pub(in crate::proxy) fn recent_moves(&self) -> Vec<SessionLocation> {
        let by_key = self.by_key.pin();
        let keys = self.moves.keys().into_iter();
        let moved = keys.filter_map(|key| by_key.get(&key).map(|session| session.location()));
        moved.filter(|it| it.backend_id.len() <= MOVED_ID_MAX).collect()
    }

    /// The successor moved a session.
    pub(in crate::proxy) fn apply_move(&self, location: &SessionLocation, now: Moment) {
        let Some(key) = decode_key(&location.key) else { return };
        let is_known = |session: &Arc<Session>| session.generation() >= location.generation;
        if self.by_key.pin().get(&key).is_some_and(is_known) {
            return;
        }
        let persisted = PersistedSession {
            release: location.release,
            generation: location.generation,
            backend_id: location.backend_id.clone(),
            snapshot: None,
            opened_at: now,
            owner: Owner::default(),
        };
        self.merge(key, persisted, now);
    }

    /// The requests of a session that its client cancelled, but for very long ids.
    pub(in crate::proxy) fn cancelled_requests(&self, key: &SessionKey) -> Vec<String> {
        let by_key = self.by_key.pin();
        let session = by_key.get(key);
        let cancelled = |it: &mut TrackedRequests| {
            let ids = it.cancelled().filter(|id| id.len() <= CANCELLED_ID_MAX);
            ids.map(str::to_owned).collect()
        };
        session.map(|session| session.with_requests(cancelled)).unwrap_or_default()
    }

    /// The client of a session cancels a request.
    pub(in crate::proxy) fn record_cancellation(&self, session: &Session, id: &str) {
        session.with_requests(|it| it.record_cancellation(id, monotonic()));
        self.notify_sink(session.key);
    }

    /// The client cancelled a request in the predecessor, or in the successor.
    pub(in crate::proxy) fn apply_cancellation(&self, key: &SessionKey, id: &str) {
        if let Some(session) = self.by_key.pin().get(key) {
            session.with_requests(|it| {
                if it.cancelled_at(id).is_none() {
                    it.record_cancellation(id, monotonic());
                }
            });
        }
    }

    /// Keeps a session at its release, because it is busy in the predecessor.
    pub(in crate::proxy) fn pin(&self, key: &SessionKey) -> Option<InFlightGuard> {
        self.by_key.pin().get(key).map(Session::pin)
    }
}
