//! Starts the migration of a session, and reports the result to it.

use std::net::IpAddr;
use std::sync::Arc;

use http::request;

use crate::model::{MigrationRefused, ReleaseNumber};
use crate::proxy::backend::Backend;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::routing::router::Route;
use crate::proxy::session::Session;
use crate::proxy::session::migration;
use crate::proxy::session::migration::{MigrationError, MigrationTarget};

impl ProxyState {
    /// Migrates a session, and reports the result to it. This also completes when the client that
    /// waits for it disconnects.
    pub(in crate::proxy) async fn migrate_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        to: ReleaseNumber,
        head: &request::Parts,
        peer: IpAddr,
    ) -> Result<(), MigrationError> {
        let (state, session, head) = (Arc::clone(self), Arc::clone(session), head.clone());
        let migration = tokio::spawn(async move { state.migrate(&session, to, &head, peer).await });
        migration.await.unwrap_or(Err(MigrationRefused::OpenFailed.into()))
    }

    async fn migrate(
        &self,
        session: &Session,
        to: ReleaseNumber,
        head: &request::Parts,
        peer: IpAddr,
    ) -> Result<(), MigrationError> {
        let (routes, from) = (self.routes.load_full(), session.release());
        let target = |backend: &Arc<Backend>| {
            let mut head = head.clone();
            self.to_backend_head(&mut head, &Route::new(Arc::clone(backend), None), peer);
            MigrationTarget { backend: Arc::clone(backend), head }
        };
        // A release that lost the session has nothing to close.
        let is_lost = session.with_machine(|machine| machine.is_lost());
        let source = routes.get(from).filter(|_| !is_lost).map(target);
        let timeout = self.service.load().limits.migration_timeout;
        let migrated = match routes.get_open(to).map(target) {
            Some(target) => migration::migrate(session, source, target, timeout).await,
            None => Err(MigrationRefused::OpenFailed.into()),
        };
        match &migrated {
            Ok(()) => self.sessions.mark_changed(session),
            Err(error) => {
                session.refuse_move(error.reason, self.can_stay(session));
                let (service, reason) = (&self.service.load().name, error.reason.label());
                tracing::info!(service, from = from.0, to = to.0, "session not migrated: {reason}");
            }
        }
        migrated
    }
}
