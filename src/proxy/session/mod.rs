//! Legacy sessions: the table of live ones.

mod capture;
mod heritage;
mod id;
mod life;
mod live;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::model::{Moment, Number, Refusal};

use id::Ids;
use store::Store;

use super::overlap::Tell;

pub use id::Key;

pub(super) use capture::{Captured, promise_changes};
pub(super) use heritage::{name, named};
pub(super) use id::{Claim, Mac};
pub(super) use life::{Fate, Ground, Step, What, fate};
pub(super) use live::{Onward, Place, Session, Turn};
pub(super) use store::Line;

type Live = papaya::HashMap<Mac, Arc<Session>>;

/// No session lives longer than this, however busy.
const LIFE_MAX: Duration = Duration::from_hours(30 * 24);

/// The live sessions of one service.
#[derive(Debug)]
pub(super) struct Sessions {
    ids: Ids,
    max: usize,
    live: Arc<Live>,
    store: OnceLock<Store>,
    /// Who takes over.
    tell: OnceLock<Arc<Tell>>,
}

/// What is kept of a session.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    release: Number,
    generation: u32,
    backend_id: Box<str>,
    captured: Option<Captured>,
    born: Moment,
}

/// What became of the sessions of a release that was cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leavers {
    /// They ended.
    pub ended: u64,
    /// They move at their next request.
    pub waiting: u64,
    /// Why some were not moved while they could.
    pub kept: BTreeMap<Refusal, u64>,
}

impl Sessions {
    /// An empty table for at most `max` sessions.
    pub(super) fn new(service: &str, key: Key, max: usize) -> Self {
        let live = Arc::new(papaya::HashMap::new());
        let (store, tell) = (OnceLock::new(), OnceLock::new());
        Self { ids: Ids::new(service, key), max, live, store, tell }
    }

    /// Takes up the sessions that a file tells of, and keeps it up to date from now on.
    ///
    /// # Errors
    /// When the file can not be read or written.
    pub(super) fn keep(&self, path: &Path, now: Moment) -> io::Result<()> {
        let live = self.live.pin();
        let young = store::read(path)?.into_iter().filter(|(_, it)| now.since(it.born) < LIFE_MAX);
        for (key, kept) in young.take(self.max) {
            live.insert(key, Arc::new(Session::new(key, now, kept)));
        }
        let store = Store::open(path, Arc::clone(&self.live))?;
        let _ = self.store.set(store);
        Ok(())
    }

    /// What is kept of a session changed.
    pub(super) fn note(&self, session: &Session) {
        if let Some(store) = self.store.get() {
            store.note(session.key);
        }
        self.told(session.key);
    }

    /// Makes an id for a session that a backend has just opened. `None` when the backend's id can
    /// not be carried, or the system has no random numbers.
    pub(super) fn mint(&self, release: Number, backend_id: &str) -> Option<(String, Claim)> {
        self.ids.mint(release, backend_id)
    }

    /// Reads an id; `None` for one that is forged, cut, or of another service.
    pub(super) fn read(&self, id: &str) -> Option<Claim> {
        self.ids.read(id)
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
        let kept = Kept {
            release: claim.release,
            generation: 0,
            backend_id: claim.backend_id.as_str().into(),
            captured: None,
            born: now,
        };
        let session = Arc::new(Session::new(claim.mac, now, kept));
        Some(Arc::clone(live.get_or_insert(claim.mac, session)))
    }

    /// Forgets one session.
    pub(super) fn end(&self, claim: &Claim) {
        self.forget(&claim.mac);
    }

    /// A release is cut: ends those that can not go on elsewhere, and forgets them.
    pub(super) fn leave(&self, release: Number, bound: Option<Refusal>) -> Leavers {
        let mut leavers = Leavers::default();
        for (key, session) in &self.live.pin() {
            if session.release() != release {
                continue;
            }
            let held = session.cut(bound).or_else(|| session.ended());
            if let Some(refusal) = held.or_else(|| session.holds(bound)) {
                *leavers.kept.entry(refusal).or_default() += 1;
            }
            if held.is_some() {
                leavers.ended += 1;
                self.forget(key);
            } else {
                leavers.waiting += 1;
            }
        }
        leavers
    }

    /// Whether a session is held at its release by what is under way there, and may still be freed.
    pub(super) fn any_held(&self, release: Number, bound: Option<Refusal>) -> bool {
        let live = self.live.pin();
        let mut there = live.values().filter(|session| session.release() == release);
        there.any(|it| it.holds(bound).is_some() || !it.live(|life| life.is_idle()))
    }

    /// How many sessions of a release can not be moved, as far as is known.
    pub(super) fn bound(&self, release: Number, bound: Option<Refusal>) -> u64 {
        let live = self.live.pin();
        let there = live.values().filter(|session| session.release() == release);
        let held = |it: &&Arc<Session>| it.holds(bound).is_some_and(Refusal::is_final);
        u64::try_from(there.filter(held).count()).unwrap_or(u64::MAX)
    }

    /// Forgets the sessions that were silent for `idle`, or are too old.
    pub(super) fn sweep(&self, now: Moment, idle: Duration) {
        for (key, session) in &self.live.pin() {
            let silent = now.since(Moment(session.seen.load(Ordering::Relaxed)));
            if silent >= idle || now.since(session.born) >= LIFE_MAX {
                self.forget(key);
            }
        }
    }

    /// How many sessions of a release live.
    pub(super) fn count(&self, release: Number) -> u64 {
        let live = self.live.pin();
        u64::try_from(live.values().filter(|session| session.release() == release).count())
            .unwrap_or(u64::MAX)
    }

    /// Whether a release has a session.
    pub(super) fn any(&self, release: Number) -> bool {
        self.live.pin().values().any(|session| session.release() == release)
    }

    /// The mean age of the sessions of a release.
    pub(super) fn age(&self, release: Number, now: Moment) -> Duration {
        let live = self.live.pin();
        let ages = live.values().filter(|it| it.release() == release).map(|it| now.since(it.born));
        let (sum, count) =
            ages.fold((Duration::ZERO, 0), |(sum, count), age| (sum + age, count + 1));
        sum.checked_div(count).unwrap_or_default()
    }

    /// The protocol versions that the sessions of a release negotiated.
    pub(super) fn protocols(&self, release: Number) -> BTreeSet<String> {
        let live = self.live.pin();
        let of_release = live.values().filter(|session| session.release() == release);
        of_release.filter_map(|session| session.protocol()).collect()
    }

    fn forget(&self, key: &Mac) {
        let live = self.live.pin();
        let Some(session) = live.remove(key) else { return };
        session.close();
        if let Some(store) = self.store.get() {
            store.note(*key);
        }
        self.told(*key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(service: &str) -> Sessions {
        Sessions::new(service, [7; 16], 3)
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
        table.sweep(Moment(60_000), minute);
        assert_eq!((table.count(Number(0)), table.count(Number(1))), (1, 0));
        // Nobody saw how it was opened.
        let kept = BTreeMap::from([(Refusal::Unknown, 1)]);
        assert_eq!(table.leave(Number(0), None), Leavers { ended: 1, waiting: 0, kept });
        assert_eq!(table.count(Number(0)), 0);
    }
}
