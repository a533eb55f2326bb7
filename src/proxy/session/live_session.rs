//! One live session: its state machine, snapshot, id at the backend, and what its client awaits.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mcp::capabilities::Capabilities;
use crate::mcp::message::Message;
use crate::mcp::methods;
use crate::model::{MigrationRefused, Moment, ReleaseNumber};
use crate::mutex::lock;
use crate::proxy::session::credentials::Owner;
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::list_notice::ListNotice;
use crate::proxy::session::record::PersistedSession;
use crate::proxy::session::resume_at::StreamCommand;
use crate::proxy::session::snapshot::OpeningSnapshot;
use crate::proxy::session::state_machine::{
    Action, ClientMessageKind, Environment, SessionMachine, SessionPhase,
};
use crate::proxy::session::tracked_requests::TrackedRequests;

mod replicated;
mod requests;
pub(super) mod streams;

/// The sessions of one service.
pub(super) type SessionMap = papaya::HashMap<SessionKey, Arc<Session>>;

/// What a session takes besides what its client sent, in bytes (measured).
const FIXED_SIZE: usize = 768;

/// The delay between a refused migration and the next attempt.
const MOVE_BACKOFF: Duration = Duration::from_secs(1);

/// One live session.
#[derive(Debug)]
pub(in crate::proxy) struct Session {
    pub(super) key: SessionKey,
    pub(super) opened_at: Moment,
    pub(super) last_seen: AtomicU64,
    /// The release of the state machine; lets the table count without a lock.
    release: AtomicU32,
    protocol: OnceLock<Box<str>>,
    /// Whether the release has answered in this session since the daemon started.
    known_to_backend: AtomicBool,
    /// Whether it has left the table.
    removed: AtomicBool,
    /// Open streams of the client.
    open_streams: AtomicU32,
    /// Whether a request came after the one that opened it.
    pub(super) used: AtomicBool,
    /// Whether one came since the daemon started.
    pub(super) used_since_start: AtomicBool,
    /// Its size when it was last accounted, in bytes.
    pub(super) accounted: AtomicUsize,
    tracked_requests: Mutex<TrackedRequests>,
    inner: Mutex<SessionInner>,
    move_finished: Notify,
}

#[derive(Debug)]
struct SessionInner {
    machine: SessionMachine,
    backend_id: Box<str>,
    snapshot: Option<Box<OpeningSnapshot>>,
    listen_stream: Option<mpsc::Sender<StreamCommand>>,
    changed_lists: Capabilities,
    lists: ListNotice,
    owner: Owner,
    move_refused_at: Option<Instant>,
}

/// A request of the client that is in flight at the release of the session, until this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct InFlightGuard {
    session: Arc<Session>,
    generation: u32,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.session.with_machine(|machine| machine.request_ended(self.generation));
    }
}

/// Where to send one admitted message of the client.
#[derive(Debug)]
pub(in crate::proxy) struct Admission {
    /// The release of the session.
    pub release: ReleaseNumber,
    /// The generation of the session: how often it has moved.
    pub generation: u32,
    /// Its id at the release; empty if the release uses no ids.
    pub backend_id: Box<str>,
    /// Held until the exchange ends.
    pub guard: Option<InFlightGuard>,
}

impl Session {
    pub(super) fn new(key: SessionKey, now: Moment, persisted: PersistedSession) -> Self {
        let PersistedSession { release, generation, backend_id, snapshot, opened_at, owner } =
            persisted;
        let inner = SessionInner {
            machine: SessionMachine::new(release, generation),
            backend_id,
            snapshot: snapshot.map(Box::new),
            listen_stream: None,
            changed_lists: Capabilities::default(),
            lists: ListNotice::default(),
            owner,
            move_refused_at: None,
        };
        Self {
            key,
            opened_at,
            last_seen: AtomicU64::new(now.0),
            release: AtomicU32::new(release.0),
            protocol: OnceLock::new(),
            known_to_backend: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            open_streams: AtomicU32::new(0),
            used: AtomicBool::new(false),
            used_since_start: AtomicBool::new(false),
            accounted: AtomicUsize::new(0),
            tracked_requests: Mutex::default(),
            inner: Mutex::new(inner),
            move_finished: Notify::new(),
        }
    }

    /// Its release.
    pub(in crate::proxy) fn release(&self) -> ReleaseNumber {
        ReleaseNumber(self.release.load(Ordering::Relaxed))
    }

    /// How often it has moved.
    pub(in crate::proxy) fn generation(&self) -> u32 {
        self.inner().machine.generation()
    }

    /// Its id at its release; empty if the release uses no ids.
    pub(in crate::proxy) fn backend_id(&self) -> Box<str> {
        self.inner().backend_id.clone()
    }

    /// Its release, if that gave it an id.
    pub(super) fn id_given_by(&self) -> Option<ReleaseNumber> {
        let state = self.inner();
        (!state.backend_id.is_empty()).then(|| state.machine.release())
    }

    /// About how much memory it takes, and its line in the file, in bytes.
    pub(super) fn size(&self) -> usize {
        let state = self.inner();
        let snapshot = state.snapshot.as_ref().map(|snapshot| snapshot.size());
        FIXED_SIZE + state.backend_id.len() + snapshot.unwrap_or_default()
    }

    /// Whether it has open requests or tasks, or moves.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.inner();
        !state.machine.is_idle() || matches!(state.machine.phase(), SessionPhase::Moving(_))
    }

    /// Whether a stream or request is open, or the last request came less than `within` ago. Of a session
    /// that was only opened, or only restored from the file, that is not known.
    pub(super) fn is_active(&self, now: Moment, within: Duration) -> bool {
        let idle_for = now.since(Moment(self.last_seen.load(Ordering::Relaxed)));
        self.is_in_use() || (self.used_since_start.load(Ordering::Relaxed) && idle_for < within)
    }

    /// Prevents a move while it is busy in the predecessor.
    pub(super) fn pin(self: &Arc<Self>) -> InFlightGuard {
        let generation = self.with_machine(SessionMachine::request_started);
        InFlightGuard { session: Arc::clone(self), generation }
    }

    /// Decides what to do with a message of the client. An admitted request counts as in flight from
    /// now on.
    pub(in crate::proxy) fn admit(
        self: &Arc<Self>,
        kind: ClientMessageKind,
        environment: Environment,
    ) -> Result<Admission, Action> {
        let mut state = self.inner();
        let in_backoff = state.move_refused_at.is_some_and(|at| at.elapsed() < MOVE_BACKOFF);
        let migration_forbidden = state.migration_forbidden(environment.migration_forbidden);
        let action = state.machine.on_client_message(
            kind,
            Environment { in_backoff, migration_forbidden, ..environment },
        );
        let admission = (action == Action::Forward).then(|| state.admit(self, kind));
        drop(state);
        if action != Action::Wait {
            self.move_finished.notify_one();
        }
        admission.ok_or(action)
    }

    /// Admits a message at the current release, although the session should have moved.
    pub(in crate::proxy) fn admit_here(self: &Arc<Self>, kind: ClientMessageKind) -> Admission {
        self.inner().admit(self, kind)
    }

    /// Waits until a move may have finished.
    pub(in crate::proxy) async fn wait_settled(&self) {
        self.move_finished.notified().await;
    }

    /// What is needed to open it again.
    pub(in crate::proxy) fn snapshot(&self) -> Option<OpeningSnapshot> {
        self.inner().snapshot.as_deref().cloned()
    }

    /// Records how the client opened it.
    pub(in crate::proxy) fn record_opening(&self, request: &[u8], result: &Value) {
        self.inner().snapshot = OpeningSnapshot::new(request, result).map(Box::new);
    }

    /// Updates the snapshot from a message of the client; returns whether it changed.
    pub(in crate::proxy) fn observe(&self, message: &Message, level: Option<&str>) -> bool {
        let mut state = self.inner();
        let method = message.method.as_deref().unwrap_or_default();
        if state.lists == ListNotice::Sent && methods::is_list(method) {
            state.lists = ListNotice::ReadSince;
        }
        let Some(snapshot) = state.snapshot.as_mut() else { return false };
        let level_changed = level.is_some_and(|level| snapshot.set_level(level));
        snapshot.observe(method, message.name.as_deref()) || level_changed
    }

    /// Whether its server offers tasks.
    pub(in crate::proxy) fn supports_tasks(&self) -> bool {
        self.inner().snapshot.as_ref().is_some_and(|it| it.offered.contains(Capabilities::TASKS))
    }

    /// It was opened at the target: `backend_id` is its id there.
    pub(in crate::proxy) fn complete_move(&self, backend_id: &str) {
        let mut state = self.inner();
        state.machine.complete_move();
        state.backend_id = backend_id.into();
        // The client reads a list again at its next request, which goes to the target.
        let knows = std::mem::take(&mut state.lists) == ListNotice::Sent;
        let lists = state.snapshot.as_ref().filter(|_| !knows).map(|it| it.list_capabilities());
        state.changed_lists = lists.unwrap_or_default();
        state.move_refused_at = None;
        self.release.store(state.machine.release().0, Ordering::Relaxed);
        self.known_to_backend.store(true, Ordering::Relaxed);
        self.move_finished.notify_one();
    }

    /// The target did not open it.
    pub(in crate::proxy) fn refuse_move(&self, reason: MigrationRefused, reachable: bool) {
        let mut state = self.inner();
        state.machine.refuse_move(reason, reachable);
        state.move_refused_at = Some(monotonic());
        self.move_finished.notify_one();
    }

    /// Its release is cut. Returns the reason if the session must end.
    pub(in crate::proxy) fn on_release_cut(
        &self,
        migration_forbidden: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        let mut state = self.inner();
        let forbidden = state.migration_forbidden(migration_forbidden);
        state.machine.on_release_cut(forbidden)
    }

    /// The reason that keeps it at its release, if there is one.
    pub(in crate::proxy) fn pin_reason(
        &self,
        migration_forbidden: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        let state = self.inner();
        state.machine.pin_reason(state.migration_forbidden(migration_forbidden))
    }

    /// The reason of its end, if it ended.
    pub(in crate::proxy) fn end_reason(&self) -> Option<MigrationRefused> {
        match self.inner().machine.phase() {
            SessionPhase::Ended(refusal) => Some(refusal),
            SessionPhase::Live | SessionPhase::Moving(_) | SessionPhase::Pinned(_) => None,
        }
    }

    /// Applies an event to the state machine.
    pub(in crate::proxy) fn with_machine<T>(
        &self,
        apply: impl FnOnce(&mut SessionMachine) -> T,
    ) -> T {
        apply(&mut self.inner().machine)
    }

    /// Records that the release knows it.
    pub(in crate::proxy) fn mark_known(&self) {
        self.known_to_backend.store(true, Ordering::Relaxed);
    }

    /// Whether the release has known it, so that "unknown session" is a fault of the release.
    pub(in crate::proxy) fn is_known(&self) -> bool {
        self.known_to_backend.load(Ordering::Relaxed)
    }

    /// Records the protocol version that was negotiated.
    pub(in crate::proxy) fn set_protocol(&self, protocol: &str) {
        if self.protocol.get().is_none() && protocol.len() <= 32 {
            self.protocol.get_or_init(|| protocol.into());
        }
    }

    /// The protocol version that was negotiated, if it is known.
    pub(in crate::proxy) fn protocol(&self) -> Option<String> {
        let from_snapshot = || self.inner().snapshot.as_ref().map(|it| it.protocol.to_string());
        self.protocol.get().map(ToString::to_string).or_else(from_snapshot)
    }

    fn tracked_requests(&self) -> MutexGuard<'_, TrackedRequests> {
        lock(&self.tracked_requests)
    }

    fn inner(&self) -> MutexGuard<'_, SessionInner> {
        lock(&self.inner)
    }
}

impl SessionInner {
    fn admit(&mut self, session: &Arc<Session>, kind: ClientMessageKind) -> Admission {
        let (release, generation) = (self.machine.release(), self.machine.generation());
        let guard = (kind != ClientMessageKind::Listen).then(|| {
            self.machine.request_started();
            InFlightGuard { session: Arc::clone(session), generation }
        });
        Admission { release, generation, backend_id: self.backend_id.clone(), guard }
    }

    fn migration_forbidden(
        &self,
        service_forbids: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        let refused = match &self.snapshot {
            None => Some(MigrationRefused::OpeningUnknown),
            Some(snapshot) => snapshot.incomplete.then_some(MigrationRefused::StateNotRestorable),
        };
        service_forbids.or(refused)
    }
}
