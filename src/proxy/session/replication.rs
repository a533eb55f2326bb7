//! What a table of sessions tells the one that takes over from it, while what is open here ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::model::Moment;
use crate::proxy::handover::replication::{ChangeQueue, LocalChange};
use crate::proxy::session::persistence::SessionRecord;
use crate::proxy::session::{InFlightGuard, Session, SessionKey, Sessions};

impl Sessions {
    /// Tells, from now on, which sessions change.
    pub(in crate::proxy) fn set_change_sink(&self, sink: Arc<ChangeQueue>) {
        let _ = self.change_sink.set(sink);
    }

    /// Lets go of the file. Whether all that changed so far is in it. Blocks.
    pub(in crate::proxy) fn close_store(&self) -> bool {
        self.store.get().is_none_or(crate::proxy::session::SessionStore::close)
    }

    /// What is kept of a session; `None` where there is nothing to be told.
    pub(in crate::proxy) fn record(&self, key: SessionKey) -> Option<SessionRecord> {
        let Some(session) = self.by_key.pin().get(&key).cloned() else {
            return Some(SessionRecord::new(&key, None));
        };
        // Of one that nobody saw being opened, its id tells as much.
        session.to_persisted().map(|kept| SessionRecord::new(&key, Some(kept)))
    }

    /// All of them.
    pub(in crate::proxy) fn keys(&self) -> Vec<SessionKey> {
        self.by_key.pin().keys().copied().collect()
    }

    /// Those of which something is under way.
    pub(in crate::proxy) fn busy_keys(&self) -> BTreeSet<SessionKey> {
        let by_key = self.by_key.pin();
        by_key.iter().filter(|(_, session)| session.is_busy()).map(|(key, _)| *key).collect()
    }

    /// Takes up what the table before this one tells.
    pub(in crate::proxy) fn apply(&self, record: SessionRecord, now: Moment) {
        let Some((key, persisted)) = record.into_parts() else { return };
        let Some(persisted) = persisted else {
            self.remove_key(&key);
            return;
        };
        let by_key = self.by_key.pin();
        let session = match by_key.get(&key) {
            Some(session) => {
                session.merge_from_predecessor(persisted);
                Arc::clone(session)
            }
            None if by_key.len() >= self.max => return,
            None => {
                let session = Arc::new(Session::new(key, now, persisted));
                Arc::clone(by_key.get_or_insert(key, session))
            }
        };
        self.mark_changed(&session);
    }

    /// Keeps a session where it is: something of it is under way elsewhere.
    pub(in crate::proxy) fn pin(&self, key: &SessionKey) -> Option<InFlightGuard> {
        self.by_key.pin().get(key).map(Session::pin)
    }
}

/// What tells sessions apart, as text.
pub(in crate::proxy) fn encode_key(key: &SessionKey) -> String {
    BASE64.encode(key)
}

/// The same, back.
pub(in crate::proxy) fn decode_key(text: &str) -> Option<SessionKey> {
    BASE64.decode(text).ok()?.try_into().ok()
}

impl Sessions {
    pub(super) fn notify_sink(&self, key: SessionKey) {
        if let Some(sink) = self.change_sink.get() {
            sink.push(LocalChange::Session(key));
        }
    }
}
