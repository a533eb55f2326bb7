//! The connections to one release. A connection that has finished a response waits for the next
//! request, for less time than the release keeps it open.
//!
//! Each connection has a task that drives it. A request takes a waiting connection, or opens one, and
//! puts the sender of the connection into its [`ReturnSlot`] when the head of the response is there.
//! The task moves it from there to the waiting ones when the body has ended as well.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mcp::messages::FailureReason;
use crate::model::Outcome;
use crate::mutex::lock;
use crate::proxy::backend::body::BackendBody;
use crate::proxy::backend::connector::{Connector, is_own_error};
use crate::proxy::backend::headers::{HEAD_BYTES_MAX, HEADERS_MAX, KEEP_ALIVE};
use crate::proxy::backend::stream::BackendStream;

/// How long a connection waits where the release does not announce its own limit. Below that of common
/// servers (Node and uvicorn close after 5 s), so that a request does not meet the close.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How much earlier than the release the proxy gives a connection up.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// Waiting connections that are kept.
const WAITING_MAX: usize = 256;
/// How often expired connections are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The connections to one release.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    waiting: Arc<Waiting>,
}

/// Why a request has no response.
#[derive(Debug)]
pub(in crate::proxy) enum SendError {
    /// The release accepts no connection: nothing was sent.
    Unreachable,
    /// This host is short of files, ports or memory: nothing was sent, and it is no fault of the release.
    OwnShortage,
    /// The connection ended before the response. `was_reused`: it had served a request before, so that
    /// the release may have closed it before it saw this one.
    Unanswered {
        /// Whether the connection had served a request before.
        was_reused: bool,
    },
}

impl SendError {
    /// What the client gets as the reason.
    pub(in crate::proxy) fn reason(&self) -> FailureReason {
        match self {
            Self::Unreachable => FailureReason::BackendUnreachable,
            Self::OwnShortage => FailureReason::OwnShortage,
            Self::Unanswered { .. } => FailureReason::BackendFailed,
        }
    }

    /// What it says about the release.
    pub(in crate::proxy) fn outcome(&self) -> Outcome {
        match self {
            Self::OwnShortage => Outcome::Neutral,
            Self::Unreachable | Self::Unanswered { .. } => Outcome::ServerFault,
        }
    }
}

/// Marks a 408 on a connection that had served a request before: the release was about to close it.
#[derive(Debug, Clone, Copy)]
struct IdleTimeout;

/// Connections that wait for a request; the newest is last.
#[derive(Debug, Default)]
struct Waiting {
    connections: Mutex<Vec<WaitingConnection>>,
    is_swept: AtomicBool,
}

struct WaitingConnection {
    connection: PooledConnection,
    until: Instant,
}

/// One connection that a request may use.
struct PooledConnection {
    sender: SendRequest<BackendBody>,
    return_slot: Arc<ReturnSlot>,
}

/// Where a request leaves the sender of its connection.
#[derive(Default)]
struct ReturnSlot {
    returned: Mutex<Option<(SendRequest<BackendBody>, Duration)>>,
    driver: AtomicWaker,
}

impl Pool {
    /// A pool without a connection.
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, waiting: Arc::default() }
    }

    /// Whether the release accepts a connection.
    pub(super) async fn is_listening(&self) -> bool {
        self.connector.is_listening().await
    }

    /// Sends a request; its URI has no authority.
    ///
    /// # Errors
    /// When there is no response.
    pub(super) async fn send(
        &self,
        mut request: Request<BackendBody>,
    ) -> Result<Response<Incoming>, SendError> {
        while let Some(connection) = self.waiting.take() {
            match self.send_on(connection, request, true).await {
                // The connection closed before the request left: this is no attempt.
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(error),
                Ok(response) => return Ok(response),
            }
        }
        self.send_on_new(request).await
    }

    /// Sends a request on a new connection.
    ///
    /// # Errors
    /// When there is no response.
    pub(super) async fn send_on_new(
        &self,
        request: Request<BackendBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let connection = self.connect().await.map_err(|error| match error {
            ConnectError::OwnShortage => SendError::OwnShortage,
            ConnectError::Refused => SendError::Unreachable,
        })?;
        self.send_on(connection, request, false).await.map_err(|(error, _)| error)
    }

    async fn connect(&self) -> Result<PooledConnection, ConnectError> {
        let stream =
            self.connector.connect().await.map_err(|error| match is_own_error(&error) {
                true => ConnectError::OwnShortage,
                false => ConnectError::Refused,
            })?;
        let handshake = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|_| ConnectError::Refused)?;
        let return_slot = Arc::<ReturnSlot>::default();
        tokio::spawn(drive(connection, Arc::clone(&return_slot), Arc::downgrade(&self.waiting)));
        Ok(PooledConnection { sender, return_slot })
    }

    async fn send_on(
        &self,
        connection: PooledConnection,
        request: Request<BackendBody>,
        was_reused: bool,
    ) -> Result<Response<Incoming>, (SendError, Option<Request<BackendBody>>)> {
        let PooledConnection { mut sender, return_slot } = connection;
        if sender.ready().await.is_err() {
            return Err((SendError::Unanswered { was_reused }, Some(request)));
        }
        match sender.try_send_request(request).await {
            Ok(mut response) => {
                self.connector.has_answered();
                if was_reused && response.status() == StatusCode::REQUEST_TIMEOUT {
                    response.extensions_mut().insert(IdleTimeout);
                }
                let idle_max = idle_max(response.headers());
                *lock(&return_slot.returned) = Some((sender, idle_max));
                return_slot.driver.wake();
                Ok(response)
            }
            Err(mut error) => Err((SendError::Unanswered { was_reused }, error.take_message())),
        }
    }
}

#[derive(Debug)]
enum ConnectError {
    Refused,
    OwnShortage,
}

/// Whether a repetition of a request that changes nothing may succeed: its connection was about to
/// close.
pub(in crate::proxy) fn met_a_close(result: &Result<Response<Incoming>, SendError>) -> bool {
    match result {
        Ok(response) => response.extensions().get::<IdleTimeout>().is_some(),
        Err(error) => matches!(error, SendError::Unanswered { was_reused: true }),
    }
}

/// How long a connection may wait after this response.
fn idle_max(headers: &HeaderMap) -> Duration {
    let Some(value) = headers.get(KEEP_ALIVE).and_then(|value| value.to_str().ok()) else {
        return IDLE_MAX;
    };
    let parameters = value.split(',').filter_map(|it| it.trim().split_once('='));
    let timeout = parameters
        .into_iter()
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok());
    let Some(timeout) = timeout.map(Duration::from_secs) else { return IDLE_MAX };
    // A limit of one second leaves half of it.
    timeout.saturating_sub(IDLE_MARGIN).max(timeout.min(IDLE_MARGIN) / 2).min(IDLE_MAX)
}

/// Drives one connection until it ends.
async fn drive(
    connection: Connection<TokioIo<BackendStream>, BackendBody>,
    return_slot: Arc<ReturnSlot>,
    waiting: Weak<Waiting>,
) {
    let mut connection = std::pin::pin!(connection);
    std::future::poll_fn(|cx| {
        // The requests that it carried report its errors.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        return_slot.driver.register(cx.waker());
        let mut returned = lock(&return_slot.returned);
        let Some((sender, _)) = returned.as_mut() else { return Poll::Pending };
        let is_ready = match sender.poll_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(ready) => ready.is_ok(),
        };
        let taken = returned.take().filter(|_| is_ready);
        drop(returned);
        if let (Some((sender, idle_max)), Some(waiting)) = (taken, waiting.upgrade()) {
            let connection = PooledConnection { sender, return_slot: Arc::clone(&return_slot) };
            waiting.put(WaitingConnection { connection, until: monotonic() + idle_max });
        }
        Poll::Pending
    })
    .await;
}

impl Waiting {
    /// The connection that waited last, if one has not expired.
    fn take(&self) -> Option<PooledConnection> {
        let mut connections = lock(&self.connections);
        if connections.is_empty() {
            return None;
        }
        let now = monotonic();
        while let Some(newest) = connections.pop() {
            if now < newest.until && !newest.connection.sender.is_closed() {
                return Some(newest.connection);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, connection: WaitingConnection) {
        let mut connections = lock(&self.connections);
        if connections.len() == WAITING_MAX {
            connections.remove(0);
        }
        connections.push(connection);
        drop(connections);
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Closes expired connections, until none waits.
async fn sweep(waiting: Weak<Waiting>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(waiting) = waiting.upgrade() else { return };
        let mut connections = lock(&waiting.connections);
        let now = monotonic();
        connections.retain(|it| now < it.until && !it.connection.sender.is_closed());
        if connections.is_empty() {
            // Under the lock: a connection that is put next starts another sweep.
            waiting.is_swept.store(false, Ordering::Relaxed);
            return;
        }
    }
}

impl fmt::Debug for WaitingConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingConnection").field("until", &self.until).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_connection_waits_less_than_the_release_keeps_it() {
        let limit = |value: &'static str| {
            idle_max(&HeaderMap::from_iter([(KEEP_ALIVE, HeaderValue::from_static(value))]))
        };
        assert_eq!(idle_max(&HeaderMap::new()), IDLE_MAX);
        assert_eq!(limit("timeout=5"), IDLE_MAX);
        assert_eq!(limit("timeout=3, max=100"), Duration::from_secs(2));
        assert_eq!(limit("max=100, Timeout=1"), Duration::from_millis(500));
        assert_eq!(limit("timeout=0"), Duration::ZERO);
        assert_eq!(limit("timeout=x"), IDLE_MAX);
    }
}
