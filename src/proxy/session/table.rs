//! All live sessions of one service.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::HeaderMap;

use crate::mcp::versions;
use crate::model::{MigrationRefused, Moment, ReleaseNumber};
use crate::mutex::lock;
use crate::proxy::session::change_sink::ChangeSink;
use crate::proxy::session::credentials::Owner;
use crate::proxy::session::id::{SessionId, SessionIdCodec, SessionIdSecret, SessionKey};
use crate::proxy::session::live_session::{Session, SessionMap};
use crate::proxy::session::occupancy::{Occupancy, SessionLimits};
use crate::proxy::session::persistence;
use crate::proxy::session::persistence::SessionStore;
use crate::proxy::session::recent_moves::RecentMoves;
use crate::proxy::session::record::PersistedSession;

/// A session without a request or a stream for longer is not active.
const ACTIVE_WITHIN: Duration = Duration::from_mins(5);
/// The longest life of a session, even of a busy one.
const SESSION_AGE_MAX: Duration = Duration::from_hours(30 * 24);

/// The live sessions of one service.
#[derive(Debug)]
pub(in crate::proxy) struct Sessions {
    ids: SessionIdCodec,
    /// The key of the hashes of credentials.
    secret: SessionIdSecret,
    pub(super) limits: SessionLimits,
    pub(super) occupancy: Occupancy,
    pub(super) by_key: Arc<SessionMap>,
    pub(super) store: OnceLock<SessionStore>,
    /// The replication to the successor, once there is one.
    pub(super) change_sink: OnceLock<Arc<dyn ChangeSink>>,
    /// For the predecessor, while it drains.
    pub(super) moves: RecentMoves,
    /// The newest releases that give their sessions ids.
    pub(super) giving_ids: Mutex<BTreeSet<ReleaseNumber>>,
}

/// What happened to the sessions of a release that was cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct EvictionReport {
    /// Sessions that ended.
    pub ended: u64,
    /// Sessions that migrate at their next request.
    pub will_move: u64,
    /// Sessions that did not migrate while the release served, by reason.
    pub not_moved: BTreeMap<MigrationRefused, u64>,
}

impl Sessions {
    /// An empty table.
    pub(in crate::proxy) fn new(
        service: &str,
        key: SessionIdSecret,
        limits: SessionLimits,
    ) -> Self {
        let by_key = Arc::new(papaya::HashMap::new());
        let (store, change_sink) = (OnceLock::new(), OnceLock::new());
        Self {
            ids: SessionIdCodec::new(service, key),
            secret: key,
            limits,
            occupancy: Occupancy::default(),
            by_key,
            store,
            change_sink,
            moves: RecentMoves::default(),
            giving_ids: Mutex::default(),
        }
    }

    /// Restores the sessions in a file, and writes every later change to it.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(in crate::proxy) fn open_store(&self, path: &Path, now: Moment) -> io::Result<()> {
        let by_key = self.by_key.pin();
        let loaded = persistence::load(path, self.limits.file_bytes()).unwrap_or_else(|error| {
            let what = persistence::set_aside_unusable(path, &error);
            tracing::error!(page = true, "{what}");
            Vec::new()
        });
        let unexpired =
            loaded.into_iter().filter(|(_, it)| now.since(it.opened_at) < SESSION_AGE_MAX);
        for (key, persisted) in unexpired.take(self.limits.count) {
            let session = Arc::new(Session::new(key, now, persisted));
            session.used.store(true, Ordering::Relaxed);
            self.account(&session);
            by_key.insert(key, session);
        }
        self.make_room(0);
        let store = SessionStore::open(path, Arc::clone(&self.by_key), self.limits.file_bytes())?;
        let _ = self.store.set(store);
        Ok(())
    }

    /// Writes and replicates a session that changed.
    pub(in crate::proxy) fn mark_changed(&self, session: &Session) {
        if let Some(store) = self.store.get() {
            store.mark_changed(session.key);
        }
        self.notify_sink(session.key);
        self.account(session);
        self.make_room(0);
    }

    /// Mints an id for a session that a backend has just opened, with a key that fits. `None` when the id
    /// of the backend is too long, or the system has no random numbers.
    pub(in crate::proxy) fn mint(
        &self,
        release: ReleaseNumber,
        backend_id: &str,
        fits: impl Fn(&SessionKey) -> bool,
    ) -> Option<(String, SessionId)> {
        self.ids.mint(release, backend_id, fits)
    }

    /// The key of the coins of one deploy.
    pub(in crate::proxy) fn trial_key(&self, release: ReleaseNumber) -> [u8; 16] {
        self.ids.derive_key("trial", release.0)
    }

    /// The key of the hashes of clients, the same for all deploys.
    pub(in crate::proxy) fn client_key(&self) -> [u8; 16] {
        self.ids.derive_key("client", 0)
    }

    /// Records that a request with these headers opened a session.
    pub(in crate::proxy) fn set_owner(&self, session: &Session, headers: &HeaderMap) {
        session.set_owner(Owner::of(headers, &self.secret));
    }

    /// Whether a request with these headers may have a session opened again, or end it.
    pub(in crate::proxy) fn is_owner(&self, session: &Session, headers: &HeaderMap) -> bool {
        session.is_owned_by(&Owner::of(headers, &self.secret))
    }

    /// Whether no live session has this id.
    pub(in crate::proxy) fn is_unknown(&self, id: &str) -> bool {
        self.known_key(id).is_none()
    }

    /// The key of the session with this id, if it is known.
    pub(in crate::proxy) fn known_key(&self, id: &str) -> Option<[u8; 16]> {
        let key = self.decode(id)?.key;
        self.by_key.pin().contains_key(&key).then_some(key)
    }

    /// How often the session with this id has moved; 0 for an unknown one.
    pub(in crate::proxy) fn generation(&self, id: &str) -> u32 {
        let found = self.decode(id).and_then(|id| self.by_key.pin().get(&id.key).cloned());
        found.map(|session| session.generation()).unwrap_or_default()
    }

    /// Decodes an id; `None` for one that is forged, truncated, or of another service.
    pub(in crate::proxy) fn decode(&self, id: &str) -> Option<SessionId> {
        self.ids.decode(id)
    }

    /// The live session of an id. An id that is not in the table gets a new entry: this daemon
    /// started after the session was opened. `None` when the table is full of sessions in use.
    pub(in crate::proxy) fn get_or_restore(
        &self,
        id: &SessionId,
        now: Moment,
    ) -> Option<Arc<Session>> {
        let by_key = self.by_key.pin();
        if let Some(session) = by_key.get(&id.key) {
            session.last_seen.store(now.0, Ordering::Relaxed);
            if !session.used_since_start.load(Ordering::Relaxed) {
                session.used.store(true, Ordering::Relaxed);
                session.used_since_start.store(true, Ordering::Relaxed);
            }
            return Some(Arc::clone(session));
        }
        self.make_room(1);
        if by_key.len() >= self.limits.count {
            return None;
        }
        let persisted = PersistedSession {
            release: id.release,
            generation: 0,
            backend_id: id.backend_id.as_str().into(),
            snapshot: None,
            opened_at: now,
            owner: Owner::default(),
        };
        let session = Arc::new(Session::new(id.key, now, persisted));
        self.account(&session);
        self.occupancy.opened(id.key);
        Some(Arc::clone(by_key.get_or_insert(id.key, session)))
    }

    /// Removes one session.
    pub(in crate::proxy) fn remove(&self, id: &SessionId) {
        self.remove_key(&id.key);
    }

    /// A release is cut: ends and removes its sessions that cannot migrate.
    pub(in crate::proxy) fn evict_release(
        &self,
        release: ReleaseNumber,
        migration_forbidden: Option<MigrationRefused>,
    ) -> EvictionReport {
        let mut report = EvictionReport::default();
        for session in self.by_key.pin().values().filter(|it| it.release() == release) {
            let end_reason =
                session.on_release_cut(migration_forbidden).or_else(|| session.end_reason());
            if let Some(reason) = end_reason.or_else(|| session.pin_reason(migration_forbidden)) {
                *report.not_moved.entry(reason).or_default() += 1;
            }
            if end_reason.is_some() {
                report.ended += 1;
                self.remove_key(&session.key);
            } else {
                report.will_move += 1;
            }
        }
        report
    }

    /// Whether a session of a release is busy or pinned, also for a reason that is final.
    pub(in crate::proxy) fn any_pinned_or_busy(
        &self,
        release: ReleaseNumber,
        migration_forbidden: Option<MigrationRefused>,
    ) -> bool {
        let by_key = self.by_key.pin();
        let mut of_release = by_key.values().filter(|session| session.release() == release);
        of_release.any(|it| {
            it.pin_reason(migration_forbidden).is_some()
                || !it.with_machine(|machine| machine.is_idle())
        })
    }

    /// The number of sessions of a release that cannot migrate for a final reason.
    pub(in crate::proxy) fn count_pinned(
        &self,
        release: ReleaseNumber,
        migration_forbidden: Option<MigrationRefused>,
    ) -> u64 {
        self.count_where(release, |it| {
            it.pin_reason(migration_forbidden).is_some_and(MigrationRefused::is_final)
        })
    }

    /// The number of active sessions that can migrate, of the releases that `is_from` names.
    pub(in crate::proxy) fn count_movable(
        &self,
        now: Moment,
        migration_forbidden: Option<MigrationRefused>,
        is_from: impl Fn(ReleaseNumber) -> bool,
    ) -> u64 {
        let stays = |it: &Session| {
            it.pin_reason(migration_forbidden).is_some_and(MigrationRefused::is_final)
        };
        let by_key = self.by_key.pin();
        let active = by_key.values().filter(|it| it.is_active(now, ACTIVE_WITHIN));
        let found = active.filter(|it| is_from(it.release()) && !stays(it));
        u64::try_from(found.count()).unwrap_or(u64::MAX)
    }

    /// Removes the sessions without a request or stream for `idle`, and those above the maximum age.
    pub(in crate::proxy) fn sweep(&self, now: Moment, idle: Duration) {
        for (key, session) in &self.by_key.pin() {
            if session.is_in_use() {
                session.last_seen.store(now.0, Ordering::Relaxed);
                continue;
            }
            let idle_for = now.since(Moment(session.last_seen.load(Ordering::Relaxed)));
            if idle_for >= idle || now.since(session.opened_at) >= SESSION_AGE_MAX {
                self.remove_key(key);
            }
        }
    }

    /// Whether a release gave a session an id.
    pub(in crate::proxy) fn gives_ids(&self, release: ReleaseNumber) -> bool {
        lock(&self.giving_ids).contains(&release)
    }

    /// The number of sessions of a release.
    pub(in crate::proxy) fn count(&self, release: ReleaseNumber) -> u64 {
        self.count_where(release, |_| true)
    }

    /// Whether a release has a session.
    pub(in crate::proxy) fn has_sessions(&self, release: ReleaseNumber) -> bool {
        self.by_key.pin().values().any(|session| session.release() == release)
    }

    /// The mean age of the sessions of a release.
    pub(in crate::proxy) fn mean_age(&self, release: ReleaseNumber, now: Moment) -> Duration {
        let by_key = self.by_key.pin();
        let ages =
            by_key.values().filter(|it| it.release() == release).map(|it| now.since(it.opened_at));
        let (sum, count) =
            ages.fold((Duration::ZERO, 0), |(sum, count), age| (sum + age, count + 1));
        sum.checked_div(count).unwrap_or_default()
    }

    /// The protocol versions that the sessions of a release have negotiated.
    pub(in crate::proxy) fn protocols(&self, release: ReleaseNumber) -> BTreeSet<String> {
        let by_key = self.by_key.pin();
        let of_release = by_key.values().filter(|session| session.release() == release);
        let versions = of_release.filter_map(|session| session.protocol());
        // Some servers grant whatever the client names.
        versions.filter(|it| versions::PUBLISHED.contains(&it.as_str())).collect()
    }

    fn count_where(&self, release: ReleaseNumber, matches: impl Fn(&Session) -> bool) -> u64 {
        let by_key = self.by_key.pin();
        let found = by_key.values().filter(|it| it.release() == release && matches(it));
        u64::try_from(found.count()).unwrap_or(u64::MAX)
    }

    pub(super) fn notify_sink(&self, key: SessionKey) {
        if let Some(sink) = self.change_sink.get() {
            sink.session_changed(key);
        }
    }

    pub(super) fn remove_key(&self, key: &SessionKey) {
        let by_key = self.by_key.pin();
        let Some(session) = by_key.remove(key) else { return };
        session.mark_removed();
        self.occupancy.release(session);
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
        Sessions::new(service, [7; 16], SessionLimits { count: 3, bytes: 1 << 20 })
    }

    #[test]
    fn the_table_is_bounded_and_removes_idle_sessions() {
        let table = sessions("weather");
        let ids: Vec<_> =
            (0..4).map(|n| table.mint(ReleaseNumber(n), "b", |_| true).unwrap().1).collect();
        let minute = Duration::from_secs(60);
        for id in &ids[..3] {
            assert!(table.get_or_restore(id, Moment(0)).is_some());
        }
        assert!(table.get_or_restore(&ids[0], Moment(50_000)).is_some());
        // A fourth one takes the place of the oldest that was opened and not used.
        assert!(table.get_or_restore(&ids[3], Moment(0)).is_some());
        assert_eq!((table.count(ReleaseNumber(0)), table.count(ReleaseNumber(1))), (1, 0));
        table.sweep(Moment(60_000), minute);
        assert_eq!((table.count(ReleaseNumber(0)), table.count(ReleaseNumber(1))), (1, 0));
        // The proxy did not see the opening of this session.
        let not_moved = BTreeMap::from([(MigrationRefused::OpeningUnknown, 1)]);
        assert_eq!(
            table.evict_release(ReleaseNumber(0), None),
            EvictionReport { ended: 1, will_move: 0, not_moved }
        );
        assert_eq!(table.count(ReleaseNumber(0)), 0);
    }
}
