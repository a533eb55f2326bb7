//! Tracks client connections, and closes them in stages without losing a request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::monotonic;
use crate::mutex::lock;

/// How often the waits below check the connections.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long a connection is idle before the proxy closes it, since its client may just send a
/// request on it. Short, where no successor listens. Else longer than common clients keep an idle
/// connection (Node 4 s, Python 5 s).
const IDLE_BEFORE_CLOSE: Duration = Duration::from_millis(300);
const IDLE_BEFORE_CLOSE_LONG: Duration = Duration::from_millis(5_500);

/// A late connection younger than this probably carries a short request.
const RECENT_MAX: Duration = Duration::from_millis(100);

/// The stages in which one listener and its connections close. Each stage includes those before it,
/// except `stop_accepting`, which is independent.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Lifecycle {
    /// The listener accepts connections.
    pub accepting: CancellationToken,
    /// The listener accepts no more connections; open ones stay.
    pub stop_accepting: CancellationToken,
    /// Every response is the last on its connection.
    pub close_after_response: CancellationToken,
    /// Connections from before `close_after_response` close as soon as they are idle.
    pub close_idle: CancellationToken,
    /// They do so sooner: see [`IDLE_BEFORE_CLOSE`].
    pub close_idle_soon: CancellationToken,
    /// The listener accepts no connections, and every open one closes.
    pub shutdown: CancellationToken,
    /// Whether a successor listens, so that connections get the long idle wait.
    pub long_idle_wait: AtomicBool,
    early_connections: Arc<()>,
    late_connections: Arc<Mutex<LateConnections>>,
}

/// When each connection after `close_after_response` was accepted. On HTTP/1 it serves one request.
#[derive(Debug, Default)]
pub(in crate::proxy) struct LateConnections {
    last_number: u64,
    accepted_at: BTreeMap<u64, Instant>,
}

/// An open connection; it counts until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) enum ClientConnection {
    /// Accepted before `close_after_response`.
    Early(#[expect(dead_code, reason = "its references are counted")] Arc<()>),
    /// Accepted after it.
    Late(u64, Arc<Mutex<LateConnections>>),
}

impl ClientConnection {
    /// Whether it was accepted after `close_after_response`.
    pub(in crate::proxy) fn is_late(&self) -> bool {
        matches!(self, Self::Late(..))
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        if let Self::Late(number, all) = self {
            lock(all).accepted_at.remove(number);
        }
    }
}

/// Counts the open requests of one connection.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct ConnectionInFlight(Arc<()>);

/// Observes the open requests of one connection.
#[derive(Debug, Clone)]
pub(super) struct OpenRequests(Weak<()>);

impl OpenRequests {
    /// Whether a request is open.
    pub(super) fn any(&self) -> bool {
        self.count() > 0
    }

    /// How many requests are open.
    pub(super) fn count(&self) -> usize {
        self.0.strong_count().saturating_sub(1)
    }
}

impl ConnectionInFlight {
    /// An observer, which does not count.
    pub(super) fn observer(&self) -> OpenRequests {
        OpenRequests(Arc::downgrade(&self.0))
    }

    /// Whether a request is open.
    fn is_open(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Waits until the connection had no open request for this long.
    async fn idle_for(&self, duration: Duration) {
        // By the clock: on a busy host a poll takes longer than its interval.
        let mut idle_since = monotonic();
        while idle_since.elapsed() < duration {
            tokio::time::sleep(POLL_INTERVAL).await;
            if self.is_open() {
                idle_since = monotonic();
            }
        }
    }
}

impl Lifecycle {
    /// Waits until a connection may be closed.
    pub(in crate::proxy) async fn wait_idle(&self, in_flight: &ConnectionInFlight) {
        let has_successor = self.long_idle_wait.load(Ordering::Relaxed);
        let before = if has_successor { IDLE_BEFORE_CLOSE_LONG } else { IDLE_BEFORE_CLOSE };
        let idle = async {
            tokio::select! {
                () = in_flight.idle_for(before) => (),
                () = self.close_idle_soon.cancelled() => in_flight.idle_for(IDLE_BEFORE_CLOSE).await,
            }
        };
        tokio::select! {
            () = idle => return,
            () = self.shutdown.cancelled() => (),
        }
        // What is open now ends when its release is cut: it is the last response. A client that sees the
        // end of the connection with it sends its next request to the successor.
        if !in_flight.is_open() {
            in_flight.idle_for(IDLE_BEFORE_CLOSE).await;
        }
    }

    /// Counts a new connection.
    pub(in crate::proxy) fn register(&self) -> ClientConnection {
        if !self.close_after_response.is_cancelled() {
            return ClientConnection::Early(Arc::clone(&self.early_connections));
        }
        let mut late = lock(&self.late_connections);
        late.last_number += 1;
        let number = late.last_number;
        late.accepted_at.insert(number, monotonic());
        ClientConnection::Late(number, Arc::clone(&self.late_connections))
    }

    /// Waits until all connections from before `close_after_response` are closed.
    pub(in crate::proxy) async fn wait_early_closed(&self) {
        while Arc::strong_count(&self.early_connections) > 1 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits for a moment when every late connection is recent.
    pub(in crate::proxy) async fn wait_all_recent(&self) {
        let is_recent = |since: &Instant| since.elapsed() < RECENT_MAX;
        while !lock(&self.late_connections).accepted_at.values().all(is_recent) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until all connections are closed.
    pub(in crate::proxy) async fn wait_all_closed(&self) {
        self.wait_early_closed().await;
        self.wait_late_closed().await;
    }

    /// Waits until all connections from after `close_after_response` are closed.
    pub(in crate::proxy) async fn wait_late_closed(&self) {
        while !lock(&self.late_connections).accepted_at.is_empty() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
