//! One live session, as everything that carries for it sees it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::mcp::message::{Message, same_id};
use crate::model::{MigrationRefused, Moment, ReleaseNumber};
use crate::proxy::backend::Backend;
use crate::proxy::session::snapshot::{Capabilities, OpeningSnapshot};
use crate::proxy::session::state_machine::{
    Action, ClientMessageKind, Environment, SessionMachine, SessionPhase,
};
use crate::proxy::session::{PersistedSession, SessionKey};

/// Requests of a session that are remembered: cancelled ones, and parked ones.
const TRACKED_REQUESTS_MAX: usize = 64;
/// After a move was refused, the next one is tried so much later.
const MOVE_BACKOFF: Duration = Duration::from_secs(1);

/// One live session.
#[derive(Debug)]
pub(in crate::proxy) struct Session {
    pub(super) key: SessionKey,
    pub(super) opened_at: Moment,
    pub(super) last_seen: AtomicU64,
    /// Where it is, for those that count.
    release: AtomicU32,
    protocol: OnceLock<Box<str>>,
    /// Whether the release answered for it since the daemon started.
    known_to_backend: AtomicBool,
    /// Nobody will find it any more.
    removed: AtomicBool,
    cancelled: Mutex<VecDeque<(Box<str>, Instant)>>,
    detached: Mutex<Vec<(u32, Box<str>)>>,
    inner: Mutex<SessionInner>,
    move_finished: Notify,
}

#[derive(Debug)]
struct SessionInner {
    machine: SessionMachine,
    backend_id: Box<str>,
    snapshot: Option<Box<OpeningSnapshot>>,
    listen_stream: Option<mpsc::Sender<ResumeAt>>,
    changed_lists: Capabilities,
    move_refused_at: Option<Instant>,
}

/// Something of the client that is under way at the session's release. Dropping it ends it.
#[derive(Debug)]
pub(in crate::proxy) struct InFlightGuard {
    session: Arc<Session>,
    generation: u32,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.session.with_machine(|life| life.request_ended(self.generation));
    }
}

/// Where a session is, for one thing that is sent there.
#[derive(Debug)]
pub(in crate::proxy) struct Admission {
    /// Its release.
    pub release: ReleaseNumber,
    /// How often it had moved.
    pub generation: u32,
    /// Its id there; empty where that release has none.
    pub backend_id: Box<str>,
    /// Ends with what was sent.
    pub guard: Option<InFlightGuard>,
}

/// Where a stream that listens goes on, after a move.
#[derive(Debug)]
pub(in crate::proxy) struct ResumeAt {
    /// The release that took over.
    pub backend: Arc<Backend>,
    /// The request that opens the stream there.
    pub head: http::request::Parts,
    /// Of the session there.
    pub generation: u32,
}

impl Session {
    pub(super) fn new(key: SessionKey, now: Moment, persisted: PersistedSession) -> Self {
        let PersistedSession { release, generation, backend_id, snapshot: captured, opened_at } =
            persisted;
        let state = SessionInner {
            machine: SessionMachine::new(release, generation),
            backend_id,
            snapshot: captured.map(Box::new),
            listen_stream: None,
            changed_lists: Capabilities::default(),
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
            cancelled: Mutex::default(),
            detached: Mutex::default(),
            inner: Mutex::new(state),
            move_finished: Notify::new(),
        }
    }

    /// The release where it is.
    pub(in crate::proxy) fn release(&self) -> ReleaseNumber {
        ReleaseNumber(self.release.load(Ordering::Relaxed))
    }

    /// How often it moved.
    pub(in crate::proxy) fn generation(&self) -> u32 {
        self.inner().machine.generation()
    }

    /// Its id at its release; empty where that release has none.
    pub(in crate::proxy) fn backend_id(&self) -> Box<str> {
        self.inner().backend_id.clone()
    }

    /// What has to be kept of it, for a daemon that starts again. `None`: it is over.
    pub(super) fn to_persisted(&self) -> Option<PersistedSession> {
        let state = self.inner();
        let ended = matches!(state.machine.phase(), SessionPhase::Ended(_));
        let snapshot = state.snapshot.as_deref().filter(|_| !ended)?;
        Some(PersistedSession {
            release: state.machine.release(),
            generation: state.machine.generation(),
            backend_id: state.backend_id.clone(),
            snapshot: Some(snapshot.clone()),
            opened_at: self.opened_at,
        })
    }

    /// Takes up what the daemon before this one knows better.
    pub(super) fn merge_from_predecessor(&self, persisted: PersistedSession) {
        let mut state = self.inner();
        // One that moves from here knows where to by itself.
        let moving = matches!(state.machine.phase(), SessionPhase::Moving(_));
        if state.machine.generation() < persisted.generation && !moving {
            state.machine = SessionMachine::new(persisted.release, persisted.generation);
            state.backend_id = persisted.backend_id;
            self.release.store(persisted.release.0, Ordering::Relaxed);
        }
        let Some(predecessor) = persisted.snapshot else { return };
        match &mut state.snapshot {
            Some(snapshot) => snapshot.merge(predecessor),
            // It came here before the news of its opening: so its client has gone on.
            ours @ None => {
                *ours = Some(Box::new(OpeningSnapshot { initialized: true, ..predecessor }))
            }
        }
    }

    /// Whether something of it is under way.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.inner();
        !state.machine.is_idle() || matches!(state.machine.phase(), SessionPhase::Moving(_))
    }

    /// Something of it is under way elsewhere: it can not move meanwhile.
    pub(super) fn pin(self: &Arc<Self>) -> InFlightGuard {
        let generation = self.with_machine(SessionMachine::request_started);
        InFlightGuard { session: Arc::clone(self), generation }
    }

    /// What to do with something that arrives; if it is to be sent, where to. It is under way from
    /// this moment on.
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
            // Who waited goes on in the order in which they came.
            self.move_finished.notify_one();
        }
        admission.ok_or(action)
    }

    /// Where it is, for something that is sent there though it should have moved.
    pub(in crate::proxy) fn admit_here(self: &Arc<Self>, kind: ClientMessageKind) -> Admission {
        self.inner().admit(self, kind)
    }

    /// Waits until a move may be over.
    pub(in crate::proxy) async fn wait_settled(&self) {
        self.move_finished.notified().await;
    }

    /// What opens it anew.
    pub(in crate::proxy) fn snapshot(&self) -> Option<OpeningSnapshot> {
        self.inner().snapshot.as_deref().cloned()
    }

    /// Notes how it was opened.
    pub(in crate::proxy) fn record_opening(&self, request: &[u8], result: &Value) {
        self.inner().snapshot = OpeningSnapshot::new(request, result).map(Box::new);
    }

    /// Notes what a message of the client says about the session; whether it is news.
    pub(in crate::proxy) fn observe(&self, message: &Message, level: Option<&str>) -> bool {
        let mut state = self.inner();
        let Some(snapshot) = state.snapshot.as_mut() else { return false };
        let method = message.method.as_deref().unwrap_or_default();
        let level_changed = level.is_some_and(|level| snapshot.set_level(level));
        snapshot.observe(method, message.name.as_deref()) || level_changed
    }

    /// Whether its server offered tasks.
    pub(in crate::proxy) fn supports_tasks(&self) -> bool {
        self.inner().snapshot.as_ref().is_some_and(|it| it.offered.contains(Capabilities::TASKS))
    }

    /// It was opened at another release: `backend_id` is its id there.
    pub(in crate::proxy) fn complete_move(&self, backend_id: &str) {
        let mut state = self.inner();
        state.machine.complete_move();
        state.backend_id = backend_id.into();
        state.changed_lists =
            state.snapshot.as_ref().map(|it| it.list_capabilities()).unwrap_or_default();
        state.move_refused_at = None;
        self.release.store(state.machine.release().0, Ordering::Relaxed);
        self.known_to_backend.store(true, Ordering::Relaxed);
        self.move_finished.notify_one();
    }

    /// It was not.
    pub(in crate::proxy) fn refuse_move(&self, reason: MigrationRefused, reachable: bool) {
        let mut state = self.inner();
        state.machine.refuse_move(reason, reachable);
        state.move_refused_at = Some(Instant::now());
        self.move_finished.notify_one();
    }

    /// Its release is cut; why it has to end, if so.
    pub(in crate::proxy) fn on_release_cut(
        &self,
        migration_forbidden: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        let mut state = self.inner();
        let forbidden = state.migration_forbidden(migration_forbidden);
        state.machine.on_release_cut(forbidden)
    }

    /// What keeps it where it is.
    pub(in crate::proxy) fn pin_reason(
        &self,
        migration_forbidden: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        let state = self.inner();
        state.machine.pin_reason(state.migration_forbidden(migration_forbidden))
    }

    /// Why it ended, if so.
    pub(in crate::proxy) fn end_reason(&self) -> Option<MigrationRefused> {
        match self.inner().machine.phase() {
            SessionPhase::Ended(refusal) => Some(refusal),
            SessionPhase::Live | SessionPhase::Moving(_) | SessionPhase::Pinned(_) => None,
        }
    }

    /// Something happens to what is open.
    pub(in crate::proxy) fn with_machine<T>(
        &self,
        apply: impl FnOnce(&mut SessionMachine) -> T,
    ) -> T {
        apply(&mut self.inner().machine)
    }

    /// The stream on which the client listens; the last one counts.
    pub(in crate::proxy) fn set_listen_stream(&self, stream: mpsc::Sender<ResumeAt>) {
        self.inner().listen_stream = Some(stream);
    }

    /// Nobody will find it any more: the stream on which the client listens has to end.
    pub(super) fn mark_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
        self.inner().listen_stream = None;
    }

    /// Whether nobody will find it any more.
    pub(in crate::proxy) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// The stream on which the client listens, if it is still there.
    pub(in crate::proxy) fn listen_stream(&self) -> Option<mpsc::Sender<ResumeAt>> {
        self.inner().listen_stream.clone().filter(|stream| !stream.is_closed())
    }

    /// What the client has to hear, on whatever stream comes first.
    pub(in crate::proxy) fn take_list_changes(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().changed_lists).list_changed_notifications()
    }

    /// Lists that may look different at another release.
    pub(in crate::proxy) fn list_changes(&self) -> Vec<String> {
        let state = self.inner();
        state
            .snapshot
            .as_ref()
            .map(|it| it.list_capabilities().list_changed_notifications())
            .unwrap_or_default()
    }

    /// Notes that the client takes a request back. Ids are used once in a session.
    pub(in crate::proxy) fn record_cancellation(&self, id: &str) {
        let mut cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        if cancelled.len() == TRACKED_REQUESTS_MAX {
            cancelled.pop_front();
        }
        cancelled.push_back((id.into(), Instant::now()));
    }

    /// When the client took a request back, if it did.
    pub(in crate::proxy) fn cancelled_at(&self, id: &str) -> Option<Instant> {
        let cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        cancelled.iter().find(|(other, _)| same_id(other, id)).map(|(_, at)| *at)
    }

    /// Notes that a request waits for its answer on a stream that the client still has to open.
    pub(in crate::proxy) fn add_detached(&self, generation: u32, id: &str) {
        let mut detached = self.detached.lock().unwrap_or_else(PoisonError::into_inner);
        if detached.len() < TRACKED_REQUESTS_MAX {
            detached.push((generation, id.into()));
            self.with_machine(|life| {
                (life.generation() == generation).then(|| life.request_started())
            });
        }
    }

    /// Notes that a parked request was answered.
    pub(in crate::proxy) fn remove_detached(&self, id: &str) {
        let mut detached = self.detached.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = detached.iter().position(|(_, other)| same_id(other, id)) else { return };
        let (generation, _) = detached.remove(at);
        self.with_machine(|life| life.request_ended(generation));
    }

    /// The requests that were parked up to this generation, which somebody else answers now.
    pub(in crate::proxy) fn take_detached(&self, generation: u32) -> Vec<Box<str>> {
        let mut detached = self.detached.lock().unwrap_or_else(PoisonError::into_inner);
        let (answered_elsewhere, remaining) =
            std::mem::take(&mut *detached).into_iter().partition(|it| it.0 <= generation);
        *detached = remaining;
        let answered_elsewhere: Vec<(u32, Box<str>)> = answered_elsewhere;
        answered_elsewhere
            .iter()
            .for_each(|(generation, _)| self.with_machine(|life| life.request_ended(*generation)));
        answered_elsewhere.into_iter().map(|(_, id)| id).collect()
    }

    /// Notes that the release knows it.
    pub(in crate::proxy) fn mark_known(&self) {
        self.known_to_backend.store(true, Ordering::Relaxed);
    }

    /// Whether the release is known to have had it, so that "unknown session" is its own fault.
    pub(in crate::proxy) fn is_known(&self) -> bool {
        self.known_to_backend.load(Ordering::Relaxed)
    }

    /// Remembers the protocol version that was negotiated.
    pub(in crate::proxy) fn set_protocol(&self, protocol: &str) {
        if self.protocol.get().is_none() && protocol.len() <= 32 {
            self.protocol.get_or_init(|| protocol.into());
        }
    }

    /// The protocol version that was negotiated, as far as is known.
    pub(in crate::proxy) fn protocol(&self) -> Option<String> {
        let from_snapshot = || self.inner().snapshot.as_ref().map(|it| it.protocol.to_string());
        self.protocol.get().map(ToString::to_string).or_else(from_snapshot)
    }

    fn inner(&self) -> MutexGuard<'_, SessionInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
        let unknown = self.snapshot.is_none().then_some(MigrationRefused::OpeningUnknown);
        service_forbids.or(unknown)
    }
}
