//! The built-in data plane: one listener per service, in front of its releases.
//!
//! A request passes [`gate`] (who may ask), finds its release in [`passage`] (a legacy session's
//! own, the one in [`request_states`], or the active one; [`mover`] opens the session anew where its own is
//! left), is held against its headers by [`mirror`], is read by [`scan`] and [`sse`] as it passes,
//! and leaves one outcome per JSON-RPC request in its release's [`tally`]. When a release has to be left, [`download`] and
//! [`answer`] end what is open in a way that clients understand. What failed on a release on trial
//! is kept by [`repeat`], and asked once more of the warm one by [`shadow`], for nobody but the judge.

mod backend;
mod exchange;
mod handover;
mod routing;
mod server;
mod session;
mod shadow;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
pub use session::SessionIdSecret;
use session::Sessions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Address, Service, SessionState};
use crate::model::{CallKey, Counts, DrainCost, Moment, ReleaseLoad, ReleaseNumber};
use crate::proxy::backend::Backend;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::handover::replication::Replication;
pub use crate::proxy::handover::replication::ReplicationMessage;
pub use crate::proxy::handover::routes::RoutesSnapshot;
use crate::proxy::routing::routing_table::RoutingTable;
pub use crate::proxy::server::accept::bind;
use crate::proxy::server::connections::Lifecycle;
use crate::proxy::shadow::samples::ReadOnlyTools;

/// How often the end of a drain is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long what was cut may take to be gone. Less than the state machine waits for the answer, or
/// a client that never reads would look like a proxy that does not answer.
const CUT_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections in use get their last answer within this; those that are silent are closed after it.
const LAST_RESPONSE_WAIT: Duration = Duration::from_millis(300);
/// How long a moment is waited for in which nobody has been waiting for long.
const RECENT_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a client that came late may take over its one request.
const LATE_CONNECTION_TIMEOUT: Duration = Duration::from_millis(700);
/// How often it is looked whether somebody still accepts.
const LISTENER_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// What a session is expected to last before any was seen to.
const DEFAULT_SESSION_LIFE: f64 = 60.0;

/// The proxy of one service.
#[derive(Debug, Clone)]
pub struct Proxy {
    state: Arc<ProxyState>,
    lifecycle: Arc<Lifecycle>,
    read_only_tools: Arc<ReadOnlyTools>,
    replication: Arc<Replication>,
    listener: Weak<TcpListener>,
    local_addr: std::net::SocketAddr,
}

impl Proxy {
    /// Listens on the service's address. Until a release is routed to, requests are answered with
    /// an error for their id.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub fn start(service: &Service, key: SessionIdSecret, clock: Clock) -> io::Result<Self> {
        Self::restore(service, key, clock, None)
    }

    /// The same, with the sessions that a file tells of; it is kept up to date.
    ///
    /// # Errors
    /// When the address can not be listened on, or the file not be read or written.
    pub fn restore(
        service: &Service,
        key: SessionIdSecret,
        clock: Clock,
        file: Option<&Path>,
    ) -> io::Result<Self> {
        let proxy = Self::with_listener(bind(service.listen)?, service, key, clock, file)?;
        proxy.start_accepting();
        Ok(proxy)
    }

    /// Serves a listener, but no client before [`Self::start_accepting`]: they wait in its backlog.
    ///
    /// # Errors
    /// When the listener has no address, or the file of sessions can not be read or written.
    pub fn with_listener(
        listener: TcpListener,
        service: &Service,
        key: SessionIdSecret,
        clock: Clock,
        file: Option<&Path>,
    ) -> io::Result<Self> {
        let sessions = Sessions::new(&service.name, key, service.limits.sessions_max);
        if let Some(file) = file {
            sessions.open_store(file, clock.now())?;
        }
        let state = Arc::new(ProxyState {
            service: ArcSwap::from_pointee(service.clone()),
            routes: ArcSwap::from_pointee(RoutingTable::default()),
            sessions,
            clock,
            request_states: Arc::default(),
            trial: AtomicU32::new(0),
            migrating_from: AtomicU32::new(0),
            end_streams: CancellationToken::new(),
        });
        let lifecycle = Arc::new(Lifecycle::default());
        let (local_addr, listener) = (listener.local_addr()?, Arc::new(listener));
        let (connections, weak_listener) =
            (service.limits.connections_max, Arc::downgrade(&listener));
        let accepting = server::accept::accept_loop(
            listener,
            Arc::clone(&state),
            connections,
            Arc::clone(&lifecycle),
        );
        tokio::spawn(accepting);
        let read_only_tools = Arc::new(ReadOnlyTools::default());
        read_only_tools.set_configured(service.limits.repeatable_tools.clone());
        Ok(Self {
            state,
            lifecycle,
            read_only_tools,
            replication: Arc::default(),
            listener: weak_listener,
            local_addr,
        })
    }

    /// Lets clients in, from now on.
    pub fn start_accepting(&self) {
        self.lifecycle.accepting.cancel();
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.local_addr
    }

    /// Takes new settings, but for the address and the number of connections and sessions.
    pub fn configure(&self, service: &Service) {
        self.state.service.store(Arc::new(service.clone()));
        self.read_only_tools.set_configured(service.limits.repeatable_tools.clone());
        self.refresh_read_only_tools();
    }

    /// Makes a release reachable, without giving it anything; also one that was left before.
    pub fn add_release(&self, number: ReleaseNumber, address: &Address) {
        let reachable = self.state.routes.load().get_open(number).is_some();
        if !reachable {
            let (read_only_tools, request_states) =
                (Arc::clone(&self.read_only_tools), Arc::clone(&self.state.request_states));
            let backend =
                Arc::new(Backend::new(number, address.clone(), read_only_tools, request_states));
            self.state.routes.rcu(|routes| routes.with_backend(Arc::clone(&backend)));
        }
    }

    /// Says that a release may still be starting, as after a boot of the host: for so long, requests
    /// wait for its first connection instead of being refused.
    pub fn allow_startup(&self, number: ReleaseNumber, grace: Duration) {
        if let Some(backend) = self.backend(number) {
            backend.set_startup_deadline(tokio::time::Instant::now() + grace);
        }
    }

    /// Gives new sessions and stateless requests to a release. The next request meets it. False,
    /// and nothing changed, when the release is not reachable.
    pub fn set_active(&self, number: ReleaseNumber) -> bool {
        self.state.routes.rcu(|routes| routes.with_active(number));
        self.state.routes.load().active().is_some_and(|active| active.number == number)
    }

    /// Says which release is on trial: what it lets clients keep, they keep for a few seconds only.
    pub fn set_trial(&self, number: Option<ReleaseNumber>) {
        // Releases are counted from 1.
        self.state.trial.store(number.map_or(0, |number| number.0), Ordering::Relaxed);
    }

    /// Says which release gives its sessions to the active one, each at its next request, though it
    /// is not left: what can not move stays.
    pub fn migrate_sessions_from(&self, number: Option<ReleaseNumber>) {
        self.state.migrating_from.store(number.map_or(0, |number| number.0), Ordering::Relaxed);
    }

    /// Waits until nothing that has to end at a release is open there, at most `patience`; then cuts
    /// it. Meanwhile its sessions move to the active release, each at its next request.
    pub async fn drain(&self, number: ReleaseNumber, timeout: Duration) -> DrainCost {
        let backend = self.state.routes.load().get(number).cloned();
        if let Some(backend) = backend {
            backend.draining.cancel();
            let is_busy = || {
                backend.in_flight_requests.load(Ordering::Relaxed) > 0
                    || self.replication.predecessor_in_flight(number) > 0
                    || backend.subscriptions.load(Ordering::Relaxed) > 0
                    || self.state.sessions.any_pinned_or_busy(number, self.state.pinned_reason())
            };
            let done = async {
                while is_busy() {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            };
            tokio::select! {
                () = done => (),
                () = tokio::time::sleep(timeout) => (),
                () = backend.cut.cancelled() => (),
            }
        }
        self.cut(number).await
    }

    /// Answers for everything that is open on a release, and ends those of its sessions that can
    /// not go on elsewhere. The others move at their next request.
    pub async fn cut(&self, number: ReleaseNumber) -> DrainCost {
        let Some(backend) = self.state.routes.load().get(number).cloned() else {
            return DrainCost::default();
        };
        backend.draining.cancel();
        // First of all the sessions: their streams ask whether they go on.
        let evicted = self.state.sessions.evict_release(number, self.state.pinned_reason());
        backend.cut.cancel();
        let emptied = async {
            while !backend.is_idle() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        // A client that does not read its stream can not be waited for.
        let _ = tokio::time::timeout(CUT_TIMEOUT, emptied).await;
        let session::EvictionReport { ended, not_moved: kept, .. } = evicted;
        // Some moved while others were waited for.
        let waiting = self.state.sessions.count(number);
        let is_soft = self.state.service.load().session_state == SessionState::Soft;
        let cost = backend.drain_cost();
        let lost_state = is_soft && cost.sessions_migrated + waiting > 0;
        DrainCost {
            sessions_ended: ended + cost.sessions_ended,
            sessions_to_migrate: waiting,
            sessions_not_migrated: kept,
            server_state_at_risk: lost_state,
            ..cost
        }
    }

    /// Cuts a release and forgets it.
    pub async fn remove_release(&self, number: ReleaseNumber) {
        self.cut(number).await;
        self.state.routes.rcu(|routes| routes.without_backend(number));
    }

    /// What became of the requests of a release, since it was added.
    pub fn counts(&self, number: ReleaseNumber) -> Counts {
        self.backend(number).map(|backend| backend.outcomes.total()).unwrap_or_default()
    }

    /// The same by method and tool.
    pub fn counts_by_call(&self, number: ReleaseNumber) -> BTreeMap<CallKey, Counts> {
        self.backend(number).map(|backend| backend.outcomes.by_call()).unwrap_or_default()
    }

    /// What a release carries now; its rate of requests is not known here.
    pub fn load(&self, number: ReleaseNumber, now: Moment) -> ReleaseLoad {
        let Some(backend) = self.backend(number) else { return ReleaseLoad::default() };
        let subscriptions = backend.subscriptions.load(Ordering::Relaxed);
        let age = self.state.sessions.mean_age(number, now).as_secs_f64();
        // Those that wait for their next request are nowhere.
        let here = if backend.is_open() { self.state.sessions.count(number) } else { 0 };
        let pinned = self.state.sessions.count_pinned(number, self.state.pinned_reason()).min(here);
        let in_flight = backend.in_flight_requests.load(Ordering::Relaxed);
        let in_flight = in_flight.saturating_add(self.replication.predecessor_in_flight(number));
        ReleaseLoad {
            sessions: here + subscriptions,
            pinned,
            in_flight,
            request_rate: 0.0,
            mean_session_s: age.max(DEFAULT_SESSION_LIFE),
        }
    }

    /// Whether a release serves anybody: it has a session, a stream or an open request.
    pub fn has_traffic(&self, number: ReleaseNumber) -> bool {
        self.backend(number).is_some_and(|it| !it.is_idle())
            || self.state.sessions.has_sessions(number)
    }

    /// Protocol versions that live sessions of a release negotiated.
    pub fn protocol_versions(&self, number: ReleaseNumber) -> BTreeSet<String> {
        self.state.sessions.protocols(number)
    }

    /// Forgets sessions that were silent for too long.
    pub fn expire_sessions(&self, now: Moment) {
        self.state.sessions.sweep(now, self.state.service.load().limits.session_idle);
    }

    /// Lets clients go one after the other, so that nobody's request is lost: every answer is the
    /// last on its connection, streams that only listen end, and what was open may take
    /// `patience` to finish. New clients are served meanwhile. Then nobody is let in any more:
    /// they wait in the backlog, if somebody else holds the listener. `successor_listens`: somebody will listen
    /// there at once, so that it is worth it to wait for connections that are kept.
    pub async fn close_gracefully(&self, timeout: Duration, successor_listens: bool) {
        self.start_closing(successor_listens).await;
        let early_closed = tokio::time::timeout(timeout, self.lifecycle.wait_early_closed()).await;
        let _ = tokio::time::timeout(RECENT_WAIT_MAX, self.lifecycle.wait_all_recent()).await;
        let unfinished = early_closed.is_err() && self.is_busy();
        self.lifecycle.shutdown.cancel();
        self.wait_accept_stopped().await;
        // Those from before had their time; nobody who waits in the backlog waits for them.
        let late_closed =
            tokio::time::timeout(LATE_CONNECTION_TIMEOUT, self.lifecycle.wait_late_closed()).await;
        if unfinished || late_closed.is_err() {
            tracing::warn!("some requests took too long to finish, and are answered with an error");
        }
    }

    /// Whether requests are open, besides streams that only listen.
    fn is_busy(&self) -> bool {
        let routes = self.state.routes.load();
        routes
            .backends()
            .iter()
            .any(|backend| backend.in_flight_requests.load(Ordering::Relaxed) > 0)
    }

    /// Waits until the listener is let go of: who is not in by then is not let in here.
    async fn wait_accept_stopped(&self) {
        while self.listener.strong_count() > 0 {
            tokio::time::sleep(LISTENER_POLL_INTERVAL).await;
        }
    }

    /// Every answer is the last on its connection, and streams that only listen end.
    async fn start_closing(&self, long_idle_wait: bool) {
        self.lifecycle.long_idle_wait.store(long_idle_wait, Ordering::Relaxed);
        self.lifecycle.close_after_response.cancel();
        // A client takes the connection of a stream that ended for its next request: so that there
        // is time for it, they end first.
        self.state.end_streams.cancel();
        tokio::time::sleep(LAST_RESPONSE_WAIT).await;
        self.lifecycle.close_idle.cancel();
    }

    /// Stops listening, answers for what is open, and waits for the connections, at most a second.
    pub async fn shut_down(&self) {
        self.state.end_streams.cancel();
        self.lifecycle.shutdown.cancel();
        let table = self.state.routes.load_full();
        for backend in table.backends() {
            backend.cut.cancel();
        }
        join_all(table.backends().iter().map(|backend| self.cut(backend.number))).await;
    }

    fn backend(&self, number: ReleaseNumber) -> Option<Arc<Backend>> {
        self.state.routes.load().get(number).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_over_before_the_state_machine_asks_again() {
        let text = include_str!("../../config.toml.example");
        let checked = crate::config::parse("config.toml.example", text).unwrap();
        for service in checked.settings.services.values() {
            assert!(
                CUT_TIMEOUT < service.policy.retry_interval,
                "{:?}",
                service.policy.retry_interval
            );
        }
    }
}
