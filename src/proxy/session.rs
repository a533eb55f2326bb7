//! Legacy sessions: ids that the proxy mints, and the table of live ones.
//!
//! An id tells the release and the backend's own id by itself, so that it still leads to the right
//! place after a restart of the daemon:
//!
//! ```text
//! base64url( 1 | release number (4 bytes) | nonce (8) | mac (16) | the backend's id )
//! ```
//!
//! The mac (SipHash-2-4, 128 bits, with a secret of this host) covers the service and all other
//! fields: an id can not be guessed or bent to another session, and carries nothing secret.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tokio::time::Instant;

use crate::model::{Moment, Number};

use super::message::same_id;

/// The secret behind session ids.
pub type Key = [u8; 16];
type Mac = [u8; 16];

const VERSION: u8 = 1;
/// Requests of a session that are remembered: cancelled ones, and parked ones.
const REMEMBERED_MAX: usize = 64;
const HEAD: usize = 1 + 4 + 8;
/// Longest id of a backend that is passed on.
pub(super) const BACKEND_ID_MAX: usize = 1024;

/// What an id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// The release that made the session.
    pub release: Number,
    /// Its id there.
    pub backend_id: String,
    mac: Mac,
}

/// The live sessions of one service.
#[derive(Debug)]
pub(super) struct Sessions {
    service: String,
    key: Key,
    max: usize,
    live: papaya::HashMap<Mac, Arc<Session>>,
}

/// One live session.
#[derive(Debug)]
pub(super) struct Session {
    /// The release that made it.
    pub release: Number,
    born: Moment,
    seen: AtomicU64,
    protocol: OnceLock<Box<str>>,
    /// Whether the release answered for it since the daemon started.
    proven: AtomicBool,
    cancelled: Mutex<VecDeque<(Box<str>, Instant)>>,
    parked: Mutex<Vec<Box<str>>>,
}

impl Session {
    /// Notes that the client takes a request back. Ids are used once in a session.
    pub(super) fn cancel(&self, id: &str) {
        let mut cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        if cancelled.len() == REMEMBERED_MAX {
            cancelled.pop_front();
        }
        cancelled.push_back((id.into(), Instant::now()));
    }

    /// When the client took a request back, if it did.
    pub(super) fn cancelled(&self, id: &str) -> Option<Instant> {
        let cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        cancelled.iter().find(|(other, _)| same_id(other, id)).map(|(_, at)| *at)
    }

    /// Notes that a request waits for its answer on a stream that the client still has to open.
    pub(super) fn park(&self, id: &str) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if parked.len() < REMEMBERED_MAX {
            parked.push(id.into());
        }
    }

    /// Notes that a parked request was answered.
    pub(super) fn unpark(&self, id: &str) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        parked.retain(|other| !same_id(other, id));
    }

    /// The parked requests, which somebody else answers now.
    pub(super) fn take_parked(&self) -> Vec<Box<str>> {
        std::mem::take(&mut *self.parked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that the release knows it.
    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether the release is known to have had it, so that "unknown session" is its own fault.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Remembers the protocol version that was negotiated.
    pub(super) fn speaks(&self, protocol: &str) {
        if self.protocol.get().is_none() && protocol.len() <= 32 {
            self.protocol.get_or_init(|| protocol.into());
        }
    }
}

impl Sessions {
    /// An empty table for at most `max` sessions.
    pub(super) fn new(service: &str, key: Key, max: usize) -> Self {
        Self { service: service.to_owned(), key, max, live: papaya::HashMap::new() }
    }

    /// Makes an id for a session that a backend has just opened. `None` when the backend's id can
    /// not be carried, or the system has no random numbers.
    pub(super) fn mint(&self, release: Number, backend_id: &str) -> Option<(String, Claim)> {
        if backend_id.is_empty() || backend_id.len() > BACKEND_ID_MAX {
            return None;
        }
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).ok()?;
        let mut bytes = Vec::with_capacity(HEAD + 16 + backend_id.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&release.0.to_be_bytes());
        bytes.extend_from_slice(&nonce);
        let mac = self.mac(&bytes, backend_id.as_bytes());
        bytes.extend_from_slice(&mac);
        bytes.extend_from_slice(backend_id.as_bytes());
        let claim = Claim { release, backend_id: backend_id.to_owned(), mac };
        Some((BASE64.encode(&bytes), claim))
    }

    /// Reads an id; `None` for one that is forged, cut, or of another service.
    pub(super) fn read(&self, id: &str) -> Option<Claim> {
        if id.len() > 2 * (HEAD + 16 + BACKEND_ID_MAX) {
            return None;
        }
        let bytes = BASE64.decode(id).ok()?;
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let (mac, backend) = rest.split_first_chunk::<16>()?;
        let (version, numbers) = head.split_first()?;
        let good = *version == VERSION && same(mac, &self.mac(head, backend));
        let release = Number(u32::from_be_bytes(*numbers.first_chunk()?));
        let backend_id = String::from_utf8(backend.to_vec()).ok()?;
        (good && !backend_id.is_empty()).then_some(Claim { release, backend_id, mac: *mac })
    }

    /// The live session of a claim; known again if the daemon was restarted since.
    pub(super) fn touch(&self, claim: &Claim, now: Moment) -> Option<Arc<Session>> {
        let live = self.live.pin();
        if let Some(session) = live.get(&claim.mac) {
            session.seen.store(now.0, Ordering::Relaxed);
            return Some(Arc::clone(session));
        }
        if live.len() >= self.max {
            return None;
        }
        let session = Arc::new(Session {
            release: claim.release,
            born: now,
            seen: AtomicU64::new(now.0),
            protocol: OnceLock::new(),
            proven: AtomicBool::new(false),
            cancelled: Mutex::default(),
            parked: Mutex::default(),
        });
        Some(Arc::clone(live.get_or_insert(claim.mac, session)))
    }

    /// Forgets one session.
    pub(super) fn end(&self, claim: &Claim) {
        self.live.pin().remove(&claim.mac);
    }

    /// Forgets every session of a release; how many there were.
    pub(super) fn end_all(&self, release: Number) -> u64 {
        self.drop_where(|session| session.release == release)
    }

    /// Forgets the sessions that were silent for `idle`.
    pub(super) fn sweep(&self, now: Moment, idle: Duration) -> u64 {
        self.drop_where(|session| now.since(Moment(session.seen.load(Ordering::Relaxed))) >= idle)
    }

    /// How many sessions of a release live.
    pub(super) fn count(&self, release: Number) -> u64 {
        let live = self.live.pin();
        u64::try_from(live.values().filter(|session| session.release == release).count())
            .unwrap_or(u64::MAX)
    }

    /// The mean age of the sessions of a release.
    pub(super) fn age(&self, release: Number, now: Moment) -> Duration {
        let live = self.live.pin();
        let ages = live.values().filter(|it| it.release == release).map(|it| now.since(it.born));
        let (sum, count) =
            ages.fold((Duration::ZERO, 0), |(sum, count), age| (sum + age, count + 1));
        sum.checked_div(count).unwrap_or_default()
    }

    /// The protocol versions that the sessions of a release negotiated.
    pub(super) fn protocols(&self, release: Number) -> BTreeSet<String> {
        let live = self.live.pin();
        let of_release = live.values().filter(|session| session.release == release);
        of_release.filter_map(|session| session.protocol.get().map(ToString::to_string)).collect()
    }

    fn drop_where(&self, mut gone: impl FnMut(&Session) -> bool) -> u64 {
        let mut dropped = 0;
        self.live.pin().retain(|_, session| {
            let gone = gone(session);
            dropped += u64::from(gone);
            !gone
        });
        dropped
    }

    fn mac(&self, head: &[u8], backend: &[u8]) -> Mac {
        use std::hash::Hasher as _;
        let mut hasher = SipHasher24::new_with_key(&self.key);
        // The length keeps the service's name and what follows apart.
        hasher.write_usize(self.service.len());
        hasher.write(self.service.as_bytes());
        hasher.write(head);
        hasher.write(backend);
        hasher.finish128().as_bytes()
    }
}

/// Compares in a time that does not depend on where the first difference is.
fn same(a: &Mac, b: &Mac) -> bool {
    a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(service: &str) -> Sessions {
        Sessions::new(service, [7; 16], 3)
    }

    #[test]
    fn an_id_leads_back_to_its_release_after_a_restart() {
        let (id, claim) = table("weather").mint(Number(42), "backend-1").unwrap();
        assert_eq!(table("weather").read(&id), Some(claim.clone()));
        assert_eq!((claim.release, claim.backend_id.as_str()), (Number(42), "backend-1"));
    }

    #[test]
    fn every_forged_cut_or_foreign_id_is_refused() {
        let (id, _) = table("weather").mint(Number(42), "backend-1").unwrap();
        assert_eq!(table("mail").read(&id), None);
        assert_eq!(Sessions::new("weather", [8; 16], 3).read(&id), None);
        for end in 0..id.len() {
            assert_eq!(table("weather").read(&id[..end]), None, "{}", &id[..end]);
        }
        let bytes = BASE64.decode(&id).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.clone();
                forged[at] ^= 1 << bit;
                assert_eq!(table("weather").read(&BASE64.encode(&forged)), None);
            }
        }
    }

    #[test]
    fn the_same_backend_id_never_makes_the_same_id_twice() {
        let table = table("weather");
        assert_ne!(table.mint(Number(1), "1").unwrap().0, table.mint(Number(1), "1").unwrap().0);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_silent() {
        let table = table("weather");
        let claims: Vec<_> = (0..4).map(|n| table.mint(Number(n), "b").unwrap().1).collect();
        let minute = Duration::from_secs(60);
        for claim in &claims[..3] {
            assert!(table.touch(claim, Moment(0)).is_some());
        }
        assert!(table.touch(&claims[3], Moment(0)).is_none());
        assert!(table.touch(&claims[0], Moment(50_000)).is_some());
        assert_eq!(table.sweep(Moment(60_000), minute), 2);
        assert_eq!((table.count(Number(0)), table.count(Number(1))), (1, 0));
        assert_eq!(table.end_all(Number(0)), 1);
    }
}
