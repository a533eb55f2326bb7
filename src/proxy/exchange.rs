//! One POST on its way: which requests it holds, what became of each, and when they are overdue.
//!
//! Every request yields exactly one outcome: at its answer, at its deadline, or, when the client
//! leaves first, at the end of the exchange.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::{Instant, Sleep};

use crate::model::Class;

use super::classify;
use super::message::{Message, same_id};
use super::open::{Open, Task, safe};
use super::repeat::Repeat;
use super::session::{Session, Turn};
use super::upload::{Asked, Flaw, Upload};
use super::upstream::Upstream;

/// The share of the deadline after which a client that goes away gave up on the release.
const GAVE_UP: f64 = 0.9;
/// Requests of a server on one stream that are remembered.
const QUESTIONS_MAX: usize = 32;

/// An exchange between a client and a release.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The release.
    pub upstream: Arc<Upstream>,
    /// The session it belongs to.
    pub session: Option<Arc<Session>>,
    /// How often that session had moved.
    pub generation: u32,
    /// Keeps the session from moving meanwhile.
    pub turn: Option<Turn>,
    /// The body of an `initialize`, until its answer has come.
    pub opening: Option<Bytes>,
    /// What the client still sends, as long as it saw nothing of an answer.
    pub upload: Option<Upload>,
    /// The request as it can be repeated elsewhere, should it fail here.
    pub repeat: Option<Box<Repeat>>,
    /// Whether a client may keep its answer for a short time only.
    pub clamp: bool,
    /// Whether the release said that it does not know the session.
    pub lost: bool,
    kind: Kind,
    asked: Asked,
    seen: usize,
    open: Vec<Open>,
    /// What the server asks the client on this stream.
    questions: Vec<Box<str>>,
    started: Instant,
    slow: Option<Duration>,
    deadline: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    late: bool,
    overdue: bool,
    /// Nobody waits for it any more, though it is still open.
    idle: bool,
}

/// What an exchange is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests that wait for their answers.
    Call,
    /// `subscriptions/listen`: a stream that stays open.
    Listen,
    /// A GET that opens a stream.
    Stream,
    /// Anything else; its status tells.
    Plain,
    /// The client's stream, without a release.
    Adrift,
}

impl Exchange {
    /// Begins an exchange. The clock starts now.
    pub(super) fn new(
        upstream: Arc<Upstream>,
        kind: Kind,
        asked: Asked,
        slow: Option<Duration>,
        deadline: Duration,
    ) -> Self {
        let gauge = match kind {
            Kind::Call | Kind::Plain => &upstream.in_flight,
            Kind::Listen | Kind::Stream | Kind::Adrift => &upstream.streams,
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        if kind == Kind::Listen {
            upstream.listens.fetch_add(1, Ordering::Relaxed);
        }
        let started = Instant::now();
        let first = slow.unwrap_or(deadline).min(deadline);
        let alarm =
            (kind == Kind::Call).then(|| Box::pin(tokio::time::sleep_until(started + first)));
        Self {
            upstream,
            session: None,
            generation: 0,
            turn: None,
            opening: None,
            questions: Vec::new(),
            upload: None,
            repeat: None,
            clamp: false,
            lost: false,
            kind,
            asked,
            seen: 0,
            open: Vec::new(),
            started,
            slow,
            deadline,
            alarm,
            late: false,
            overdue: false,
            idle: false,
        }
    }

    /// What it is for.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Ids of the requests without an answer, as the client wrote them.
    pub(super) fn open_ids(&mut self) -> Vec<&str> {
        self.absorb();
        self.open.iter().map(|open| &*open.id).collect()
    }

    /// Ids of all requests, and whether they came in an array: for an answer in place of one of
    /// which the client has seen nothing yet.
    pub(super) fn all_ids(&self) -> (Vec<Box<str>>, bool) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).ids()
    }

    /// Why the client's body could not be passed on, if so.
    pub(super) fn flaw(&self) -> Option<Flaw> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).flaw
    }

    /// Tells the session which of its requests the client takes back in this exchange.
    pub(super) fn note_cancelled(&self) {
        let Some(session) = &self.session else { return };
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let cancels = asked.messages.iter().filter(|it| it.id.is_none() && it.request.is_some());
        cancels.filter_map(|it| it.request.as_deref()).for_each(|id| session.cancel(id));
    }

    /// A message came from the release; it settles the request whose id it carries.
    pub(super) fn heard(&mut self, http: StatusCode, message: &Message) {
        if let (Some(session), Some(protocol)) = (&self.session, &message.protocol) {
            session.speaks(protocol);
        }
        if let Some(state) = message.state.filter(|_| message.input_required) {
            self.upstream.states.note(state, self.upstream.number);
        }
        self.absorb();
        self.questioned(message);
        let Some(id) = message.id.as_ref().filter(|_| message.is_answer()) else { return };
        if let Some(session) = self.session.as_ref().filter(|_| self.kind == Kind::Stream) {
            session.unpark(id);
        }
        let Some(at) = self.open.iter().position(|open| same_id(&open.id, id)) else { return };
        let open = self.open.swap_remove(at);
        let mut class = classify::answer(http, message);
        self.note_task(&open.task, message);
        if let Some(session) = &self.session {
            class = if self.lost_a_live_one() { Class::ServerFault } else { class };
            if class == Class::Ok {
                session.prove();
            }
        }
        self.settle(&open, class);
    }

    /// Whether all of its requests change nothing, however often they are asked.
    pub(super) fn is_safe(&self) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut methods =
            asked.messages.iter().filter_map(|it| it.method.as_deref().map(|m| (m, it)));
        methods.all(|(method, it)| {
            let name = it.name.as_deref().unwrap_or_default();
            safe(method) || self.upstream.safe.covers(method, name)
        }) && asked.messages.iter().any(|it| it.id.is_some())
    }

    /// Another release is asked in its place.
    pub(super) fn replay(&mut self) {
        self.absorb();
        (0..self.open.len()).for_each(|_| self.upstream.replayed());
        self.end(Class::Neutral);
    }

    /// What the server asks the client keeps the session where it is.
    fn questioned(&mut self, message: &Message) {
        let Some(session) = &self.session else { return };
        let generation = self.generation;
        match (message.method.as_deref(), &message.id, &message.request) {
            (Some(_), Some(id), _) => {
                session.live(|life| life.ask(generation, id));
                if self.kind == Kind::Call && self.questions.len() < QUESTIONS_MAX {
                    self.questions.push(id.clone());
                }
            }
            (Some("notifications/cancelled"), None, Some(id)) => {
                session.live(|life| life.settle(generation, id));
            }
            _ => (),
        }
    }

    fn note_task(&self, task: &Task, message: &Message) {
        let Some(session) = self.session.as_ref().filter(|_| message.result) else { return };
        let generation = self.generation;
        let over = |status| matches!(status, Some("completed" | "failed" | "cancelled"));
        match task {
            Task::Begins if session.has_tasks() => {
                session.live(|life| life.begin_task(generation));
            }
            Task::Ends(id) => session.live(|life| life.end_task(generation, id)),
            Task::Stands(id) if over(message.status.as_deref()) => {
                session.live(|life| life.end_task(generation, id));
            }
            Task::No | Task::Begins | Task::Stands(_) => (),
        }
    }

    /// Lets go of its release, though the client's stream stays.
    pub(super) fn let_go(&mut self) {
        if self.kind != Kind::Adrift {
            self.end(Class::Neutral);
            self.release();
            self.kind = Kind::Adrift;
        }
    }

    /// The release ended its stream early, for the client to take it up again with a GET.
    pub(super) fn park(&mut self) {
        if let Some(session) = self.session.clone() {
            let generation = self.generation;
            self.open_ids().into_iter().for_each(|id| session.park(generation, id));
        }
        self.end(Class::Neutral);
    }

    /// The answer ended: what is still open has this class.
    pub(super) fn end(&mut self, class: Class) {
        self.absorb();
        for open in std::mem::take(&mut self.open) {
            self.settle(&open, class);
        }
    }

    /// Counts an exchange that holds no request, by its status.
    pub(super) fn plain(&self, class: Class) {
        self.upstream.tally.count(None, class);
    }

    /// Counts requests as slow, and as failed, at the moment they become so.
    pub(super) fn poll_alarm(&mut self, cx: &mut Context<'_>) {
        while let Some(alarm) = self.alarm.as_mut() {
            if alarm.as_mut().poll(cx) == Poll::Pending {
                return;
            }
            self.absorb();
            let elapsed = self.started.elapsed();
            if self.slow.is_some_and(|slow| slow <= elapsed) && !self.late {
                self.late = true;
                let waited_for = self.open.iter().filter(|open| !self.taken_back(open));
                waited_for.for_each(|open| self.upstream.tally.time(Some(&open.call), true));
            }
            if self.deadline <= elapsed {
                self.overdue = true;
                let mut failed = false;
                for open in &self.open {
                    let back = self.taken_back(open);
                    failed |= !back;
                    let class = if back { Class::Neutral } else { Class::ServerFault };
                    self.upstream.tally.count(Some(&open.call), class);
                }
                self.alarm = None;
                if failed {
                    self.keep(Class::ServerFault);
                }
                // Some servers never answer, nor end the stream of, what was taken back.
                let taken_back = |open| self.taken_back(open);
                self.idle = !self.open.is_empty() && self.open.iter().all(taken_back);
                if self.idle {
                    self.upstream.in_flight.fetch_sub(1, Ordering::Relaxed);
                    self.upstream.streams.fetch_add(1, Ordering::Relaxed);
                }
            } else {
                let slow = self.slow.filter(|_| !self.late).unwrap_or(self.deadline);
                alarm_at(&mut self.alarm, self.started + slow.min(self.deadline));
            }
        }
    }

    /// Whether the client no longer wanted the answer while it could still have come in time.
    /// Servers then answer with codes of their own, or never.
    fn taken_back(&self, open: &Open) -> bool {
        let at = self.session.as_ref().and_then(|session| session.cancelled(&open.id));
        at.is_some_and(|at| !self.gave_up(at))
    }

    /// Whether a client that went away at this time had waited in vain: those that time out by
    /// themselves, common at 60 s as the deadline is, must not hide that a release hangs.
    fn gave_up(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.started) >= self.deadline.mul_f64(GAVE_UP)
    }

    /// Keeps a request that failed, so that another release can be asked the same.
    fn keep(&mut self, class: Class) {
        let failed = matches!(class, Class::ServerFault | Class::ToolFault);
        if let Some(repeat) = self.repeat.take().filter(|_| failed) {
            self.upstream.repeats.failed(*repeat, Instant::now());
        }
    }

    fn settle(&mut self, open: &Open, class: Class) {
        let failed = class == Class::ServerFault;
        let class = if failed && self.taken_back(open) { Class::Neutral } else { class };
        if !self.overdue {
            self.upstream.tally.count(Some(&open.call), class);
            self.keep(class);
        }
        let timed = matches!(class, Class::Ok | Class::ToolFault | Class::ServerFault);
        if let Some(slow) = self.slow.filter(|_| timed && !self.late && self.kind == Kind::Call) {
            self.upstream.tally.time(Some(&open.call), slow <= self.started.elapsed());
        }
    }

    fn release(&self) {
        let gauge = match self.kind {
            Kind::Call | Kind::Plain if !self.idle => &self.upstream.in_flight,
            _ => &self.upstream.streams,
        };
        gauge.fetch_sub(1, Ordering::Relaxed);
        if self.kind == Kind::Listen {
            self.upstream.listens.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes over the requests that were found in the body since the last time.
    fn absorb(&mut self) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        // The release can not answer before it has the whole request.
        let given = if asked.owed { Some(Instant::now()) } else { asked.paid };
        self.started = given.map_or(self.started, |given| self.started.max(given));
        for message in asked.messages.get(self.seen..).unwrap_or_default() {
            if let (Some(id), Some(method)) = (&message.id, &message.method) {
                let name = message.name.as_deref().unwrap_or_default();
                let call = self.upstream.tally.call(method, name);
                self.open.push(Open { id: id.clone(), call, task: Task::of(method, message) });
            }
        }
        self.seen = asked.messages.len();
    }
}

fn alarm_at(alarm: &mut Option<Pin<Box<Sleep>>>, at: Instant) {
    if let Some(alarm) = alarm {
        alarm.as_mut().reset(at);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.absorb();
        // A client that leaves is nobody's fault, unless it waited in vain.
        let in_vain = self.kind == Kind::Call && self.gave_up(Instant::now());
        self.end(if in_vain { Class::ServerFault } else { Class::Neutral });
        if self.kind != Kind::Adrift {
            self.release();
        }
        // With its call, what the server asked in it is over, too.
        if let Some(session) = &self.session {
            for id in &self.questions {
                session.live(|life| life.settle(self.generation, id));
            }
        }
    }
}
