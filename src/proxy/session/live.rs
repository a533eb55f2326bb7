//! One live session, as everything that carries for it sees it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::model::{Moment, Number, Refusal};

use super::capture::{Captured, Offer};
use super::life::{Ground, Life, Stage, Step, What};
use super::{Kept, Mac};
use crate::proxy::message::{Message, same_id};
use crate::proxy::upstream::Upstream;

/// Requests of a session that are remembered: cancelled ones, and parked ones.
const REMEMBERED_MAX: usize = 64;
/// After a move was refused, the next one is tried so much later.
const REST: Duration = Duration::from_secs(1);

/// One live session.
#[derive(Debug)]
pub(in crate::proxy) struct Session {
    pub(super) key: Mac,
    pub(super) born: Moment,
    pub(super) seen: AtomicU64,
    /// Where it is, for those that count.
    release: AtomicU32,
    protocol: OnceLock<Box<str>>,
    /// Whether the release answered for it since the daemon started.
    proven: AtomicBool,
    /// Nobody will find it any more.
    over: AtomicBool,
    cancelled: Mutex<VecDeque<(Box<str>, Instant)>>,
    parked: Mutex<Vec<(u32, Box<str>)>>,
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug)]
struct State {
    life: Life,
    backend_id: Box<str>,
    captured: Option<Box<Captured>>,
    stream: Option<mpsc::Sender<Onward>>,
    news: Offer,
    refused: Option<Instant>,
}

/// Something of the client that is under way at the session's release. Dropping it ends it.
#[derive(Debug)]
pub(in crate::proxy) struct Turn {
    session: Arc<Session>,
    generation: u32,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.session.live(|life| life.end(self.generation));
    }
}

/// Where a session is, for one thing that is sent there.
#[derive(Debug)]
pub(in crate::proxy) struct Place {
    /// Its release.
    pub release: Number,
    /// How often it had moved.
    pub generation: u32,
    /// Its id there; empty where that release has none.
    pub backend_id: Box<str>,
    /// Ends with what was sent.
    pub turn: Option<Turn>,
}

/// Where a stream that listens goes on, after a move.
#[derive(Debug)]
pub(in crate::proxy) struct Onward {
    /// The release that took over.
    pub upstream: Arc<Upstream>,
    /// The request that opens the stream there.
    pub head: http::request::Parts,
    /// Of the session there.
    pub generation: u32,
}

impl Session {
    pub(super) fn new(key: Mac, now: Moment, kept: Kept) -> Self {
        let Kept { release, generation, backend_id, captured, born } = kept;
        let state = State {
            life: Life::new(release, generation),
            backend_id,
            captured: captured.map(Box::new),
            stream: None,
            news: Offer::default(),
            refused: None,
        };
        Self {
            key,
            born,
            seen: AtomicU64::new(now.0),
            release: AtomicU32::new(release.0),
            protocol: OnceLock::new(),
            proven: AtomicBool::new(false),
            over: AtomicBool::new(false),
            cancelled: Mutex::default(),
            parked: Mutex::default(),
            state: Mutex::new(state),
            settled: Notify::new(),
        }
    }

    /// The release where it is.
    pub(in crate::proxy) fn release(&self) -> Number {
        Number(self.release.load(Ordering::Relaxed))
    }

    /// How often it moved.
    pub(in crate::proxy) fn generation(&self) -> u32 {
        self.state().life.generation()
    }

    /// Its id at its release; empty where that release has none.
    pub(in crate::proxy) fn backend_id(&self) -> Box<str> {
        self.state().backend_id.clone()
    }

    /// What has to be kept of it, for a daemon that starts again. `None`: it is over.
    pub(super) fn kept(&self) -> Option<Kept> {
        let state = self.state();
        let over = matches!(state.life.stage(), Stage::Ended(_));
        let captured = state.captured.as_deref().filter(|_| !over)?;
        Some(Kept {
            release: state.life.release(),
            generation: state.life.generation(),
            backend_id: state.backend_id.clone(),
            captured: Some(captured.clone()),
            born: self.born,
        })
    }

    /// Takes up what the daemon before this one knows better.
    pub(super) fn inherit(&self, kept: Kept) {
        let mut state = self.state();
        // One that moves from here knows where to by itself.
        let moving = matches!(state.life.stage(), Stage::Moving(_));
        if state.life.generation() < kept.generation && !moving {
            state.life = Life::new(kept.release, kept.generation);
            state.backend_id = kept.backend_id;
            self.release.store(kept.release.0, Ordering::Relaxed);
        }
        let Some(theirs) = kept.captured else { return };
        match &mut state.captured {
            Some(ours) => ours.join(theirs),
            // It came here before the news of its opening: so its client has gone on.
            ours @ None => *ours = Some(Box::new(Captured { initialized: true, ..theirs })),
        }
    }

    /// Whether something of it is under way.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state();
        !state.life.is_idle() || matches!(state.life.stage(), Stage::Moving(_))
    }

    /// Something of it is under way elsewhere: it can not move meanwhile.
    pub(super) fn occupy(self: &Arc<Self>) -> Turn {
        let generation = self.live(Life::begin);
        Turn { session: Arc::clone(self), generation }
    }

    /// What to do with something that arrives; if it is to be sent, where to. It is under way from
    /// this moment on.
    pub(in crate::proxy) fn place(
        self: &Arc<Self>,
        what: What,
        ground: Ground,
    ) -> Result<Place, Step> {
        let mut state = self.state();
        let resting = state.refused.is_some_and(|at| at.elapsed() < REST);
        let bound = state.bound(ground.bound);
        let step = state.life.arrive(what, Ground { resting, bound, ..ground });
        let place = (step == Step::Send).then(|| state.place(self, what));
        drop(state);
        if step != Step::Wait {
            // Who waited goes on in the order in which they came.
            self.settled.notify_one();
        }
        place.ok_or(step)
    }

    /// Where it is, for something that is sent there though it should have moved.
    pub(in crate::proxy) fn stay(self: &Arc<Self>, what: What) -> Place {
        self.state().place(self, what)
    }

    /// Waits until a move may be over.
    pub(in crate::proxy) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// What opens it anew.
    pub(in crate::proxy) fn captured(&self) -> Option<Captured> {
        self.state().captured.as_deref().cloned()
    }

    /// Notes how it was opened.
    pub(in crate::proxy) fn capture(&self, request: &[u8], result: &Value) {
        self.state().captured = Captured::new(request, result).map(Box::new);
    }

    /// Notes what a message of the client says about the session; whether it is news.
    pub(in crate::proxy) fn learn(&self, message: &Message, level: Option<&str>) -> bool {
        let mut state = self.state();
        let Some(captured) = state.captured.as_mut() else { return false };
        let method = message.method.as_deref().unwrap_or_default();
        let set = level.is_some_and(|level| captured.set_level(level));
        captured.learn(method, message.name.as_deref()) || set
    }

    /// Whether its server offered tasks.
    pub(in crate::proxy) fn has_tasks(&self) -> bool {
        self.state().captured.as_ref().is_some_and(|it| it.offered.holds(Offer::TASKS))
    }

    /// It was opened at another release: `backend_id` is its id there.
    pub(in crate::proxy) fn moved(&self, backend_id: &str) {
        let mut state = self.state();
        state.life.moved();
        state.backend_id = backend_id.into();
        state.news = state.captured.as_ref().map(|it| it.lists()).unwrap_or_default();
        state.refused = None;
        self.release.store(state.life.release().0, Ordering::Relaxed);
        self.proven.store(true, Ordering::Relaxed);
        self.settled.notify_one();
    }

    /// It was not.
    pub(in crate::proxy) fn refused(&self, refusal: Refusal, reachable: bool) {
        let mut state = self.state();
        state.life.refused(refusal, reachable);
        state.refused = Some(Instant::now());
        self.settled.notify_one();
    }

    /// Its release is cut; why it has to end, if so.
    pub(in crate::proxy) fn cut(&self, bound: Option<Refusal>) -> Option<Refusal> {
        let mut state = self.state();
        let bound = state.bound(bound);
        state.life.cut(bound)
    }

    /// What keeps it where it is.
    pub(in crate::proxy) fn holds(&self, bound: Option<Refusal>) -> Option<Refusal> {
        let state = self.state();
        state.life.holds(state.bound(bound))
    }

    /// Why it ended, if so.
    pub(in crate::proxy) fn ended(&self) -> Option<Refusal> {
        match self.state().life.stage() {
            Stage::Ended(refusal) => Some(refusal),
            Stage::Live | Stage::Moving(_) | Stage::Pinned(_) => None,
        }
    }

    /// Something happens to what is open.
    pub(in crate::proxy) fn live<T>(&self, happens: impl FnOnce(&mut Life) -> T) -> T {
        happens(&mut self.state().life)
    }

    /// The stream on which the client listens; the last one counts.
    pub(in crate::proxy) fn listen(&self, stream: mpsc::Sender<Onward>) {
        self.state().stream = Some(stream);
    }

    /// Nobody will find it any more: the stream on which the client listens has to end.
    pub(super) fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.state().stream = None;
    }

    /// Whether nobody will find it any more.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The stream on which the client listens, if it is still there.
    pub(in crate::proxy) fn stream(&self) -> Option<mpsc::Sender<Onward>> {
        self.state().stream.clone().filter(|stream| !stream.is_closed())
    }

    /// What the client has to hear, on whatever stream comes first.
    pub(in crate::proxy) fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.state().news).changed()
    }

    /// Lists that may look different at another release.
    pub(in crate::proxy) fn lists(&self) -> Vec<String> {
        let state = self.state();
        state.captured.as_ref().map(|it| it.lists().changed()).unwrap_or_default()
    }

    /// Notes that the client takes a request back. Ids are used once in a session.
    pub(in crate::proxy) fn cancel(&self, id: &str) {
        let mut cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        if cancelled.len() == REMEMBERED_MAX {
            cancelled.pop_front();
        }
        cancelled.push_back((id.into(), Instant::now()));
    }

    /// When the client took a request back, if it did.
    pub(in crate::proxy) fn cancelled(&self, id: &str) -> Option<Instant> {
        let cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        cancelled.iter().find(|(other, _)| same_id(other, id)).map(|(_, at)| *at)
    }

    /// Notes that a request waits for its answer on a stream that the client still has to open.
    pub(in crate::proxy) fn park(&self, generation: u32, id: &str) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        if parked.len() < REMEMBERED_MAX {
            parked.push((generation, id.into()));
            self.live(|life| (life.generation() == generation).then(|| life.begin()));
        }
    }

    /// Notes that a parked request was answered.
    pub(in crate::proxy) fn unpark(&self, id: &str) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = parked.iter().position(|(_, other)| same_id(other, id)) else { return };
        let (generation, _) = parked.remove(at);
        self.live(|life| life.end(generation));
    }

    /// The requests that were parked up to this generation, which somebody else answers now.
    pub(in crate::proxy) fn take_parked(&self, generation: u32) -> Vec<Box<str>> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, left) =
            std::mem::take(&mut *parked).into_iter().partition(|it| it.0 <= generation);
        *parked = left;
        let taken: Vec<(u32, Box<str>)> = taken;
        taken.iter().for_each(|(generation, _)| self.live(|life| life.end(*generation)));
        taken.into_iter().map(|(_, id)| id).collect()
    }

    /// Notes that the release knows it.
    pub(in crate::proxy) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether the release is known to have had it, so that "unknown session" is its own fault.
    pub(in crate::proxy) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Remembers the protocol version that was negotiated.
    pub(in crate::proxy) fn speaks(&self, protocol: &str) {
        if self.protocol.get().is_none() && protocol.len() <= 32 {
            self.protocol.get_or_init(|| protocol.into());
        }
    }

    /// The protocol version that was negotiated, as far as is known.
    pub(in crate::proxy) fn protocol(&self) -> Option<String> {
        let captured = || self.state().captured.as_ref().map(|it| it.protocol.to_string());
        self.protocol.get().map(ToString::to_string).or_else(captured)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place(&mut self, session: &Arc<Session>, what: What) -> Place {
        let (release, generation) = (self.life.release(), self.life.generation());
        let turn = (what != What::Listen).then(|| {
            self.life.begin();
            Turn { session: Arc::clone(session), generation }
        });
        Place { release, generation, backend_id: self.backend_id.clone(), turn }
    }

    fn bound(&self, bound: Option<Refusal>) -> Option<Refusal> {
        let unknown = self.captured.is_none().then_some(Refusal::Unknown);
        bound.or(unknown)
    }
}
