//! The handover of a service to another daemon, as the daemon controls it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::proxy::handover::replication::{ReplicatedState, Replication, ReplicationMessage};
use crate::proxy::handover::routes::RoutesSnapshot;
use crate::proxy::{LATE_CONNECTION_TIMEOUT, OPEN_REQUESTS_MAX, Proxy};

/// How long connections may take to close once they are idle: longer than one waits for a request, on which
/// another one may follow.
const IDLE_CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The same where what is open gets an error: a client may still send a request on an idle connection.
const LAST_CLOSE_WAIT: Duration = Duration::from_millis(450);

impl Proxy {
    /// A duplicate of the listener, for the successor. `None` after the listener was closed.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn duplicate_listener(&self) -> io::Result<Option<OwnedFd>> {
        let listener = self.listener.upgrade();
        listener.map(|listener| listener.as_fd().try_clone_to_owned()).transpose()
    }

    /// Stops accepting connections: new clients wait in the backlog for the successor. Open requests
    /// continue. When this returns, the sessions are on disk and their file is closed. Later changes,
    /// and what is open, go to `outbox`.
    pub async fn hand_over(&self, outbox: mpsc::Sender<(String, ReplicationMessage)>) {
        self.lifecycle.stop_accepting.cancel();
        self.wait_accept_stopped().await;
        let router = &self.state.router;
        let state = ReplicatedState {
            service: router.view.load().service.name.as_str().into(),
            sessions: Arc::clone(&router.sessions),
            request_states: Arc::clone(&router.request_states),
            view: Arc::clone(&router.view),
        };
        self.replication.start(state, outbox).await;
    }

    /// Sends everything again, for another successor.
    pub fn resend_all(&self) {
        self.replication.resend_all();
    }

    /// Closes the connections after [`Self::hand_over`]. Each response is the last on its connection,
    /// and GET streams and subscriptions end. Connections without a request may take `timeout`, and so may
    /// requests that the client cancelled. Other open requests may finish: their releases stay in place.
    /// All after `cut_short` or ten minutes get an error.
    pub async fn drain_connections(&self, timeout: Duration, cut_short: &CancellationToken) {
        let closed = async {
            self.start_closing(true).await;
            if tokio::time::timeout(timeout, self.lifecycle.wait_early_closed()).await.is_err() {
                self.close_idle_connections().await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(timeout.max(OPEN_REQUESTS_MAX), closed) => (),
            () = cut_short.cancelled() => (),
        }
        if self.is_busy() {
            self.warn_unfinished_requests();
        }
        self.state.end_streams.cancel();
        self.lifecycle.shutdown.cancel();
        let _ = tokio::time::timeout(LAST_CLOSE_WAIT, self.lifecycle.wait_all_closed()).await;
        // The sessions belong to the successor: they stay, unlike in a cut.
        self.view().routes.backends().iter().for_each(|backend| backend.cut.cancel());
        let _ =
            tokio::time::timeout(LATE_CONNECTION_TIMEOUT, self.lifecycle.wait_all_closed()).await;
    }

    /// Closes each connection once it is idle. Until then a client may send a request on it, also after a
    /// stream on it has ended, and gets its response: nothing is cut yet.
    async fn close_idle_connections(&self) {
        self.lifecycle.close_idle_soon.cancel();
        loop {
            let was_busy = self.is_busy();
            self.view().routes.backends().iter().for_each(|it| it.end_unwanted.cancel());
            let closed = self.lifecycle.wait_early_closed();
            let is_closed = tokio::time::timeout(IDLE_CLOSE_WAIT, closed).await.is_ok();
            // What is left after all that time is a client that does not read.
            if is_closed || !was_busy && !self.is_busy() {
                return;
            }
        }
    }

    /// Sends the remaining changes after [`Self::hand_over`], and ends the replication.
    pub async fn stop_replicating(&self) {
        self.replication.stop().await;
    }

    /// Applies a change that the predecessor sent.
    pub fn apply(&self, message: ReplicationMessage) {
        let router = &self.state.router;
        let (sessions, request_states) = (&router.sessions, &router.request_states);
        self.replication.apply(message, sessions, request_states, router.clock.now());
    }

    /// The predecessor has ended, and with it everything that was open there.
    pub fn predecessor_gone(&self) {
        self.replication.predecessor_gone();
    }

    /// The current routes, for the predecessor. `None` after the shutdown, when all releases are cut.
    pub fn routes_snapshot(&self) -> Option<RoutesSnapshot> {
        let is_shut_down = self.lifecycle.shutdown.is_cancelled();
        let sessions = &self.state.router.sessions;
        (!is_shut_down).then(|| {
            let cancelled = self.replication.cancellations(sessions);
            RoutesSnapshot::of(&self.view(), cancelled, sessions.recent_moves())
        })
    }

    /// Applies the routes of the successor. Releases that are not in the snapshot are cut.
    pub async fn apply_routes(&self, snapshot: &RoutesSnapshot) {
        Replication::apply_cancellations(&self.state.router.sessions, &snapshot.cancelled);
        for route in snapshot.releases() {
            self.add_release(route.number, &route.address());
            if route.draining
                && let Some(backend) = self.backend(route.number)
            {
                backend.draining.cancel();
            }
        }
        // Their releases are there now.
        let router = &self.state.router;
        for location in &snapshot.moved {
            router.sessions.apply_move(location, router.clock.now());
        }
        let is_assigned = snapshot.assignment().is_some_and(|plan| self.assign(plan));
        if let Some(active) = snapshot.active().filter(|_| !is_assigned) {
            self.set_active(active);
        }
        let in_snapshot: BTreeSet<_> = snapshot.releases().iter().map(|it| it.number).collect();
        for backend in self.view().routes.backends() {
            if !in_snapshot.contains(&backend.number) && backend.is_open() {
                self.cut(backend.number).await;
            }
        }
    }
}
