//! The open files of this process, and what a lack of them means.
//!
//! Client connections and connections to releases share the limit; a reserve stays for probes, the
//! control socket and the records. What fails because this host lacks files, ports or memory is no
//! fault of a release. It raises an alarm of its own.

use std::io;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mutex::lock;

/// An eighth of the limit is reserved, within these bounds.
const RESERVE_MIN: u64 = 32;
const RESERVE_MAX: u64 = 1_024;
/// Between two alarms.
const ALARM_INTERVAL: Duration = Duration::from_mins(1);
/// How long a connection to a release may wait for one that ends. Idle ones end sooner.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

/// The places of this process; unlimited until the daemon sets them.
static PLACES: OnceLock<Places> = OnceLock::new();
static LAST_ALARM: Mutex<Option<Instant>> = Mutex::new(None);

#[derive(Debug)]
struct Places {
    /// Of each side.
    max: usize,
    clients: Semaphore,
    releases: Semaphore,
}

/// What a limit of open files allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBudget {
    /// Files that connections may not use.
    pub reserve: u64,
    /// Client connections of all services at once, and as many connections to releases.
    pub connections: u64,
}

/// A place for one connection.
pub(crate) type Place = Option<SemaphorePermit<'static>>;

impl FileBudget {
    /// What this limit allows: half of it without the reserve for each side.
    pub fn of(limit: u64) -> Self {
        let reserve = (limit / 8).clamp(RESERVE_MIN, RESERVE_MAX);
        Self { reserve, connections: (limit.saturating_sub(reserve) / 2).max(1) }
    }

    /// Limits the connections of this process from now on. Only the first call has an effect.
    pub fn apply(self) {
        let max = usize::try_from(self.connections).unwrap_or(usize::MAX);
        let max = max.min(Semaphore::MAX_PERMITS);
        let places = || Semaphore::new(max);
        let _ = PLACES.set(Places { max, clients: places(), releases: places() });
    }
}

/// How many places of client connections and of connections to releases are in use, each with how
/// many there are. `None` without a limit.
pub(crate) fn usage() -> Option<[(usize, usize); 2]> {
    let places = PLACES.get()?;
    let used = |side: &Semaphore| (places.max - side.available_permits(), places.max);
    Some([used(&places.clients), used(&places.releases)])
}

/// How many of the places of each side one client address may use. The last eighth is for others while
/// its calls are slow. A larger part would cost a host whose clients all come through one address, such as
/// a proxy that `trusted_proxies` does not name. Without a limit it is unbounded.
pub(crate) fn address_share() -> usize {
    PLACES.get().map_or(usize::MAX, |places| (places.max - places.max / 8).max(1))
}

/// A place for a client connection; `None` while there is none. Without a limit it is an empty one.
pub(crate) fn try_client_place() -> Option<Place> {
    match PLACES.get() {
        None => Some(None),
        Some(places) => places.clients.try_acquire().ok().map(Some),
    }
}

/// Waits for a place for a connection to a release.
///
/// # Errors
/// All are in use for longer than [`PLACE_TIMEOUT`]; the error is that of a lack of files.
pub(crate) async fn release_place() -> io::Result<Place> {
    let Some(places) = PLACES.get() else { return Ok(None) };
    match tokio::time::timeout(PLACE_TIMEOUT, places.releases.acquire()).await {
        Ok(Ok(place)) => Ok(Some(place)),
        _ => Err(io::Error::from_raw_os_error(Errno::MFILE.raw_os_error())),
    }
}

/// Whether an error is a lack of files, ports or memory on this host.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGE: [Errno; 5] =
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];
    let code = error.raw_os_error();
    code.is_some_and(|code| SHORTAGE.iter().any(|errno| errno.raw_os_error() == code))
}

/// Pages the operator about an error of this host, at most once a minute. `what` failed.
pub(crate) fn report(what: &str, error: &io::Error) {
    let now = monotonic();
    let mut last = lock(&LAST_ALARM);
    if last.is_none_or(|last| last + ALARM_INTERVAL <= now) {
        *last = Some(now);
        let advice = match is_shortage(error) {
            true => "raise LimitNOFILE, or lower limits.connections",
            false => "let the user of rollbackd use the socket",
        };
        tracing::error!(
            page = true,
            "{what}: {error}. It is an error of this host and counts against no release; {advice}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shared_with_a_reserve() {
        let budget = |reserve, connections| FileBudget { reserve, connections };
        assert_eq!(FileBudget::of(120), budget(32, 44));
        assert_eq!(FileBudget::of(1_024), budget(128, 448));
        assert_eq!(FileBudget::of(65_536), budget(1_024, 32_256));
        assert_eq!(FileBudget::of(16), budget(32, 1));
    }

    #[test]
    fn only_this_host_can_be_short() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(is_shortage(&error(Errno::MFILE)) && is_shortage(&error(Errno::ADDRNOTAVAIL)));
        assert!(!is_shortage(&error(Errno::CONNREFUSED)));
        assert!(!is_shortage(&io::ErrorKind::TimedOut.into()));
    }
}
