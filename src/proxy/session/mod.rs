//! Legacy sessions: the table of live ones.

mod id;
mod live_session;
pub(super) mod migration;
mod persistence;
mod replication;
mod snapshot;
mod state_machine;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use id::SessionIdCodec;
pub use id::SessionIdSecret;
pub(super) use id::{SessionId, SessionKey};

use crate::model::{MigrationRefused, Moment, ReleaseNumber};
use crate::proxy::handover::replication::ChangeQueue;
pub(super) use crate::proxy::session::live_session::{Admission, InFlightGuard, ResumeAt, Session};
pub(super) use crate::proxy::session::persistence::SessionRecord;
use crate::proxy::session::persistence::SessionStore;
pub(super) use crate::proxy::session::replication::{decode_key, encode_key};
pub(super) use crate::proxy::session::snapshot::{OpeningSnapshot, advertise_list_changed};
pub(super) use crate::proxy::session::state_machine::{
    Action, ClientMessageKind, Environment, ReplayDecision, replay_decision,
};

type SessionMap = papaya::HashMap<SessionKey, Arc<Session>>;

/// No session lives longer than this, however busy.
const SESSION_AGE_MAX: Duration = Duration::from_hours(30 * 24);

/// The live sessions of one service.
#[derive(Debug)]
pub(super) struct Sessions {
    ids: SessionIdCodec,
    max: usize,
    by_key: Arc<SessionMap>,
    store: OnceLock<SessionStore>,
    /// Who takes over.
    change_sink: OnceLock<Arc<ChangeQueue>>,
}

/// What is kept of a session.
#[derive(Debug, Clone, PartialEq)]
struct PersistedSession {
    release: ReleaseNumber,
    generation: u32,
    backend_id: Box<str>,
    snapshot: Option<OpeningSnapshot>,
    opened_at: Moment,
}

/// What became of the sessions of a release that was cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EvictionReport {
    /// They ended.
    pub ended: u64,
    /// They move at their next request.
    pub will_move: u64,
    /// Why some were not moved while they could.
    pub not_moved: BTreeMap<MigrationRefused, u64>,
}

impl Sessions {
    /// An empty table for at most `max` sessions.
    pub(super) fn new(service: &str, key: SessionIdSecret, max: usize) -> Self {
        let by_key = Arc::new(papaya::HashMap::new());
        let (store, change_sink) = (OnceLock::new(), OnceLock::new());
        Self { ids: SessionIdCodec::new(service, key), max, by_key, store, change_sink }
    }

    /// Takes up the sessions that a file tells of, and keeps it up to date from now on.
    ///
    /// # Errors
    /// When the file can not be read or written.
    pub(super) fn open_store(&self, path: &Path, now: Moment) -> io::Result<()> {
        let by_key = self.by_key.pin();
        let unexpired = persistence::load(path)?
            .into_iter()
            .filter(|(_, it)| now.since(it.opened_at) < SESSION_AGE_MAX);
        for (key, kept) in unexpired.take(self.max) {
            by_key.insert(key, Arc::new(Session::new(key, now, kept)));
        }
        let store = SessionStore::open(path, Arc::clone(&self.by_key))?;
        let _ = self.store.set(store);
        Ok(())
    }

    /// What is kept of a session changed.
    pub(super) fn mark_changed(&self, session: &Session) {
        if let Some(store) = self.store.get() {
            store.mark_changed(session.key);
        }
        self.notify_sink(session.key);
    }

    /// Makes an id for a session that a backend has just opened. `None` when the backend's id can
    /// not be carried, or the system has no random numbers.
    pub(super) fn mint(
        &self,
        release: ReleaseNumber,
        backend_id: &str,
    ) -> Option<(String, SessionId)> {
        self.ids.mint(release, backend_id)
    }

    /// Reads an id; `None` for one that is forged, cut, or of another service.
    pub(super) fn decode(&self, id: &str) -> Option<SessionId> {
        self.ids.decode(id)
    }

    /// The live session of a claim; known again if the daemon was restarted since.
    pub(super) fn get_or_restore(&self, claim: &SessionId, now: Moment) -> Option<Arc<Session>> {
        let by_key = self.by_key.pin();
        if let Some(session) = by_key.get(&claim.key) {
            session.last_seen.store(now.0, Ordering::Relaxed);
            return Some(Arc::clone(session));
        }
        if by_key.len() >= self.max {
            return None;
        }
        let persisted = PersistedSession {
            release: claim.release,
            generation: 0,
            backend_id: claim.backend_id.as_str().into(),
            snapshot: None,
            opened_at: now,
        };
        let session = Arc::new(Session::new(claim.key, now, persisted));
        Some(Arc::clone(by_key.get_or_insert(claim.key, session)))
    }

    /// Forgets one session.
    pub(super) fn remove(&self, claim: &SessionId) {
        self.remove_key(&claim.key);
    }

    /// A release is cut: ends those that can not go on elsewhere, and forgets them.
    pub(super) fn evict_release(
        &self,
        release: ReleaseNumber,
        migration_forbidden: Option<MigrationRefused>,
    ) -> EvictionReport {
        let mut report = EvictionReport::default();
        for (key, session) in &self.by_key.pin() {
            if session.release() != release {
                continue;
            }
            let end_reason =
                session.on_release_cut(migration_forbidden).or_else(|| session.end_reason());
            if let Some(reason) = end_reason.or_else(|| session.pin_reason(migration_forbidden)) {
                *report.not_moved.entry(reason).or_default() += 1;
            }
            if end_reason.is_some() {
                report.ended += 1;
                self.remove_key(key);
            } else {
                report.will_move += 1;
            }
        }
        report
    }

    /// Whether a session is held at its release by what is under way there, and may still be freed.
    pub(super) fn any_pinned_or_busy(
        &self,
        release: ReleaseNumber,
        migration_forbidden: Option<MigrationRefused>,
    ) -> bool {
        let by_key = self.by_key.pin();
        let mut of_release = by_key.values().filter(|session| session.release() == release);
        of_release.any(|it| {
            it.pin_reason(migration_forbidden).is_some() || !it.with_machine(|life| life.is_idle())
        })
    }

    /// How many sessions of a release can not be moved, as far as is known.
    pub(super) fn count_pinned(
        &self,
        release: ReleaseNumber,
        migration_forbidden: Option<MigrationRefused>,
    ) -> u64 {
        let by_key = self.by_key.pin();
        let of_release = by_key.values().filter(|session| session.release() == release);
        let is_pinned = |it: &&Arc<Session>| {
            it.pin_reason(migration_forbidden).is_some_and(MigrationRefused::is_final)
        };
        u64::try_from(of_release.filter(is_pinned).count()).unwrap_or(u64::MAX)
    }

    /// Forgets the sessions that were silent for `idle`, or are too old.
    pub(super) fn sweep(&self, now: Moment, idle: Duration) {
        for (key, session) in &self.by_key.pin() {
            let idle_for = now.since(Moment(session.last_seen.load(Ordering::Relaxed)));
            if idle_for >= idle || now.since(session.opened_at) >= SESSION_AGE_MAX {
                self.remove_key(key);
            }
        }
    }

    /// How many sessions of a release live.
    pub(super) fn count(&self, release: ReleaseNumber) -> u64 {
        let live = self.by_key.pin();
        u64::try_from(live.values().filter(|session| session.release() == release).count())
            .unwrap_or(u64::MAX)
    }

    /// Whether a release has a session.
    pub(super) fn has_sessions(&self, release: ReleaseNumber) -> bool {
        self.by_key.pin().values().any(|session| session.release() == release)
    }

    /// The mean age of the sessions of a release.
    pub(super) fn mean_age(&self, release: ReleaseNumber, now: Moment) -> Duration {
        let by_key = self.by_key.pin();
        let ages =
            by_key.values().filter(|it| it.release() == release).map(|it| now.since(it.opened_at));
        let (sum, count) =
            ages.fold((Duration::ZERO, 0), |(sum, count), age| (sum + age, count + 1));
        sum.checked_div(count).unwrap_or_default()
    }

    /// The protocol versions that the sessions of a release negotiated.
    pub(super) fn protocols(&self, release: ReleaseNumber) -> BTreeSet<String> {
        let by_key = self.by_key.pin();
        let of_release = by_key.values().filter(|session| session.release() == release);
        of_release.filter_map(|session| session.protocol()).collect()
    }

    fn remove_key(&self, key: &SessionKey) {
        let by_key = self.by_key.pin();
        let Some(session) = by_key.remove(key) else { return };
        session.mark_removed();
        if let Some(store) = self.store.get() {
            store.mark_changed(*key);
        }
        self.notify_sink(*key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(service: &str) -> Sessions {
        Sessions::new(service, [7; 16], 3)
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_silent() {
        let table = sessions("weather");
        let claims: Vec<_> = (0..4).map(|n| table.mint(ReleaseNumber(n), "b").unwrap().1).collect();
        let minute = Duration::from_secs(60);
        for claim in &claims[..3] {
            assert!(table.get_or_restore(claim, Moment(0)).is_some());
        }
        assert!(table.get_or_restore(&claims[3], Moment(0)).is_none());
        assert!(table.get_or_restore(&claims[0], Moment(50_000)).is_some());
        table.sweep(Moment(60_000), minute);
        assert_eq!((table.count(ReleaseNumber(0)), table.count(ReleaseNumber(1))), (1, 0));
        // Nobody saw how it was opened.
        let not_moved = BTreeMap::from([(MigrationRefused::OpeningUnknown, 1)]);
        assert_eq!(
            table.evict_release(ReleaseNumber(0), None),
            EvictionReport { ended: 1, will_move: 0, not_moved }
        );
        assert_eq!(table.count(ReleaseNumber(0)), 0);
    }
}
