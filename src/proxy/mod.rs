//! The built-in data plane: one listener per service, in front of its releases.
//!
//! A request passes [`gate`] (who may ask), finds its release in [`routes`] (a legacy session's
//! own, or the active one), is read by [`scan`] and [`sse`] as it passes, and leaves one outcome per
//! JSON-RPC request in its release's [`tally`]. When a release has to be left, [`download`] and
//! [`answer`] end what is open in a way that clients understand. What failed on a release on trial
//! is kept by [`repeat`], and asked once more of the warm one by [`shadow`], for nobody but the judge.

mod answer;
mod classify;
mod door;
mod download;
mod exchange;
mod front;
mod gate;
mod headers;
mod listener;
mod message;
mod notice;
mod repeat;
mod routes;
mod scan;
mod session;
mod shadow;
mod sse;
mod tally;
mod upload;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::{Address, Service};
use crate::model::{Call, Counts, Load, Moment, Number, Toll};

use door::Door;
use front::Front;
use repeat::Safe;
use routes::Routes;
use session::Sessions;
use upstream::Upstream;

pub use listener::bind;
pub use session::Key;

/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long what was cut may take to be gone. Less than the state machine waits for the answer, or
/// a client that never reads would look like a proxy that does not answer.
const CUT_MAX: Duration = Duration::from_millis(500);
/// Connections in use get their last answer within this; those that are silent are closed after it.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// How long a client that came late may take over its one request.
const LATE_MAX: Duration = Duration::from_millis(700);
/// What a session is expected to last before any was seen to.
const LIFE_UNKNOWN: f64 = 60.0;

/// The proxy of one service.
#[derive(Debug, Clone)]
pub struct Proxy {
    front: Arc<Front>,
    door: Arc<Door>,
    safe: Arc<Safe>,
    local: std::net::SocketAddr,
}

impl Proxy {
    /// Listens on the service's address. Until a release is routed to, requests are answered with
    /// an error for their id.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub fn start(service: &Service, key: Key, clock: Clock) -> io::Result<Self> {
        let proxy = Self::on(bind(service.listen)?, service, key, clock)?;
        proxy.open();
        Ok(proxy)
    }

    /// Serves a listener, but no client before [`Self::open`]: they wait in its backlog.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn on(
        listener: TcpListener,
        service: &Service,
        key: Key,
        clock: Clock,
    ) -> io::Result<Self> {
        let sessions = Sessions::new(&service.name, key, service.limits.sessions);
        let front = Arc::new(Front {
            service: ArcSwap::from_pointee(service.clone()),
            routes: ArcSwap::from_pointee(Routes::default()),
            sessions,
            clock,
        });
        let door = Arc::new(Door::default());
        let local = listener.local_addr()?;
        let connections = service.limits.connections;
        let accept = listener::accept(listener, Arc::clone(&front), connections, Arc::clone(&door));
        tokio::spawn(accept);
        let safe = Arc::new(Safe::default());
        safe.name(service.limits.repeatable_tools.clone());
        Ok(Self { front, door, safe, local })
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
            let upstream = Arc::new(Upstream::new(number, address.clone(), Arc::clone(&self.safe)));
            self.front.routes.rcu(|routes| routes.with(Arc::clone(&upstream)));
        }
    }

    /// Gives new sessions and stateless requests to a release. The next request meets it. False,
    /// and nothing changed, when the release is not reachable.
    pub fn route(&self, number: Number) -> bool {
        self.front.routes.rcu(|routes| routes.to(number));
        self.front.routes.load().active().is_some_and(|active| active.number == number)
    }

    /// Waits until a release has nothing open and no session, at most `patience`; then cuts it.
    pub async fn drain(&self, number: Number, patience: Duration) -> Toll {
        let upstream = self.front.routes.load().known(number).cloned();
        if let Some(upstream) = upstream {
            let done = async {
                while !upstream.empty() || self.front.sessions.count(number) > 0 {
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

    /// Answers for everything that is open on a release, closes its streams and ends its sessions.
    pub async fn cut(&self, number: Number) -> Toll {
        let Some(upstream) = self.front.routes.load().known(number).cloned() else {
            return Toll::default();
        };
        // They end with the cut, and could not be counted after it.
        let listens = upstream.listens.load(Ordering::Relaxed);
        upstream.cut.cancel();
        let gone = async {
            while !upstream.empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        // A client that does not read its stream can not be waited for.
        let _ = tokio::time::timeout(CUT_MAX, gone).await;
        Toll { ended: self.front.sessions.end_all(number) + listens, ..upstream.toll() }
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
        Load {
            sessions: self.front.sessions.count(number) + listens,
            in_flight: upstream.in_flight.load(Ordering::Relaxed),
            rate: 0.0,
            life: age.max(LIFE_UNKNOWN),
        }
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
    /// they wait in the backlog, if somebody else holds the listener.
    pub async fn leave(&self, patience: Duration) {
        self.door.closing.cancel();
        // A client takes the connection of a stream that ended for its next request: so that there
        // is time for it, they end first.
        for upstream in self.front.routes.load().all() {
            upstream.hush.cancel();
        }
        tokio::time::sleep(LAST_ANSWERS).await;
        self.door.hush.cancel();
        let calm = async {
            self.door.old_gone().await;
            self.door.all_fresh().await;
        };
        let old = tokio::time::timeout(patience, calm).await;
        self.door.stop.cancel();
        let late = tokio::time::timeout(LATE_MAX, self.door.all_gone()).await;
        if old.is_err() || late.is_err() {
            tracing::warn!("some requests took too long to finish, and are answered with an error");
        }
    }

    /// Stops listening, answers for what is open, and waits for the connections, at most a second.
    pub async fn stop(&self) {
        self.door.stop.cancel();
        let all = self.front.routes.load_full();
        for upstream in all.all() {
            upstream.cut.cancel();
        }
        for upstream in all.all() {
            self.cut(upstream.number).await;
        }
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
