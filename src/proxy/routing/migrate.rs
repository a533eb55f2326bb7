//! Starts the migration of a session, and reports the result to it.

use std::sync::Arc;

use http::uri::PathAndQuery;

use crate::model::{MigrationRefused, ReleaseNumber};
use crate::proxy::backend::Backend;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::request_head::{RequestTarget, to_backend_head};
use crate::proxy::routing::view::CurrentView;
use crate::proxy::session::migration::{MigrationError, MigrationTarget, migrate};
use crate::proxy::session::{Session, Sessions};

/// One migration.
pub(super) struct Migration {
    pub(super) view: Arc<CurrentView>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) session: Arc<Session>,
    /// The target.
    pub(super) to: ReleaseNumber,
    /// The request that caused it, with the credentials of the client.
    pub(super) request: Arc<ClientRequest>,
}

impl Migration {
    /// Migrates the session, and reports the result to it. This also completes when the client that
    /// waits for it disconnects.
    pub(super) async fn run(self) -> Result<(), MigrationError> {
        let migration = tokio::spawn(self.migrate());
        migration.await.unwrap_or(Err(MigrationRefused::OpenFailed.into()))
    }

    async fn migrate(self) -> Result<(), MigrationError> {
        let Self { view: current, sessions, session, to, request } = self;
        let (view, from) = (current.load(), session.release());
        let target = |backend: &Arc<Backend>| {
            let target = RequestTarget { authority: &backend.authority, backend_id: "" };
            let mut head = to_backend_head(&request, target, &view.service);
            // A request for a page or an image is no message to the endpoint.
            if !request.is_mcp() {
                let path = PathAndQuery::try_from(view.service.path.as_str()).ok();
                head.uri = path.map_or(head.uri, Into::into);
            }
            MigrationTarget { backend: Arc::clone(backend), head }
        };
        // A release that lost the session has nothing to close.
        let is_lost = session.with_machine(|machine| machine.is_lost());
        let source = view.routes.get(from).filter(|_| !is_lost).map(target);
        let timeout = view.service.limits.migration_timeout;
        let migrated = match view.routes.get_open(to).map(target) {
            Some(target) => migrate(&session, source, target, timeout).await,
            None => Err(MigrationRefused::OpenFailed.into()),
        };
        match &migrated {
            Ok(()) => sessions.mark_moved(&session),
            Err(error) => {
                let is_known = session.pin_reason(None) == Some(error.reason);
                session.refuse_move(error.reason, current.load().can_stay(&session));
                let (service, reason) = (&view.service.name, error.reason.label());
                // It is tried again with each of its requests.
                if !is_known {
                    let (from, to) = (from.0, to.0);
                    tracing::info!(service, from, to, "session not migrated: {reason}");
                }
            }
        }
        migrated
    }
}
