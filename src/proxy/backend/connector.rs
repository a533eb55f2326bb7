//! Connections to one release, over TCP or a unix socket.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::config::Address;
use crate::mutex::lock;
use crate::open_files::{self, Place};
use crate::proxy::backend::stream::BackendStream;

/// The time limit for one connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two attempts to reach a release that is still starting.
const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// How long a request waits for a release that does not listen, where the proxy does not know why: its
/// supervisor may just restart it.
const REFUSED_WAIT: Duration = Duration::from_millis(500);
/// A port forwarder closes a connection within this time when nothing listens behind it.
const FORWARDER_CLOSE_MAX: Duration = Duration::from_millis(50);
/// When the kernel probes a silent connection, how often, and how many probes may be lost: a peer that
/// is gone is noticed after about a minute.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PROBES: u32 = 3;

/// Opens connections to one address.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    address: Address,
    grace: Arc<StartGrace>,
}

/// How long a release may refuse connections, because it starts.
#[derive(Debug, Default)]
pub(super) struct StartGrace {
    until: Mutex<Option<Instant>>,
    /// Whether it has answered a request since the grace began.
    has_answered: AtomicBool,
}

impl Connector {
    /// Connects to this address.
    pub(super) fn new(address: Address, grace: Arc<StartGrace>) -> Self {
        Self { address, grace }
    }

    /// The release has answered a request: it has started.
    pub(super) fn has_answered(&self) {
        // A read is cheaper than a write, and this runs for each response.
        if !self.grace.has_answered.load(Ordering::Relaxed) {
            self.grace.has_answered.store(true, Ordering::Relaxed);
        }
    }

    /// Opens a connection. Waits for a release that starts, and briefly for one that does not listen.
    ///
    /// # Errors
    /// When the release does not accept it.
    pub(super) async fn connect(&self) -> io::Result<BackendStream> {
        // From the first refusal: a wait for a place says nothing about the release.
        let mut refused_until = None;
        loop {
            let place = open_files::release_place();
            match open_in_time(CONNECT_TIMEOUT, place, |place| self.open(place)).await {
                Err(error)
                    if is_not_listening(&error) && self.may_listen_soon(&mut refused_until) =>
                {
                    tokio::time::sleep(CONNECT_RETRY_DELAY).await;
                }
                Err(error) if is_own_error(&error) => {
                    open_files::report("rollbackd cannot connect to a release", &error);
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// Whether the release accepts a connection. Without an answer in time, or where this host lacks
    /// files, it is not known not to.
    pub(super) async fn is_listening(&self) -> bool {
        let place = open_files::release_place();
        let opened = open_in_time(CONNECT_TIMEOUT, place, |place| self.open(place)).await;
        !opened.is_err_and(|error| is_not_listening(&error))
    }

    fn may_listen_soon(&self, refused_until: &mut Option<Instant>) -> bool {
        let now = monotonic();
        now < *refused_until.get_or_insert(now + REFUSED_WAIT) || self.grace.is_active()
    }

    async fn open(&self, place: Place) -> io::Result<BackendStream> {
        let address = match &self.address {
            Address::Tcp(address) => address,
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                return Ok(BackendStream::unix(stream, place));
            }
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        // A port forwarder accepts before the release behind it listens, and closes at once. Nothing
        // was sent yet, so the proxy can wait for any request.
        if self.grace.is_active() && closes_at_once(&stream).await {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(BackendStream::tcp(stream, place))
    }
}

/// Opens a connection once there is a place for it. The time limit of the release begins then: that a
/// place is late says nothing about it.
///
/// # Errors
/// Of the place, of the connection, or a time-out of the connection.
async fn open_in_time<T, F: Future<Output = io::Result<T>>>(
    limit: Duration,
    place: impl Future<Output = io::Result<Place>>,
    open: impl FnOnce(Place) -> F,
) -> io::Result<T> {
    let opening = tokio::time::timeout(limit, open(place.await?));
    opening.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Lets the kernel notice a peer that is gone without a word.
///
/// # Errors
/// When the kernel does not accept the settings.
pub(in crate::proxy) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let settings = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_AFTER)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&settings)
}

async fn closes_at_once(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let first = tokio::time::timeout(FORWARDER_CLOSE_MAX, stream.peek(&mut byte)).await;
    matches!(first, Ok(Ok(0) | Err(_)))
}

/// Whether an error is one of this host, not of the release: a shortage, or a lack of permission.
pub(super) fn is_own_error(error: &io::Error) -> bool {
    open_files::is_shortage(error) || error.kind() == io::ErrorKind::PermissionDenied
}

fn is_not_listening(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

impl StartGrace {
    /// Lets requests wait until this instant, unless the release answers before.
    pub(super) fn begin(&self, until: Instant) {
        *lock(&self.until) = Some(until);
        self.has_answered.store(false, Ordering::Relaxed);
    }

    /// Whether the release does not answer yet but may soon.
    fn is_active(&self) -> bool {
        if self.has_answered.load(Ordering::Relaxed) {
            return false;
        }
        let until = *lock(&self.until);
        until.is_some_and(|until| monotonic() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_place_takes_no_time_from_the_release() {
        let limit = Duration::from_millis(20);
        let place = async {
            tokio::time::sleep(2 * limit).await;
            Ok(None)
        };
        assert_eq!(open_in_time(limit, place, async |_| Ok(7)).await.unwrap(), 7);
        let none = async { Err(io::Error::from_raw_os_error(24)) };
        let error = open_in_time(limit, none, async |_| Ok(7)).await.unwrap_err();
        assert!(is_own_error(&error), "{error}");
        let silent = async |_| std::future::pending::<io::Result<()>>().await;
        let error = open_in_time(limit, async { Ok(None) }, silent).await.unwrap_err();
        assert!(error.kind() == io::ErrorKind::TimedOut && !is_own_error(&error));
    }
}
