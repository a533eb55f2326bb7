//! The places for client connections: those of one service, and those that the limit of open files
//! leaves to all. When all are taken and a client waits, the connection that is idle longest closes; where
//! none is idle, the one whose client has been too slow for longest, with its request.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mutex::lock;
use crate::open_files;
use crate::proxy::backend::address_limits::{EndSlow, counted_address};
use crate::proxy::server::answers::Answers;

/// How often a listener without a place looks for one.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// A connection that is idle for less may just carry a request.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// A client that has sent or taken too little for less than this may just be interrupted.
const OWED_MIN: Duration = Duration::from_secs(5);
/// Of this many idle connections, one closes at once.
const IDLE_SHARE: usize = 64;
/// Connections that are tracked before those that ended are removed.
const SLACK: usize = 256;
/// Between two lines of the log.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// The open connections of each service of this process.
static SERVICES: Mutex<Vec<Weak<OpenConnections>>> = Mutex::new(Vec::new());

/// The places of one service.
#[derive(Debug)]
pub(in crate::proxy) struct Places {
    permits: Arc<Semaphore>,
    open: Arc<OpenConnections>,
    last_log: Option<Instant>,
}

/// The connections of one service.
#[derive(Debug, Default)]
pub(in crate::proxy) struct OpenConnections(Mutex<Vec<(IpAddr, Weak<Answers>)>>);

/// A place for one connection.
#[derive(Debug)]
pub(super) struct Place {
    _of_service: OwnedSemaphorePermit,
    _of_process: open_files::Place,
}

impl Places {
    /// Places for `max` connections.
    pub(in crate::proxy) fn new(max: usize) -> Self {
        let open = Arc::<OpenConnections>::default();
        let mut services = lock(&SERVICES);
        services.retain(|service| service.strong_count() > 0);
        services.push(Arc::downgrade(&open));
        let permits = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { permits, open, last_log: None }
    }

    /// Where the connections are tracked.
    pub(in crate::proxy) fn open_connections(&self) -> Arc<OpenConnections> {
        Arc::clone(&self.open)
    }

    /// Waits for a place.
    pub(super) async fn take(&mut self, listener: &TcpListener) -> Place {
        let mut of_service = None;
        loop {
            of_service = of_service.or_else(|| Arc::clone(&self.permits).try_acquire_owned().ok());
            if let Some(permit) = of_service {
                if let Some(place) = open_files::try_client_place() {
                    return Place { _of_service: permit, _of_process: place };
                }
                of_service = Some(permit);
            }
            if has_waiting_client(listener) {
                self.close_longest_idle(of_service.is_none());
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Closes the idle connection of this service, or of any.
    fn close_longest_idle(&mut self, of_this: bool) {
        let services = match of_this {
            true => vec![Arc::clone(&self.open)],
            false => lock(&SERVICES).iter().filter_map(Weak::upgrade).collect(),
        };
        let all = services.iter().flat_map(|service| service.matching(|_| true)).collect();
        close_longest_idle(all);
        let now = monotonic();
        if self.last_log.is_none_or(|last| last + LOG_INTERVAL <= now) {
            self.last_log = Some(now);
            let limit = if of_this { "limits.connections" } else { "the limit of open files" };
            tracing::warn!(
                "all places for client connections are taken ({limit}): new clients wait, and the \
                 connection that is idle longest closes"
            );
        }
    }
}

impl OpenConnections {
    /// Tracks a connection from this address.
    pub(super) fn add(&self, address: IpAddr, connection: &Arc<Answers>) {
        let mut open = lock(&self.0);
        if open.len() >= SLACK && open.len() == open.capacity() {
            open.retain(|(_, connection)| connection.strong_count() > 0);
        }
        open.push((address, Arc::downgrade(connection)));
    }

    /// How many there are, and the most requests that are open on one.
    pub(in crate::proxy) fn usage(&self) -> (usize, usize) {
        let open = self.matching(|_| true);
        let streams = open.iter().map(|it| it.open_requests()).max();
        (open.len(), streams.unwrap_or_default())
    }

    /// Closes the connection from this address that is idle or slow for longest. Returns whether one is.
    pub(super) fn close_longest_idle_of(&self, address: IpAddr) -> bool {
        let address = counted_address(address);
        close_longest_idle(self.matching(|it| counted_address(it) == address))
    }

    /// Closes the connection of an address whose client has been too slow for longest, with its request.
    pub(in crate::proxy) fn end_slow(self: &Arc<Self>) -> EndSlow {
        let open = Arc::clone(self);
        EndSlow(Box::new(move |address| {
            let address = counted_address(address);
            close_slow(&open.matching(|it| counted_address(it) == address))
        }))
    }

    fn matching(&self, matches: impl Fn(IpAddr) -> bool) -> Vec<Arc<Answers>> {
        let open = lock(&self.0);
        let matching = open.iter().filter(|(address, _)| matches(*address));
        matching.filter_map(|(_, connection)| connection.upgrade()).collect()
    }
}

/// Closes the connection that is idle longest. Of many idle ones it closes several, so that a flood of
/// them does not keep other clients out for long. Where none is idle for long enough, it closes those whose
/// clients owe bytes. Returns whether it found one.
fn close_longest_idle(open: Vec<Arc<Answers>>) -> bool {
    longest(&open, IDLE_MIN, Answers::idle_for, Answers::close) || close_slow(&open)
}

/// Closes those whose clients owe bytes for longest, with their requests. Returns whether it found one.
fn close_slow(open: &[Arc<Answers>]) -> bool {
    longest(open, OWED_MIN, Answers::owed_for, Answers::abandon)
}

/// Closes those of which `time` is longest, and at least `min`. Returns whether there is one.
fn longest(
    open: &[Arc<Answers>],
    min: Duration,
    time: impl Fn(&Answers) -> Option<Duration>,
    close: impl Fn(&Answers),
) -> bool {
    let found = open.iter().filter_map(|it| Some((time(it).filter(|time| *time >= min)?, it)));
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(time, _)| Reverse(*time));
    found.iter().take(found.len().div_ceil(IDLE_SHARE)).for_each(|(_, it)| close(it));
    !found.is_empty()
}

/// Whether a client waits to be accepted.
fn has_waiting_client(listener: &TcpListener) -> bool {
    let mut listener = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut listener, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
