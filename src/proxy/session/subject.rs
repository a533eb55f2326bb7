//! What the assignment of a trial needs to know of a session.

use crate::model::Moment;
#[cfg(test)]
use crate::proxy::session::id::SessionId;
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::live_session::Session;

#[cfg(test)]
impl SessionId {
    /// Identifies the session.
    pub(in crate::proxy) fn key(&self) -> &SessionKey {
        &self.key
    }
}

impl Session {
    /// Identifies it, also after it has moved.
    pub(in crate::proxy) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// When it was opened.
    pub(in crate::proxy) fn opened_at(&self) -> Moment {
        self.opened_at
    }
}
