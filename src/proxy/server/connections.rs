//! Who is let in, and how those who are in are asked to leave.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::proxy::exchange::error_response::ClientBody;

/// How often it is looked for who is still there.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Before a connection is closed, it was silent for so long: little, where nobody else listens at
/// once; else so long that common clients (Node waits for four seconds, Python for five) have let go
/// of it by themselves. One that is closed may just be taken for a request.
const IDLE_BEFORE_CLOSE: Duration = Duration::from_millis(300);
const IDLE_BEFORE_CLOSE_LONG: Duration = Duration::from_millis(5_500);

/// Who has waited for less than this may well have a short request.
const RECENT_MAX: Duration = Duration::from_millis(100);

/// What tells the connections of one listener what to do. Each step includes the ones before, but
/// for `stop_accepting`, which goes with any.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Lifecycle {
    /// Clients are let in.
    pub accepting: CancellationToken,
    /// Nobody is let in any more; those who are in stay.
    pub stop_accepting: CancellationToken,
    /// Every answer is the last on its connection.
    pub close_after_response: CancellationToken,
    /// Connections from before `close_after_response` end when they have nothing open.
    pub close_idle: CancellationToken,
    /// Nobody is let in, and every connection ends.
    pub shutdown: CancellationToken,
    /// Silence is waited for as long as it takes.
    pub long_idle_wait: AtomicBool,
    early_connections: Arc<()>,
    late_connections: Arc<Mutex<LateConnections>>,
}

/// When each of those who came after `close_after_response` came. Each asks once.
#[derive(Debug, Default)]
pub(in crate::proxy) struct LateConnections {
    last_number: u64,
    accepted_at: BTreeMap<u64, Instant>,
}

/// A client that is in, until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) enum ClientConnection {
    /// It came before `close_after_response`.
    Early(#[expect(dead_code, reason = "it is counted")] Arc<()>),
    /// It came after.
    Late(u64, Arc<Mutex<LateConnections>>),
}

impl ClientConnection {
    /// Whether it came after `close_after_response`.
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

fn lock(late: &Mutex<LateConnections>) -> MutexGuard<'_, LateConnections> {
    late.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the open requests of one connection.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct ConnectionInFlight(Arc<()>);

/// The answer to one, until its end.
#[derive(Debug)]
pub(in crate::proxy) struct CountedBody {
    body: ClientBody,
    _in_flight: ConnectionInFlight,
}

impl ConnectionInFlight {
    /// Waits until there was none for so long.
    async fn idle_for(&self, duration: Duration) {
        let mut idle = Duration::ZERO;
        while idle < duration {
            tokio::time::sleep(POLL_INTERVAL).await;
            idle =
                if Arc::strong_count(&self.0) > 1 { Duration::ZERO } else { idle + POLL_INTERVAL };
        }
    }
}

impl CountedBody {
    /// An answer that counts as open until it is dropped.
    pub(in crate::proxy) fn new(body: ClientBody, in_flight: ConnectionInFlight) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Lifecycle {
    /// Waits until a connection may be closed.
    pub(in crate::proxy) async fn wait_idle(&self, in_flight: &ConnectionInFlight) {
        let long_wait = self.long_idle_wait.load(Ordering::Relaxed);
        tokio::select! {
            () = in_flight.idle_for(if long_wait { IDLE_BEFORE_CLOSE_LONG } else { IDLE_BEFORE_CLOSE }) => (),
            () = self.shutdown.cancelled() => in_flight.idle_for(IDLE_BEFORE_CLOSE).await,
        }
    }

    /// Counts a client.
    pub(in crate::proxy) fn register(&self) -> ClientConnection {
        if !self.close_after_response.is_cancelled() {
            return ClientConnection::Early(Arc::clone(&self.early_connections));
        }
        let mut late = lock(&self.late_connections);
        late.last_number += 1;
        let number = late.last_number;
        late.accepted_at.insert(number, Instant::now());
        ClientConnection::Late(number, Arc::clone(&self.late_connections))
    }

    /// Waits until nobody from before `close_after_response` is in.
    pub(in crate::proxy) async fn wait_early_closed(&self) {
        while Arc::strong_count(&self.early_connections) > 1 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits for a moment when nobody has been waiting for an answer for long.
    pub(in crate::proxy) async fn wait_all_recent(&self) {
        let is_recent = |since: &Instant| since.elapsed() < RECENT_MAX;
        while !lock(&self.late_connections).accepted_at.values().all(is_recent) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until nobody is in.
    pub(in crate::proxy) async fn wait_all_closed(&self) {
        self.wait_early_closed().await;
        self.wait_late_closed().await;
    }

    /// Waits until nobody is in who came after `close_after_response`.
    pub(in crate::proxy) async fn wait_late_closed(&self) {
        while !lock(&self.late_connections).accepted_at.is_empty() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
