//! The built-in data plane: one listener per service, in front of its releases.
//!
//! A request passes [`gate`] (who may ask), finds its release in [`passage`] (a legacy session's
//! own, the one in [`states`], or the active one; [`mover`] opens the session anew where its own is
//! left), is held against its headers by [`mirror`], is read by [`scan`] and [`sse`] as it passes,
//! and leaves one outcome per JSON-RPC request in its release's [`tally`]. When a release has to be left, [`download`] and
//! [`answer`] end what is open in a way that clients understand. What failed on a release on trial
//! is kept by [`repeat`], and asked once more of the warm one by [`shadow`], for nobody but the judge.

mod answer;
mod blocks;
mod classify;
mod door;
mod download;
mod exchange;
mod front;
mod gate;
mod headers;
mod held;
mod hint;
mod listener;
mod listening;
mod lost;
mod message;
mod mirror;
mod mover;
mod notice;
mod open;
mod overlap;
mod passage;
mod repeat;
mod reply;
mod rewrite;
mod routes;
mod scan;
mod session;
mod shadow;
mod sse;
mod states;
mod tally;
mod upload;
mod upstream;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Address, Service, SessionState};
use crate::model::{Call, Counts, Load, Moment, Number, Toll};

use door::Door;
use front::Front;
use overlap::Overlap;
use repeat::Safe;
use routes::Routes;
use session::Sessions;
use upstream::Upstream;

pub use listener::bind;
pub use overlap::Change;
pub use session::Key;
pub use ways::Ways;

/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long what was cut may take to be gone. Less than the state machine waits for the answer, or
/// a client that never reads would look like a proxy that does not answer.
const CUT_MAX: Duration = Duration::from_millis(500);
/// Connections in use get their last answer within this; those that are silent are closed after it.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// How long a moment is waited for in which nobody has been waiting for long.
const FRESH_MAX: Duration = Duration::from_secs(1);
/// How long a client that came late may take over its one request.
const LATE_MAX: Duration = Duration::from_millis(700);
/// How often it is looked whether somebody still accepts.
const LOOK_SHUT: Duration = Duration::from_millis(1);
/// What a session is expected to last before any was seen to.
const LIFE_UNKNOWN: f64 = 60.0;

/// The proxy of one service.
#[derive(Debug, Clone)]
pub struct Proxy {
    front: Arc<Front>,
    door: Arc<Door>,
    safe: Arc<Safe>,
    overlap: Arc<Overlap>,
    listener: Weak<TcpListener>,
    local: std::net::SocketAddr,
}

impl Proxy {
    /// Listens on the service's address. Until a release is routed to, requests are answered with
    /// an error for their id.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub fn start(service: &Service, key: Key, clock: Clock) -> io::Result<Self> {
        Self::restore(service, key, clock, None)
    }

    /// The same, with the sessions that a file tells of; it is kept up to date.
    ///
    /// # Errors
    /// When the address can not be listened on, or the file not be read or written.
    pub fn restore(
        service: &Service,
        key: Key,
        clock: Clock,
        file: Option<&Path>,
    ) -> io::Result<Self> {
        let proxy = Self::on(bind(service.listen)?, service, key, clock, file)?;
        proxy.open();
        Ok(proxy)
    }

    /// Serves a listener, but no client before [`Self::open`]: they wait in its backlog.
    ///
    /// # Errors
    /// When the listener has no address, or the file of sessions can not be read or written.
    pub fn on(
        listener: TcpListener,
        service: &Service,
        key: Key,
        clock: Clock,
        file: Option<&Path>,
    ) -> io::Result<Self> {
        let sessions = Sessions::new(&service.name, key, service.limits.sessions);
        if let Some(file) = file {
            sessions.keep(file, clock.now())?;
        }
        let front = Arc::new(Front {
            service: ArcSwap::from_pointee(service.clone()),
            routes: ArcSwap::from_pointee(Routes::default()),
            sessions,
            clock,
            states: Arc::default(),
            trial: AtomicU32::new(0),
            yields: AtomicU32::new(0),
            stop: CancellationToken::new(),
        });
        let door = Arc::new(Door::default());
        let (local, listener) = (listener.local_addr()?, Arc::new(listener));
        let (connections, held) = (service.limits.connections, Arc::downgrade(&listener));
        let accept = listener::accept(listener, Arc::clone(&front), connections, Arc::clone(&door));
        tokio::spawn(accept);
        let safe = Arc::new(Safe::default());
        safe.name(service.limits.repeatable_tools.clone());
        Ok(Self { front, door, safe, overlap: Arc::default(), listener: held, local })
    }

    /// Lets clients in, from now on.
    pub fn open(&self) {
        self.door.opened.cancel();
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.local
    }

    /// Takes new settings, but for the address and the number of connections and sessions.
    pub fn configure(&self, service: &Service) {
        self.front.service.store(Arc::new(service.clone()));
        self.safe.name(service.limits.repeatable_tools.clone());
        self.learned();
    }

    /// Makes a release reachable, without giving it anything; also one that was left before.
    pub fn add(&self, number: Number, address: &Address) {
        let reachable = self.front.routes.load().find(number).is_some();
        if !reachable {
            let (safe, states) = (Arc::clone(&self.safe), Arc::clone(&self.front.states));
            let upstream = Arc::new(Upstream::new(number, address.clone(), safe, states));
            self.front.routes.rcu(|routes| routes.with(Arc::clone(&upstream)));
        }
    }

    /// Says that a release may still be starting, as after a boot of the host: for so long, requests
    /// wait for its first connection instead of being refused.
    pub fn await_start(&self, number: Number, patience: Duration) {
        if let Some(upstream) = self.upstream(number) {
            upstream.await_start(tokio::time::Instant::now() + patience);
        }
    }

    /// Gives new sessions and stateless requests to a release. The next request meets it. False,
    /// and nothing changed, when the release is not reachable.
    pub fn route(&self, number: Number) -> bool {
        self.front.routes.rcu(|routes| routes.to(number));
        self.front.routes.load().active().is_some_and(|active| active.number == number)
    }

    /// Says which release is on trial: what it lets clients keep, they keep for a few seconds only.
    pub fn on_trial(&self, number: Option<Number>) {
        // Releases are counted from 1.
        self.front.trial.store(number.map_or(0, |number| number.0), Ordering::Relaxed);
    }

    /// Says which release gives its sessions to the active one, each at its next request, though it
    /// is not left: what can not move stays.
    pub fn yields(&self, number: Option<Number>) {
        self.front.yields.store(number.map_or(0, |number| number.0), Ordering::Relaxed);
    }

    /// Waits until nothing that has to end at a release is open there, at most `patience`; then cuts
    /// it. Meanwhile its sessions move to the active release, each at its next request.
    pub async fn drain(&self, number: Number, patience: Duration) -> Toll {
        let upstream = self.front.routes.load().known(number).cloned();
        if let Some(upstream) = upstream {
            upstream.left.cancel();
            let busy = || {
                upstream.in_flight.load(Ordering::Relaxed) > 0
                    || self.overlap.open(number) > 0
                    || upstream.listens.load(Ordering::Relaxed) > 0
                    || self.front.sessions.any_held(number, self.front.bound())
            };
            let done = async {
                while busy() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            tokio::select! {
                () = done => (),
                () = tokio::time::sleep(patience) => (),
                () = upstream.cut.cancelled() => (),
            }
        }
        self.cut(number).await
    }

    /// Answers for everything that is open on a release, and ends those of its sessions that can
    /// not go on elsewhere. The others move at their next request.
    pub async fn cut(&self, number: Number) -> Toll {
        let Some(upstream) = self.front.routes.load().known(number).cloned() else {
            return Toll::default();
        };
        upstream.left.cancel();
        // First of all the sessions: their streams ask whether they go on.
        let leavers = self.front.sessions.leave(number, self.front.bound());
        upstream.cut.cancel();
        let gone = async {
            while !upstream.empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        // A client that does not read its stream can not be waited for.
        let _ = tokio::time::timeout(CUT_MAX, gone).await;
        let session::Leavers { ended, kept, .. } = leavers;
        // Some moved while others were waited for.
        let waiting = self.front.sessions.count(number);
        let soft = self.front.service.load().session_state == SessionState::Soft;
        let toll = upstream.toll();
        let soft = soft && toll.moved + waiting > 0;
        Toll { ended: ended + toll.ended, waiting, kept, soft, ..toll }
    }

    /// Cuts a release and forgets it.
    pub async fn remove(&self, number: Number) {
        self.cut(number).await;
        self.front.routes.rcu(|routes| routes.without(number));
    }

    /// What became of the requests of a release, since it was added.
    pub fn counts(&self, number: Number) -> Counts {
        self.upstream(number).map(|upstream| upstream.tally.total()).unwrap_or_default()
    }

    /// The same by method and tool.
    pub fn calls(&self, number: Number) -> BTreeMap<Call, Counts> {
        self.upstream(number).map(|upstream| upstream.tally.by_call()).unwrap_or_default()
    }

    /// What a release carries now; its rate of requests is not known here.
    pub fn load(&self, number: Number, now: Moment) -> Load {
        let Some(upstream) = self.upstream(number) else { return Load::default() };
        let listens = upstream.listens.load(Ordering::Relaxed);
        let age = self.front.sessions.age(number, now).as_secs_f64();
        // Those that wait for their next request are nowhere.
        let here = if upstream.is_open() { self.front.sessions.count(number) } else { 0 };
        let bound = self.front.sessions.bound(number, self.front.bound()).min(here);
        let in_flight = upstream.in_flight.load(Ordering::Relaxed);
        let in_flight = in_flight.saturating_add(self.overlap.open(number));
        Load { sessions: here + listens, bound, in_flight, rate: 0.0, life: age.max(LIFE_UNKNOWN) }
    }

    /// Whether a release serves anybody: it has a session, a stream or an open request.
    pub fn serves(&self, number: Number) -> bool {
        self.upstream(number).is_some_and(|it| !it.empty()) || self.front.sessions.any(number)
    }

    /// Protocol versions that live sessions of a release negotiated.
    pub fn protocols(&self, number: Number) -> BTreeSet<String> {
        self.front.sessions.protocols(number)
    }

    /// Forgets sessions that were silent for too long.
    pub fn sweep(&self, now: Moment) {
        self.front.sessions.sweep(now, self.front.service.load().limits.session_idle);
    }

    /// Lets clients go one after the other, so that nobody's request is lost: every answer is the
    /// last on its connection, streams that only listen end, and what was open may take
    /// `patience` to finish. New clients are served meanwhile. Then nobody is let in any more:
    /// they wait in the backlog, if somebody else holds the listener. `again`: somebody will listen
    /// there at once, so that it is worth it to wait for connections that are kept.
    pub async fn leave(&self, patience: Duration, again: bool) {
        self.ask_to_go(again).await;
        let old = tokio::time::timeout(patience, self.door.old_gone()).await;
        let _ = tokio::time::timeout(FRESH_MAX, self.door.all_fresh()).await;
        let late = old.is_err() && self.is_busy();
        self.door.stop.cancel();
        self.nobody_accepts().await;
        // Those from before had their time; nobody who waits in the backlog waits for them.
        let gone = tokio::time::timeout(LATE_MAX, self.door.late_gone()).await;
        if late || gone.is_err() {
            tracing::warn!("some requests took too long to finish, and are answered with an error");
        }
    }

    /// Whether requests are open, besides streams that only listen.
    fn is_busy(&self) -> bool {
        let routes = self.front.routes.load();
        routes.all().iter().any(|upstream| upstream.in_flight.load(Ordering::Relaxed) > 0)
    }

    /// Waits until the listener is let go of: who is not in by then is not let in here.
    async fn nobody_accepts(&self) {
        while self.listener.strong_count() > 0 {
            tokio::time::sleep(LOOK_SHUT).await;
        }
    }

    /// Every answer is the last on its connection, and streams that only listen end.
    async fn ask_to_go(&self, patient: bool) {
        self.door.patient.store(patient, Ordering::Relaxed);
        self.door.closing.cancel();
        // A client takes the connection of a stream that ended for its next request: so that there
        // is time for it, they end first.
        self.front.stop.cancel();
        tokio::time::sleep(LAST_ANSWERS).await;
        self.door.hush.cancel();
    }

    /// Stops listening, answers for what is open, and waits for the connections, at most a second.
    pub async fn stop(&self) {
        self.front.stop.cancel();
        self.door.stop.cancel();
        let all = self.front.routes.load_full();
        for upstream in all.all() {
            upstream.cut.cancel();
        }
        join_all(all.all().iter().map(|upstream| self.cut(upstream.number))).await;
    }

    fn upstream(&self, number: Number) -> Option<Arc<Upstream>> {
        self.front.routes.load().known(number).cloned()
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
            assert!(CUT_MAX < service.policy.retry, "{:?}", service.policy.retry);
        }
    }
}
