//! Two proxies of one service: one that took over, and one that ends what is open in it.
//!
//! Both know the same secret, so that an id is good for both. What the one before learns until its
//! end - sessions that are opened, moved or ended by requests that are still open in it, states that
//! releases give out, and how much is open - it tells the one that took over, which has all clients
//! that come from now on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::model::ReleaseNumber;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::session::{InFlightGuard, SessionKey, SessionRecord, decode_key, encode_key};
use crate::proxy::{LATE_CONNECTION_TIMEOUT, Proxy};

/// Changes that are not told yet; when there are more, everything is told anew.
const CHANGES_MAX: usize = 4096;
/// How often it is looked for what is open.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);

/// Something that the proxy that took over has to know. What it does not understand, it passes over.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicationMessage(ReplicationRecord);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReplicationRecord {
    /// A session as it is now, or its end.
    Session(SessionRecord),
    /// A release gave a state out.
    #[serde(rename = "state")]
    RequestState(u64, ReleaseNumber),
    /// Something of a session is under way.
    #[serde(rename = "busy")]
    SessionBusy(String),
    /// No more.
    #[serde(rename = "idle")]
    SessionIdle(String),
    /// So many requests are open on a release, besides streams that only listen.
    #[serde(rename = "open")]
    InFlight(ReleaseNumber, u64),
}

/// Something changed.
#[derive(Debug)]
pub(in crate::proxy) enum LocalChange {
    /// A session.
    Session(SessionKey),
    /// A release gave a state out.
    RequestState(u64, ReleaseNumber),
}

/// Where changes are noted. Nobody ever waits for it.
#[derive(Debug)]
pub(in crate::proxy) struct ChangeQueue {
    queue: mpsc::Sender<LocalChange>,
    overflowed: AtomicBool,
}

/// What a proxy knows of the one before it, and how it tells the one after it.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Replication {
    predecessor: Mutex<PredecessorState>,
    replicator: Mutex<Option<ReplicatorTask>>,
    change_queue: OnceLock<Arc<ChangeQueue>>,
}

/// What is open in the proxy before this one.
#[derive(Debug, Default)]
struct PredecessorState {
    in_flight: BTreeMap<ReleaseNumber, u64>,
    busy_sessions: BTreeMap<SessionKey, InFlightGuard>,
}

/// The task that tells the proxy after this one.
#[derive(Debug)]
struct ReplicatorTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Brings what was noted to the proxy that took over.
struct Replicator {
    state: Arc<ProxyState>,
    replication: Arc<Replication>,
    change_queue: Arc<ChangeQueue>,
    changes: mpsc::Receiver<LocalChange>,
    outbox: mpsc::Sender<(String, ReplicationMessage)>,
    sent_busy: BTreeSet<SessionKey>,
    sent_in_flight: BTreeMap<ReleaseNumber, u64>,
}

impl ChangeQueue {
    /// Notes a change.
    pub(in crate::proxy) fn push(&self, change: LocalChange) {
        if self.queue.try_send(change).is_err() {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }
}

impl Replication {
    /// Requests that are open on a release in the proxy before this one.
    pub(in crate::proxy) fn predecessor_in_flight(&self, release: ReleaseNumber) -> u64 {
        self.predecessor().in_flight.get(&release).copied().unwrap_or_default()
    }

    fn predecessor(&self) -> MutexGuard<'_, PredecessorState> {
        self.predecessor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// The listener once more, for whoever takes over. `None` when it is closed.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn duplicate_listener(&self) -> io::Result<Option<OwnedFd>> {
        let listener = self.listener.upgrade();
        listener.map(|listener| listener.as_fd().try_clone_to_owned()).transpose()
    }

    /// Lets nobody in any more: they wait in the backlog for whoever takes over. What is open goes
    /// on. When this returns, the sessions are on disk and the file is let go of; what changes from
    /// then on is sent to `outbox`, as is what is open.
    pub async fn hand_over(&self, outbox: mpsc::Sender<(String, ReplicationMessage)>) {
        self.lifecycle.stop_accepting.cancel();
        self.wait_accept_stopped().await;
        let (queue, changes) = mpsc::channel(CHANGES_MAX);
        let change_queue = Arc::new(ChangeQueue { queue, overflowed: AtomicBool::new(false) });
        // Noted twice at the turn is better than not at all.
        self.state.sessions.set_change_sink(Arc::clone(&change_queue));
        self.state.request_states.set_change_sink(Arc::clone(&change_queue));
        let state = Arc::clone(&self.state);
        let store_closed = tokio::task::spawn_blocking(move || state.sessions.close_store()).await;
        let mut replicator = Replicator {
            state: Arc::clone(&self.state),
            replication: Arc::clone(&self.replication),
            change_queue: Arc::clone(&change_queue),
            changes,
            outbox,
            sent_busy: BTreeSet::new(),
            sent_in_flight: BTreeMap::new(),
        };
        let _ = self.replication.change_queue.set(Arc::clone(&change_queue));
        if !store_closed.unwrap_or(false) {
            change_queue.overflowed.store(true, Ordering::Relaxed);
        }
        replicator.send_request_states().await;
        replicator.sync().await;
        let stop = CancellationToken::new();
        let task = tokio::spawn(replicator.run(stop.clone()));
        let replicator = ReplicatorTask { stop, task };
        *self.replication.replicator.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(replicator);
    }

    /// Tells everything once more, for another one that takes over.
    pub fn resend_all(&self) {
        if let Some(queue) = self.replication.change_queue.get() {
            queue.overflowed.store(true, Ordering::Relaxed);
        }
    }

    /// Lets those go who are in, after [`Self::hand_over`]: every answer is the last on its
    /// connection, streams that only listen end, and what is open may take `timeout` to finish, or
    /// until `cut_short`. What is open then is answered with an error.
    pub async fn drain_connections(&self, timeout: Duration, cut_short: &CancellationToken) {
        let gone = async {
            self.start_closing(true).await;
            self.lifecycle.wait_early_closed().await;
        };
        let gone = tokio::time::timeout(timeout, gone);
        let gone = tokio::select! {
            gone = gone => gone.is_ok(),
            () = cut_short.cancelled() => false,
        };
        if !gone && self.is_busy() {
            tracing::warn!("some requests took too long to finish, and are answered with an error");
        }
        self.shut_down().await;
        let _ =
            tokio::time::timeout(LATE_CONNECTION_TIMEOUT, self.lifecycle.wait_all_closed()).await;
    }

    /// Tells what is left to be told, after [`Self::hand_over`], and no more after that.
    pub async fn stop_replicating(&self) {
        let replicator =
            self.replication.replicator.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ReplicatorTask { stop: over, task: courier }) = replicator {
            over.cancel();
            let _ = courier.await;
        }
    }

    /// Takes up what the proxy before this one tells.
    pub fn apply(&self, change: ReplicationMessage) {
        let sessions = &self.state.sessions;
        match change.0 {
            ReplicationRecord::Session(line) => sessions.apply(line, self.state.clock.now()),
            ReplicationRecord::RequestState(state, release) => {
                self.state.request_states.record(state, release)
            }
            ReplicationRecord::SessionBusy(session) => {
                if let Some(key) = decode_key(&session)
                    && let Some(guard) = sessions.pin(&key)
                {
                    self.replication.predecessor().busy_sessions.insert(key, guard);
                }
            }
            ReplicationRecord::SessionIdle(session) => {
                let guard = decode_key(&session)
                    .and_then(|key| self.replication.predecessor().busy_sessions.remove(&key));
                drop(guard);
            }
            ReplicationRecord::InFlight(release, 0) => {
                _ = self.replication.predecessor().in_flight.remove(&release)
            }
            ReplicationRecord::InFlight(release, count) => {
                _ = self.replication.predecessor().in_flight.insert(release, count)
            }
        }
    }

    /// The proxy before this one is gone, and with it what was open there.
    pub fn predecessor_gone(&self) {
        let predecessor = std::mem::take(&mut *self.replication.predecessor());
        drop(predecessor);
    }
}

impl Replicator {
    /// Until all is over.
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SYNC_INTERVAL);
        loop {
            tokio::select! {
                Some(note) = self.changes.recv() => self.forward_change(note).await,
                _ = ticks.tick() => self.sync().await,
                () = stop.cancelled() => break,
            }
        }
        while let Ok(note) = self.changes.try_recv() {
            self.forward_change(note).await;
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
    }

    async fn send_request_states(&self) {
        for (state, release) in self.state.request_states.entries() {
            self.send(ReplicationRecord::RequestState(state, release)).await;
        }
    }

    /// Tells what is open, as far as that changed, and all that was missed.
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

    /// What is open on each release, here and in the proxy before this one.
    fn in_flight(&self) -> BTreeMap<ReleaseNumber, u64> {
        let routes = self.state.routes.load();
        let with_predecessor = |number: ReleaseNumber, here: u64| {
            (number, here.saturating_add(self.replication.predecessor_in_flight(number)))
        };
        let releases = routes.backends().iter();
        let all = releases
            .map(|it| with_predecessor(it.number, it.in_flight_requests.load(Ordering::Relaxed)));
        all.filter(|(_, count)| 0 < *count).collect()
    }

    async fn send(&self, record: ReplicationRecord) {
        // Nobody takes over any more: nobody needs to know.
        let service = self.state.service.load().name.clone();
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
            ReplicationRecord::InFlight(..) => "open" ReplicationRecord::InFlight(ReleaseNumber(7), 3);
        )
    }

    #[test]
    fn every_change_is_as_it_was() {
        hold("handover-changes.txt", &lines(&changes()));
    }

    #[test]
    fn old_changes_are_still_read() {
        still_read(
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/wire/0.1.0/handover-changes.txt"
            )),
            &changes(),
        );
    }
}
