//! The streams of a session, and what its client learns on them about changed lists.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use crate::proxy::session::list_notice::ListNotice;
use crate::proxy::session::live_session::Session;
use crate::proxy::session::resume_at::StreamCommand;

/// A stream of the client that is open, until this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct OpenStream(Arc<Session>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// Whether the client has a stream or a request open: it must not be forgotten.
    pub(in crate::proxy::session) fn is_in_use(&self) -> bool {
        self.open_streams.load(Ordering::Relaxed) > 0 || self.is_busy()
    }

    /// Counts a stream of the client.
    pub(in crate::proxy) fn stream_opened(self: &Arc<Self>) -> OpenStream {
        self.open_streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(self))
    }

    /// Sets the GET stream of the client. It replaces an earlier one.
    pub(in crate::proxy) fn set_listen_stream(&self, stream: mpsc::Sender<StreamCommand>) {
        self.inner().listen_stream = Some(stream);
    }

    /// It has left the table: the GET stream of the client must end.
    pub(in crate::proxy::session) fn mark_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
        self.inner().listen_stream = None;
    }

    /// Whether it has left the table.
    pub(in crate::proxy) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// The GET stream of the client, if it is open.
    pub(in crate::proxy) fn listen_stream(&self) -> Option<mpsc::Sender<StreamCommand>> {
        self.inner().listen_stream.clone().filter(|stream| !stream.is_closed())
    }

    /// The notifications for the next stream to the client; returns each once.
    pub(in crate::proxy) fn take_list_changes(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().changed_lists).list_changed_notifications()
    }

    /// The same notifications before a move: they make the client send a request, and so move. The move
    /// itself then repeats them only if the client has read a list in between.
    pub(in crate::proxy) fn announce_list_changes(&self) -> Vec<String> {
        self.inner().lists = ListNotice::Sent;
        self.list_changes()
    }

    /// The notifications for every list that may differ at another release.
    pub(in crate::proxy) fn list_changes(&self) -> Vec<String> {
        let lists = self.inner().snapshot.as_ref().map(|it| it.list_capabilities());
        lists.unwrap_or_default().list_changed_notifications()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mcp::message::Message;
    use crate::model::{Moment, ReleaseNumber};
    use crate::proxy::session::credentials::Owner;
    use crate::proxy::session::record::PersistedSession;
    use crate::proxy::session::state_machine::{ClientMessageKind, Environment};

    /// The number of notifications after a move that was announced, where the client has sent this
    /// request in between.
    fn repeated(method: &str) -> usize {
        let session = Arc::new(Session::new(
            [0; 16],
            Moment(0),
            PersistedSession {
                release: ReleaseNumber(1),
                generation: 0,
                backend_id: "b".into(),
                snapshot: None,
                opened_at: Moment(0),
                owner: Owner::default(),
            },
        ));
        let offered = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}});
        session.record_opening(br#"{"params":{}}"#, &offered);
        assert_eq!(session.announce_list_changes().len(), 1);
        session.observe(&Message { method: Some(method.into()), ..Message::default() }, None);
        let environment = Environment {
            backend_reachable: false,
            draining: true,
            active: Some(ReleaseNumber(2)),
            migration_forbidden: None,
            in_backoff: false,
        };
        session.admit(ClientMessageKind::Request, environment).unwrap_err();
        session.complete_move("b2");
        session.take_list_changes().len()
    }

    #[test]
    fn a_move_repeats_its_announcement_where_the_client_has_read_a_list_since() {
        assert_eq!((repeated("tools/list"), repeated("tools/call")), (1, 0));
    }
}
