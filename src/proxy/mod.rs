//! The built-in data plane: one listener per service, in front of its releases.
//!
//! [`server`] accepts a connection. [`exchange`] checks `Host`, `Origin` and the MCP headers of each
//! request, and reads its body. [`routing`] finds its release: the one of its legacy [`session`], the
//! one that issued its `requestState`, or the active one. A session whose release drains moves first.
//! [`backend`] sends the request; the exchange parses the response as it passes and records one
//! outcome per JSON-RPC request. When a release drains or is cut, the exchange ends or continues what
//! is open in a way that clients understand. [`shadow`] sends failed read-only requests of a release on
//! trial to the warm release, so that the judge can compare. [`handover`] replicates all this to the
//! daemon that takes over.

mod backend;
mod bounds;
mod exchange;
mod handover;
mod handover_control;
mod observations;
mod routing;
mod server;
mod session;
mod shadow;
mod shadow_control;
mod trial_control;

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
pub use session::SessionIdSecret;
use session::{SessionLimits, Sessions};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, monotonic};
use crate::config::{Address, Service, SessionState, slot_host};
use crate::critical;
use crate::model::{DrainCost, Moment, ReleaseNumber};
use crate::proxy::backend::Backend;
use crate::proxy::backend::read_only_tools::ReadOnlyTools;
use crate::proxy::backend::recent_subjects::RecentSubjects;
use crate::proxy::exchange::held_events::HeldEvents;
pub(crate) use crate::proxy::exchange::host_check::check as check_host;
use crate::proxy::exchange::mcp_paths::McpPaths;
use crate::proxy::exchange::state::{MOVED_BODIES_MAX, ProxyState};
use crate::proxy::handover::replication::Replication;
pub use crate::proxy::handover::replication::ReplicationMessage;
pub use crate::proxy::handover::routes::RoutesSnapshot;
pub use crate::proxy::routing::assignment::AssignmentPlan;
use crate::proxy::routing::router::Router;
use crate::proxy::routing::routing_table::RoutingTable;
use crate::proxy::routing::view::{CurrentView, RoutingView};
pub use crate::proxy::server::accept::bind;
use crate::proxy::server::bound_watch::BoundWatch;
use crate::proxy::server::connections::Lifecycle;
use crate::proxy::server::places::{OpenConnections, Places};

/// How often `drain` and `cut` check whether the release is idle.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The time limit for open requests and streams to end after a cut. It is less than the state machine
/// waits: else a client that never reads would make the proxy look unresponsive.
const CUT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a drain waits for requests that are no MCP, after all others have ended. Some, such as
/// long polls, never end.
const OTHER_REQUESTS_WAIT: Duration = Duration::from_secs(1);
/// How long connections may still send a request that gets a last response, before idle ones close.
const LAST_RESPONSE_WAIT: Duration = Duration::from_millis(300);
/// The time limit for a moment in which all late connections are recent.
const RECENT_WAIT_MAX: Duration = Duration::from_secs(1);
/// The time limit for connections that were accepted late.
const LATE_CONNECTION_TIMEOUT: Duration = Duration::from_millis(700);
/// How often it checks whether the accept loop has ended.
const LISTENER_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How long open requests may take to finish at a predecessor. The deadline of a call ends before.
pub const OPEN_REQUESTS_MAX: Duration = Duration::from_secs(600);

/// The proxy of one service.
#[derive(Debug, Clone)]
pub struct Proxy {
    state: Arc<ProxyState>,
    lifecycle: Arc<Lifecycle>,
    read_only_tools: Arc<ReadOnlyTools>,
    replication: Arc<Replication>,
    open_connections: Arc<OpenConnections>,
    connections_max: usize,
    bound_watch: Arc<BoundWatch>,
    listener: Weak<TcpListener>,
    local_addr: std::net::SocketAddr,
}

impl Proxy {
    /// Listens on the service's address. Until a release is active, each request gets an error for
    /// its id.
    ///
    /// # Errors
    /// When it cannot listen on the address.
    pub fn start(service: &Service, key: SessionIdSecret, clock: Clock) -> io::Result<Self> {
        Self::restore(service, key, clock, None)
    }

    /// Like [`Self::start`], with the sessions of a file, which it updates from now on.
    ///
    /// # Errors
    /// When it cannot listen on the address, or cannot read or write the file.
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

    /// Takes a listener. Until [`Self::start_accepting`], clients wait in its backlog.
    ///
    /// # Errors
    /// When the listener has no address, or it cannot read or write the session file.
    pub fn with_listener(
        listener: TcpListener,
        service: &Service,
        key: SessionIdSecret,
        clock: Clock,
        file: Option<&Path>,
    ) -> io::Result<Self> {
        let limits = SessionLimits::of(&service.limits);
        let sessions = Arc::new(Sessions::new(&service.name, key, limits));
        if let Some(file) = file {
            sessions.open_store(file, clock.now())?;
        }
        let recent = Arc::new(RecentSubjects::new(clock, sessions.client_key()));
        let state = Arc::new(ProxyState {
            router: Arc::new(Router {
                view: Arc::new(CurrentView::new(service.clone())),
                sessions,
                request_states: Arc::default(),
                recent,
                clock,
            }),
            end_streams: CancellationToken::new(),
            paths: Arc::new(McpPaths::new(&service.name)),
            addresses: Arc::default(),
            proxies: Arc::default(),
            held_events: Arc::new(HeldEvents::new(&service.name)),
            sse_sessions: Arc::default(),
            moved_bodies: Semaphore::new(MOVED_BODIES_MAX),
        });
        let lifecycle = Arc::new(Lifecycle::default());
        let (local_addr, listener) = (listener.local_addr()?, Arc::new(listener));
        let weak_listener = Arc::downgrade(&listener);
        let connections_max = service.limits.connections_max;
        let places = Places::new(connections_max);
        let open_connections = places.open_connections();
        state.addresses.set_end_slow(open_connections.end_slow());
        let (its_state, its_lifecycle) = (Arc::clone(&state), Arc::clone(&lifecycle));
        let accepting = server::accept::accept_loop(listener, its_state, places, its_lifecycle);
        critical::spawn(format!("the listener of {}", service.name), accepting);
        let read_only_tools = Arc::new(ReadOnlyTools::default());
        read_only_tools.set_configured(service.limits.repeatable_tools.clone());
        Ok(Self {
            state,
            lifecycle,
            read_only_tools,
            replication: Arc::default(),
            open_connections,
            connections_max,
            bound_watch: Arc::default(),
            listener: weak_listener,
            local_addr,
        })
    }

    /// Accepts connections from now on.
    pub fn start_accepting(&self) {
        self.lifecycle.accepting.cancel();
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.local_addr
    }

    /// Applies new settings, except the address and the limits on connections and sessions.
    pub fn configure(&self, service: &Service) {
        let settings = Arc::new(service.clone());
        self.state.router.view.update(|view| view.service = Arc::clone(&settings));
        self.read_only_tools.set_configured(service.limits.repeatable_tools.clone());
        self.refresh_read_only_tools();
    }

    /// Makes a release reachable, without traffic. A release that was cut becomes reachable again.
    pub fn add_release(&self, number: ReleaseNumber, address: &Address) {
        let reachable = self.view().routes.get_open(number).is_some();
        if !reachable {
            let read_only_tools = Arc::clone(&self.read_only_tools);
            let host = slot_host(address, self.local_addr.port());
            let backend = Arc::new(Backend::new(number, address.clone(), host, read_only_tools));
            self.update_routes(|routes| routes.with_backend(Arc::clone(&backend)));
        }
    }

    /// Lets requests wait this long for a release that starts, as after a boot of the host, unless it
    /// answers one before.
    pub fn allow_startup(&self, number: ReleaseNumber, grace: Duration) {
        if let Some(backend) = self.backend(number) {
            backend.begin_start_grace(monotonic() + grace);
        }
    }

    /// Routes new sessions and stateless requests to a release, from the next request on. Returns
    /// false, and changes nothing, when the release is not reachable.
    pub fn set_active(&self, number: ReleaseNumber) -> bool {
        self.state.router.view.update(|view| {
            if view.routes.get(number).is_some() {
                (view.routes, view.assignment) = (view.routes.with_active(number), None);
            }
        });
        self.view().routes.active().is_some_and(|active| active.number == number)
    }

    /// Sets the release on trial: clients may cache its responses for a few seconds only.
    pub fn set_trial(&self, number: Option<ReleaseNumber>) {
        let before = self.view().trial;
        self.state.router.view.update(|view| view.trial = number);
        if before != number {
            self.set_known_failing(number);
        }
    }

    /// Sets the release whose sessions move to the active one, each at its next request, although it
    /// does not drain. A session that cannot move stays.
    pub fn migrate_sessions_from(&self, number: Option<ReleaseNumber>) {
        if self.view().migrating_from != number {
            self.state.router.view.update(|view| view.migrating_from = number);
        }
    }

    /// Waits until a release has no open request, subscription or pinned session, at most `timeout`;
    /// then cuts it. Meanwhile its sessions move to the active release, each at its next request.
    pub async fn drain(&self, number: ReleaseNumber, timeout: Duration) -> DrainCost {
        if let Some(backend) = self.backend(number) {
            backend.draining.cancel();
            let is_busy = || {
                backend.in_flight_requests.load(Ordering::Relaxed) > 0
                    || self.replication.predecessor_in_flight(number) > 0
                    || backend.subscriptions.load(Ordering::Relaxed) > 0
                    || backend.sse_sessions.load(Ordering::Relaxed) > 0
                    || self
                        .state
                        .router
                        .sessions
                        .any_pinned_or_busy(number, self.view().pinned_reason())
            };
            let done = async {
                while is_busy() {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                let others_ended = async {
                    while backend.other_requests.load(Ordering::Relaxed) > 0 {
                        tokio::time::sleep(POLL_INTERVAL).await;
                    }
                };
                let _ = tokio::time::timeout(OTHER_REQUESTS_WAIT, others_ended).await;
            };
            tokio::select! {
                () = done => (),
                () = tokio::time::sleep(timeout) => (),
                () = backend.cut.cancelled() => (),
            }
        }
        self.cut(number).await
    }

    /// Answers everything that is open on a release, and ends the sessions that cannot move. The
    /// others move at their next request.
    pub async fn cut(&self, number: ReleaseNumber) -> DrainCost {
        let Some(backend) = self.backend(number) else {
            return DrainCost::default();
        };
        backend.draining.cancel();
        // Sessions first: their streams ask whether they continue.
        let evicted = self.state.router.sessions.evict_release(number, self.view().pinned_reason());
        backend.cut.cancel();
        let emptied = async {
            while !backend.is_idle() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        // A client that does not read its stream must not delay the cut.
        let _ = tokio::time::timeout(CUT_TIMEOUT, emptied).await;
        let session::EvictionReport { ended, not_moved: kept, .. } = evicted;
        // Some moved during the wait.
        let waiting = self.state.router.sessions.count(number);
        let is_soft = self.view().service.session_state == SessionState::Soft;
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

    /// Cuts a release and removes it.
    pub async fn remove_release(&self, number: ReleaseNumber) {
        self.cut(number).await;
        self.update_routes(|routes| routes.without_backend(number));
    }

    /// Removes sessions that were idle for too long.
    pub fn expire_sessions(&self, now: Moment) {
        self.state.router.sessions.sweep(now, self.view().service.limits.session_idle);
    }

    /// Closes connections without losing a request. Every response is the last on its connection,
    /// listening streams end, and open requests get `timeout` to finish. New clients are served
    /// meanwhile. Then the proxy stops accepting: clients wait in the backlog if another process holds
    /// the listener. With `successor_listens`, idle connections get time to be closed by their clients.
    pub async fn close_gracefully(&self, timeout: Duration, successor_listens: bool) {
        self.start_closing(successor_listens).await;
        let early_closed = tokio::time::timeout(timeout, self.lifecycle.wait_early_closed()).await;
        let _ = tokio::time::timeout(RECENT_WAIT_MAX, self.lifecycle.wait_all_recent()).await;
        let unfinished = early_closed.is_err() && self.is_busy();
        self.lifecycle.shutdown.cancel();
        self.wait_accept_stopped().await;
        // Early connections had their time; clients in the backlog do not wait for them.
        let late_closed =
            tokio::time::timeout(LATE_CONNECTION_TIMEOUT, self.lifecycle.wait_late_closed()).await;
        if unfinished || late_closed.is_err() {
            self.warn_unfinished_requests();
        }
    }

    fn warn_unfinished_requests(&self) {
        let view = self.view();
        let (service, backends) = (&view.service.name, view.routes.backends());
        let open = backends.iter().map(|it| it.in_flight_requests.load(Ordering::Relaxed));
        let open: u64 = open.sum();
        tracing::warn!(service, "{open} requests did not finish in time; they get an error");
    }

    /// Whether requests are open, besides listening streams.
    fn is_busy(&self) -> bool {
        let view = self.view();
        view.routes
            .backends()
            .iter()
            .any(|backend| backend.in_flight_requests.load(Ordering::Relaxed) > 0)
    }

    /// Waits until the accept loop drops the listener. Later clients stay in the backlog.
    async fn wait_accept_stopped(&self) {
        while self.listener.strong_count() > 0 {
            tokio::time::sleep(LISTENER_POLL_INTERVAL).await;
        }
    }

    /// From now on every response is the last on its connection, and listening streams end.
    async fn start_closing(&self, long_idle_wait: bool) {
        self.lifecycle.long_idle_wait.store(long_idle_wait, Ordering::Relaxed);
        self.lifecycle.close_after_response.cancel();
        // A client reuses the connection of an ended stream for its next request. Streams end first,
        // so that there is time for it.
        self.state.end_streams.cancel();
        tokio::time::sleep(LAST_RESPONSE_WAIT).await;
        self.lifecycle.close_idle.cancel();
    }

    /// Stops listening, and cuts every release; each cut waits at most 500 ms.
    pub async fn shut_down(&self) {
        self.state.end_streams.cancel();
        self.lifecycle.shutdown.cancel();
        let view = self.view();
        for backend in view.routes.backends() {
            backend.cut.cancel();
        }
        join_all(view.routes.backends().iter().map(|backend| self.cut(backend.number))).await;
    }

    fn backend(&self, number: ReleaseNumber) -> Option<Arc<Backend>> {
        self.view().routes.get(number).cloned()
    }

    fn view(&self) -> Arc<RoutingView> {
        self.state.router.view.load()
    }

    fn update_routes(&self, change: impl Fn(&RoutingTable) -> RoutingTable) {
        self.state.router.view.update(|view| view.routes = change(&view.routes));
    }
}

#[cfg(test)]
mod tests;
