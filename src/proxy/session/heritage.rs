//! What a table of sessions tells the one that takes over from it, while what is open here ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::store::Line;
use super::{Mac, Session, Sessions, Turn};
use crate::model::Moment;
use crate::proxy::overlap::{Note, Tell};

impl Sessions {
    /// Tells, from now on, which sessions change.
    pub(in crate::proxy) fn tell(&self, tell: Arc<Tell>) {
        let _ = self.tell.set(tell);
    }

    /// Lets go of the file. Whether all that changed so far is in it. Blocks.
    pub(in crate::proxy) fn close(&self) -> bool {
        self.store.get().is_none_or(super::Store::close)
    }

    /// What is kept of a session; `None` where there is nothing to be told.
    pub(in crate::proxy) fn line(&self, key: Mac) -> Option<Line> {
        let Some(session) = self.live.pin().get(&key).cloned() else {
            return Some(Line::new(&key, None));
        };
        // Of one that nobody saw being opened, its id tells as much.
        session.kept().map(|kept| Line::new(&key, Some(kept)))
    }

    /// All of them.
    pub(in crate::proxy) fn keys(&self) -> Vec<Mac> {
        self.live.pin().keys().copied().collect()
    }

    /// Those of which something is under way.
    pub(in crate::proxy) fn busy(&self) -> BTreeSet<Mac> {
        let live = self.live.pin();
        live.iter().filter(|(_, session)| session.is_busy()).map(|(key, _)| *key).collect()
    }

    /// Takes up what the table before this one tells.
    pub(in crate::proxy) fn hear(&self, line: Line, now: Moment) {
        let Some((key, kept)) = line.read() else { return };
        let Some(kept) = kept else {
            self.forget(&key);
            return;
        };
        let live = self.live.pin();
        let session = match live.get(&key) {
            Some(session) => {
                session.inherit(kept);
                Arc::clone(session)
            }
            None if live.len() >= self.max => return,
            None => {
                let session = Arc::new(Session::new(key, now, kept));
                Arc::clone(live.get_or_insert(key, session))
            }
        };
        self.note(&session);
    }

    /// Keeps a session where it is: something of it is under way elsewhere.
    pub(in crate::proxy) fn occupy(&self, key: &Mac) -> Option<Turn> {
        self.live.pin().get(key).map(Session::occupy)
    }
}

/// What tells sessions apart, as text.
pub(in crate::proxy) fn name(key: &Mac) -> String {
    BASE64.encode(key)
}

/// The same, back.
pub(in crate::proxy) fn named(name: &str) -> Option<Mac> {
    BASE64.decode(name).ok()?.try_into().ok()
}

impl Sessions {
    pub(super) fn told(&self, key: Mac) {
        if let Some(tell) = self.tell.get() {
            tell.note(Note::Session(key));
        }
    }
}
