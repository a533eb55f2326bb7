//! Replicates the state of this proxy to its successor, while both serve the same service.
//!
//! Both daemons have the same secret, so that a session id is valid in both. The successor gets all new
//! clients; this proxy finishes its open requests. Until then it sends every session that these
//! requests open, move or end, every request that a client cancels, every `requestState` that a release
//! issues, and how many requests are open. The successor keeps busy sessions at their release, and waits
//! for these requests in a drain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::model::{Moment, ReleaseNumber};
use crate::mutex::lock;
use crate::proxy::routing::request_states::RequestStates;
use crate::proxy::routing::view::CurrentView;
use crate::proxy::session::{
    ChangeSink, InFlightGuard, SessionKey, SessionRecord, Sessions, decode_key, encode_key,
};

/// The most changes that wait to be sent. After an overflow, everything is sent again.
const CHANGES_MAX: usize = 4096;
/// How often open requests and busy sessions are compared with what was sent.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);

/// The most cancellations that the predecessor is told.
const CANCELLATIONS_MAX: usize = 256;

/// One change for the successor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicationMessage(ReplicationRecord);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReplicationRecord {
    /// The current state of a session, or its end.
    Session(SessionRecord),
    /// A release issued a `requestState`.
    #[serde(rename = "state")]
    RequestState(u64, ReleaseNumber),
    /// A session is busy.
    #[serde(rename = "busy")]
    SessionBusy(String),
    /// A session is idle again.
    #[serde(rename = "idle")]
    SessionIdle(String),
    /// The client of a session cancelled a request.
    Cancelled(String, String),
    /// The number of open requests on a release, besides subscriptions and GET streams.
    #[serde(rename = "open")]
    InFlight(ReleaseNumber, u64),
}

/// A change in this proxy that is not sent yet.
#[derive(Debug)]
enum LocalChange {
    Session(SessionKey),
    RequestState(u64, ReleaseNumber),
}

/// Collects the changes in this proxy.
#[derive(Debug)]
struct ChangeQueue {
    queue: mpsc::Sender<LocalChange>,
    overflowed: AtomicBool,
}

/// What a proxy knows of its predecessor, and how it replicates to its successor.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Replication {
    predecessor: Mutex<PredecessorState>,
    replicator: Mutex<Option<ReplicatorTask>>,
    change_queue: OnceLock<Arc<ChangeQueue>>,
}

/// What is open in the predecessor.
#[derive(Debug, Default)]
struct PredecessorState {
    in_flight: BTreeMap<ReleaseNumber, u64>,
    busy_sessions: BTreeMap<SessionKey, InFlightGuard>,
}

/// The running [`Replicator`].
#[derive(Debug)]
struct ReplicatorTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The state of a proxy that is replicated.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct ReplicatedState {
    pub service: Arc<str>,
    pub sessions: Arc<Sessions>,
    pub request_states: Arc<RequestStates>,
    pub view: Arc<CurrentView>,
}

/// Sends the changes to the successor.
struct Replicator {
    state: ReplicatedState,
    replication: Arc<Replication>,
    change_queue: Arc<ChangeQueue>,
    changes: mpsc::Receiver<LocalChange>,
    outbox: mpsc::Sender<(String, ReplicationMessage)>,
    sent_busy: BTreeSet<SessionKey>,
    sent_in_flight: BTreeMap<ReleaseNumber, u64>,
}

impl ChangeQueue {
    fn push(&self, change: LocalChange) {
        if self.queue.try_send(change).is_err() {
            self.request_full_sync();
        }
    }

    /// Makes the replicator send everything again.
    fn request_full_sync(&self) {
        self.overflowed.store(true, Ordering::Relaxed);
    }
}

impl ChangeSink for ChangeQueue {
    fn session_changed(&self, key: SessionKey) {
        self.push(LocalChange::Session(key));
    }

    fn request_state_issued(&self, state: u64, release: ReleaseNumber) {
        self.push(LocalChange::RequestState(state, release));
    }
}

impl Replication {
    /// The number of requests that are open on a release in the predecessor.
    pub(in crate::proxy) fn predecessor_in_flight(&self, release: ReleaseNumber) -> u64 {
        self.predecessor().in_flight.get(&release).copied().unwrap_or_default()
    }

    /// The requests that clients cancelled here, in sessions that are busy in the predecessor.
    pub(in crate::proxy) fn cancellations(&self, sessions: &Sessions) -> Vec<(String, String)> {
        let predecessor = self.predecessor();
        let busy = predecessor.busy_sessions.keys();
        let cancelled = busy.flat_map(|key| {
            sessions.cancelled_requests(key).into_iter().map(|id| (encode_key(key), id))
        });
        cancelled.take(CANCELLATIONS_MAX).collect()
    }

    /// Applies the cancellations of the successor.
    pub(in crate::proxy) fn apply_cancellations(sessions: &Sessions, all: &[(String, String)]) {
        for (session, id) in all {
            if let Some(key) = decode_key(session) {
                sessions.apply_cancellation(&key, id);
            }
        }
    }

    /// Starts the replication to a successor. When this returns, the file of sessions is closed, and
    /// `outbox` has the request states and what is open. Later changes follow.
    pub(in crate::proxy) async fn start(
        self: &Arc<Self>,
        state: ReplicatedState,
        outbox: mpsc::Sender<(String, ReplicationMessage)>,
    ) {
        let (queue, changes) = mpsc::channel(CHANGES_MAX);
        let change_queue = Arc::new(ChangeQueue { queue, overflowed: AtomicBool::new(false) });
        // The sinks come first: a change may be both in the file and in the queue, but never lost.
        let sink: Arc<dyn ChangeSink> = change_queue.clone();
        state.sessions.set_change_sink(Arc::clone(&sink));
        state.request_states.set_change_sink(sink);
        let sessions = Arc::clone(&state.sessions);
        let store_closed = tokio::task::spawn_blocking(move || sessions.close_store()).await;
        let _ = self.change_queue.set(Arc::clone(&change_queue));
        if !store_closed.unwrap_or(false) {
            change_queue.request_full_sync();
        }
        let mut replicator = Replicator {
            state,
            replication: Arc::clone(self),
            change_queue,
            changes,
            outbox,
            sent_busy: BTreeSet::new(),
            sent_in_flight: BTreeMap::new(),
        };
        replicator.send_request_states().await;
        replicator.sync().await;
        let stop = CancellationToken::new();
        let task = tokio::spawn(replicator.run(stop.clone()));
        *lock(&self.replicator) = Some(ReplicatorTask { stop, task });
    }

    /// Sends everything again, for another successor.
    pub(in crate::proxy) fn resend_all(&self) {
        if let Some(queue) = self.change_queue.get() {
            queue.request_full_sync();
        }
    }

    /// Sends what is queued, and ends the replication.
    pub(in crate::proxy) async fn stop(&self) {
        let replicator = lock(&self.replicator).take();
        if let Some(ReplicatorTask { stop, task }) = replicator {
            stop.cancel();
            let _ = task.await;
        }
    }

    /// Applies a message of the predecessor.
    pub(in crate::proxy) fn apply(
        &self,
        message: ReplicationMessage,
        sessions: &Sessions,
        request_states: &RequestStates,
        now: Moment,
    ) {
        match message.0 {
            ReplicationRecord::Session(record) => sessions.apply(record, now),
            ReplicationRecord::RequestState(state, release) => {
                request_states.record(state, release);
            }
            ReplicationRecord::SessionBusy(session) => {
                if let Some(key) = decode_key(&session)
                    && let Some(guard) = sessions.pin(&key)
                {
                    self.predecessor().busy_sessions.insert(key, guard);
                }
            }
            ReplicationRecord::SessionIdle(session) => {
                let guard = decode_key(&session)
                    .and_then(|key| self.predecessor().busy_sessions.remove(&key));
                drop(guard);
            }
            ReplicationRecord::Cancelled(session, id) => {
                if let Some(key) = decode_key(&session) {
                    sessions.apply_cancellation(&key, &id);
                }
            }
            ReplicationRecord::InFlight(release, 0) => {
                _ = self.predecessor().in_flight.remove(&release);
            }
            ReplicationRecord::InFlight(release, count) => {
                _ = self.predecessor().in_flight.insert(release, count);
            }
        }
    }

    /// The predecessor has ended, and with it everything that was open there.
    pub(in crate::proxy) fn predecessor_gone(&self) {
        let predecessor = std::mem::take(&mut *self.predecessor());
        drop(predecessor);
    }

    fn predecessor(&self) -> MutexGuard<'_, PredecessorState> {
        lock(&self.predecessor)
    }
}

impl Replicator {
    /// Sends changes until `stop`, then the rest.
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SYNC_INTERVAL);
        loop {
            tokio::select! {
                Some(change) = self.changes.recv() => self.forward_change(change).await,
                _ = ticks.tick() => self.sync().await,
                () = stop.cancelled() => break,
            }
        }
        while let Ok(change) = self.changes.try_recv() {
            self.forward_change(change).await;
        }
        self.sync().await;
    }

    async fn forward_change(&self, change: LocalChange) {
        match change {
            LocalChange::Session(key) => self.send_session(key).await,
            LocalChange::RequestState(state, release) => {
                self.send(ReplicationRecord::RequestState(state, release)).await
            }
        }
    }

    async fn send_session(&self, key: SessionKey) {
        if let Some(record) = self.state.sessions.record(key) {
            self.send(ReplicationRecord::Session(record)).await;
        }
        for id in self.state.sessions.cancelled_requests(&key) {
            self.send(ReplicationRecord::Cancelled(encode_key(&key), id)).await;
        }
    }

    async fn send_request_states(&self) {
        for (state, release) in self.state.request_states.entries() {
            self.send(ReplicationRecord::RequestState(state, release)).await;
        }
    }

    /// Sends what has changed of the open requests and busy sessions; after an overflow, everything.
    async fn sync(&mut self) {
        if self.change_queue.overflowed.swap(false, Ordering::Relaxed) {
            for key in self.state.sessions.keys() {
                self.send_session(key).await;
            }
            self.send_request_states().await;
            (self.sent_busy, self.sent_in_flight) = (BTreeSet::new(), BTreeMap::new());
        }
        let busy_now = self.state.sessions.busy_keys();
        for key in busy_now.difference(&self.sent_busy) {
            self.send(ReplicationRecord::SessionBusy(encode_key(key))).await;
        }
        for key in self.sent_busy.difference(&busy_now) {
            self.send(ReplicationRecord::SessionIdle(encode_key(key))).await;
        }
        self.sent_busy = busy_now;
        let in_flight = self.in_flight();
        for (release, count) in &in_flight {
            if self.sent_in_flight.get(release) != Some(count) {
                self.send(ReplicationRecord::InFlight(*release, *count)).await;
            }
        }
        for release in self.sent_in_flight.keys().filter(|release| !in_flight.contains_key(release))
        {
            self.send(ReplicationRecord::InFlight(*release, 0)).await;
        }
        self.sent_in_flight = in_flight;
    }

    /// The open requests on each release, here and in the predecessor.
    fn in_flight(&self) -> BTreeMap<ReleaseNumber, u64> {
        let view = self.state.view.load();
        let with_predecessor = |number: ReleaseNumber, here: u64| {
            (number, here.saturating_add(self.replication.predecessor_in_flight(number)))
        };
        let releases = view.routes.backends().iter();
        let all = releases
            .map(|it| with_predecessor(it.number, it.in_flight_requests.load(Ordering::Relaxed)));
        all.filter(|(_, count)| 0 < *count).collect()
    }

    async fn send(&self, record: ReplicationRecord) {
        // A closed channel means that the successor is gone.
        let service = self.state.service.to_string();
        let _ = self.outbox.send((service, ReplicationMessage(record))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/each.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    fn changes() -> Vec<(&'static str, ReplicationRecord)> {
        let key: SessionKey = *b"sixteen bytes...";
        let ended = serde_json::json!({"k": encode_key(&key)});
        one_of_each!(ReplicationRecord;
            ReplicationRecord::Session(_) => "session" ReplicationRecord::Session(serde_json::from_value(ended).unwrap());
            ReplicationRecord::RequestState(..) => "state" ReplicationRecord::RequestState(u64::MAX, ReleaseNumber(7));
            ReplicationRecord::SessionBusy(_) => "busy" ReplicationRecord::SessionBusy(encode_key(&key));
            ReplicationRecord::SessionIdle(_) => "idle" ReplicationRecord::SessionIdle(encode_key(&key));
            ReplicationRecord::Cancelled(..) => "cancelled" ReplicationRecord::Cancelled(encode_key(&key), "7".to_owned());
            ReplicationRecord::InFlight(..) => "open" ReplicationRecord::InFlight(ReleaseNumber(7), 3);
        )
    }

    #[test]
    fn every_message_keeps_its_wire_form() {
        hold("handover-changes.txt", &lines(&changes()));
    }

    #[test]
    fn messages_of_0_1_0_are_read() {
        still_read(
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/wire/0.1.0/handover-changes.txt"
            )),
            &changes(),
        );
    }
}
