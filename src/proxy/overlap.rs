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

use crate::model::Number;

use super::front::Front;
use super::session::{Line, Mac, Turn, name, named};
use super::{LATE_MAX, Proxy};

/// Changes that are not told yet; when there are more, everything is told anew.
const NOTES_MAX: usize = 4096;
/// How often it is looked for what is open.
const LOOK: Duration = Duration::from_millis(50);

/// Something that the proxy that took over has to know. What it does not understand, it passes over.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Change(What);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// A session as it is now, or its end.
    Session(Line),
    /// A release gave a state out.
    State(u64, Number),
    /// Something of a session is under way.
    Busy(String),
    /// No more.
    Idle(String),
    /// So many requests are open on a release, besides streams that only listen.
    Open(Number, u64),
}

/// Something changed.
#[derive(Debug)]
pub(super) enum Note {
    /// A session.
    Session(Mac),
    /// A release gave a state out.
    State(u64, Number),
}

/// Where changes are noted. Nobody ever waits for it.
#[derive(Debug)]
pub(super) struct Tell {
    notes: mpsc::Sender<Note>,
    missed: AtomicBool,
}

/// What a proxy knows of the one before it, and how it tells the one after it.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    before: Mutex<Before>,
    after: Mutex<Option<After>>,
    tell: OnceLock<Arc<Tell>>,
}

/// What is open in the proxy before this one.
#[derive(Debug, Default)]
struct Before {
    open: BTreeMap<Number, u64>,
    busy: BTreeMap<Mac, Turn>,
}

/// The task that tells the proxy after this one.
#[derive(Debug)]
struct After {
    over: CancellationToken,
    courier: JoinHandle<()>,
}

/// Brings what was noted to the proxy that took over.
struct Courier {
    front: Arc<Front>,
    overlap: Arc<Overlap>,
    tell: Arc<Tell>,
    notes: mpsc::Receiver<Note>,
    to: mpsc::Sender<(String, Change)>,
    busy: BTreeSet<Mac>,
    open: BTreeMap<Number, u64>,
}

impl Tell {
    /// Notes a change.
    pub(super) fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

impl Overlap {
    /// Requests that are open on a release in the proxy before this one.
    pub(super) fn open(&self, release: Number) -> u64 {
        self.before().open.get(&release).copied().unwrap_or_default()
    }

    fn before(&self) -> MutexGuard<'_, Before> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// The listener once more, for whoever takes over. `None` when it is closed.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn listener(&self) -> io::Result<Option<OwnedFd>> {
        let listener = self.listener.upgrade();
        listener.map(|listener| listener.as_fd().try_clone_to_owned()).transpose()
    }

    /// Lets nobody in any more: they wait in the backlog for whoever takes over. What is open goes
    /// on. When this returns, the sessions are on disk and the file is let go of; what changes from
    /// then on is sent to `to`, as is what is open.
    pub async fn hand_over(&self, to: mpsc::Sender<(String, Change)>) {
        self.door.shut.cancel();
        self.nobody_accepts().await;
        let (notes, told) = mpsc::channel(NOTES_MAX);
        let tell = Arc::new(Tell { notes, missed: AtomicBool::new(false) });
        // Noted twice at the turn is better than not at all.
        self.front.sessions.tell(Arc::clone(&tell));
        self.front.states.tell(Arc::clone(&tell));
        let front = Arc::clone(&self.front);
        let closed = tokio::task::spawn_blocking(move || front.sessions.close()).await;
        let mut courier = Courier {
            front: Arc::clone(&self.front),
            overlap: Arc::clone(&self.overlap),
            tell: Arc::clone(&tell),
            notes: told,
            to,
            busy: BTreeSet::new(),
            open: BTreeMap::new(),
        };
        let _ = self.overlap.tell.set(Arc::clone(&tell));
        if !closed.unwrap_or(false) {
            tell.missed.store(true, Ordering::Relaxed);
        }
        courier.tell_states().await;
        courier.look().await;
        let over = CancellationToken::new();
        let courier = tokio::spawn(courier.run(over.clone()));
        let after = After { over, courier };
        *self.overlap.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
    }

    /// Tells everything once more, for another one that takes over.
    pub fn tell_again(&self) {
        if let Some(tell) = self.overlap.tell.get() {
            tell.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Lets those go who are in, after [`Self::hand_over`]: every answer is the last on its
    /// connection, streams that only listen end, and what is open may take `patience` to finish, or
    /// until `soon`. What is open then is answered with an error.
    pub async fn see_off(&self, patience: Duration, soon: &CancellationToken) {
        let gone = async {
            self.ask_to_go(true).await;
            self.door.old_gone().await;
        };
        let gone = tokio::time::timeout(patience, gone);
        let gone = tokio::select! {
            gone = gone => gone.is_ok(),
            () = soon.cancelled() => false,
        };
        if !gone && self.is_busy() {
            tracing::warn!("some requests took too long to finish, and are answered with an error");
        }
        self.stop().await;
        let _ = tokio::time::timeout(LATE_MAX, self.door.all_gone()).await;
    }

    /// Tells what is left to be told, after [`Self::hand_over`], and no more after that.
    pub async fn fall_silent(&self) {
        let after = self.overlap.after.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(After { over, courier }) = after {
            over.cancel();
            let _ = courier.await;
        }
    }

    /// Takes up what the proxy before this one tells.
    pub fn hear(&self, change: Change) {
        let sessions = &self.front.sessions;
        match change.0 {
            What::Session(line) => sessions.hear(line, self.front.clock.now()),
            What::State(state, release) => self.front.states.note(state, release),
            What::Busy(session) => {
                if let Some(key) = named(&session)
                    && let Some(turn) = sessions.occupy(&key)
                {
                    self.overlap.before().busy.insert(key, turn);
                }
            }
            What::Idle(session) => {
                let turn = named(&session).and_then(|key| self.overlap.before().busy.remove(&key));
                drop(turn);
            }
            What::Open(release, 0) => _ = self.overlap.before().open.remove(&release),
            What::Open(release, count) => _ = self.overlap.before().open.insert(release, count),
        }
    }

    /// The proxy before this one is gone, and with it what was open there.
    pub fn is_alone(&self) {
        let before = std::mem::take(&mut *self.overlap.before());
        drop(before);
    }
}

impl Courier {
    /// Until all is over.
    async fn run(mut self, over: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                Some(note) = self.notes.recv() => self.bring(note).await,
                _ = looks.tick() => self.look().await,
                () = over.cancelled() => break,
            }
        }
        while let Ok(note) = self.notes.try_recv() {
            self.bring(note).await;
        }
        self.look().await;
    }

    async fn bring(&self, note: Note) {
        match note {
            Note::Session(key) => self.tell_session(key).await,
            Note::State(state, release) => self.send(What::State(state, release)).await,
        }
    }

    async fn tell_session(&self, key: Mac) {
        if let Some(line) = self.front.sessions.line(key) {
            self.send(What::Session(line)).await;
        }
    }

    async fn tell_states(&self) {
        for (state, release) in self.front.states.all() {
            self.send(What::State(state, release)).await;
        }
    }

    /// Tells what is open, as far as that changed, and all that was missed.
    async fn look(&mut self) {
        if self.tell.missed.swap(false, Ordering::Relaxed) {
            for key in self.front.sessions.keys() {
                self.tell_session(key).await;
            }
            self.tell_states().await;
            (self.busy, self.open) = (BTreeSet::new(), BTreeMap::new());
        }
        let busy = self.front.sessions.busy();
        for key in busy.difference(&self.busy) {
            self.send(What::Busy(name(key))).await;
        }
        for key in self.busy.difference(&busy) {
            self.send(What::Idle(name(key))).await;
        }
        self.busy = busy;
        let open = self.count();
        for (release, count) in &open {
            if self.open.get(release) != Some(count) {
                self.send(What::Open(*release, *count)).await;
            }
        }
        for release in self.open.keys().filter(|release| !open.contains_key(release)) {
            self.send(What::Open(*release, 0)).await;
        }
        self.open = open;
    }

    /// What is open on each release, here and in the proxy before this one.
    fn count(&self) -> BTreeMap<Number, u64> {
        let routes = self.front.routes.load();
        let open =
            |number: Number, here: u64| (number, here.saturating_add(self.overlap.open(number)));
        let all = routes.all().iter();
        let all = all.map(|it| open(it.number, it.in_flight.load(Ordering::Relaxed)));
        all.filter(|(_, count)| 0 < *count).collect()
    }

    async fn send(&self, what: What) {
        // Nobody takes over any more: nobody needs to know.
        let service = self.front.service.load().name.clone();
        let _ = self.to.send((service, Change(what))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/each.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    fn changes() -> Vec<(&'static str, What)> {
        let key: Mac = *b"sixteen bytes...";
        let ended = serde_json::json!({"k": name(&key)});
        one_of_each!(What;
            What::Session(_) => "session" What::Session(serde_json::from_value(ended).unwrap());
            What::State(..) => "state" What::State(u64::MAX, Number(7));
            What::Busy(_) => "busy" What::Busy(name(&key));
            What::Idle(_) => "idle" What::Idle(name(&key));
            What::Open(..) => "open" What::Open(Number(7), 3);
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
