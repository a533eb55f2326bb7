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

use crate::mcp::message::{Message, same_id};
use crate::mcp::outcome;
use crate::model::Outcome;
use crate::proxy::backend::Backend;
use crate::proxy::exchange::pending::{PendingRequest, TaskEffect, is_idempotent};
use crate::proxy::exchange::request_body::{BodyError, RequestBody, SharedParse};
use crate::proxy::session::{InFlightGuard, Session};
use crate::proxy::shadow::samples::SampledRequest;

/// The share of the deadline after which a client that goes away gave up on the release.
const GAVE_UP_SHARE: f64 = 0.9;
/// Requests of a server on one stream that are remembered.
const SERVER_REQUESTS_MAX: usize = 32;

/// An exchange between a client and a release.
#[derive(Debug)]
pub(in crate::proxy) struct InFlight {
    /// The release.
    pub backend: Arc<Backend>,
    /// The session it belongs to.
    pub session: Option<Arc<Session>>,
    /// How often that session had moved.
    pub generation: u32,
    /// Keeps the session from moving meanwhile.
    pub session_guard: Option<InFlightGuard>,
    /// The body of an `initialize`, until its answer has come.
    pub initialize_body: Option<Bytes>,
    /// What the client still sends, as long as it saw nothing of an answer.
    pub request_body: Option<RequestBody>,
    /// The request as it can be repeated elsewhere, should it fail here.
    pub sample: Option<Box<SampledRequest>>,
    /// Whether a client may keep its answer for a short time only.
    pub clamp_ttl: bool,
    /// Whether the release said that it does not know the session.
    pub lost: bool,
    kind: ExchangeKind,
    parsed: SharedParse,
    synced: usize,
    pending: Vec<PendingRequest>,
    /// What the server asks the client on this stream.
    server_requests: Vec<Box<str>>,
    started: Instant,
    slow: Option<Duration>,
    deadline: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    counted_slow: bool,
    deadline_passed: bool,
    /// Nobody waits for it any more, though it is still open.
    abandoned: bool,
}

/// What an exchange is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum ExchangeKind {
    /// Requests that wait for their answers.
    Call,
    /// `subscriptions/listen`: a stream that stays open.
    Subscription,
    /// A GET that opens a stream.
    GetStream,
    /// Anything else; its status tells.
    Other,
    /// The client's stream, without a release.
    Detached,
}

impl InFlight {
    /// Begins an exchange. The clock starts now.
    pub(in crate::proxy) fn new(
        backend: Arc<Backend>,
        kind: ExchangeKind,
        parsed: SharedParse,
        slow: Option<Duration>,
        deadline: Duration,
    ) -> Self {
        let gauge = match kind {
            ExchangeKind::Call | ExchangeKind::Other => &backend.in_flight_requests,
            ExchangeKind::Subscription | ExchangeKind::GetStream | ExchangeKind::Detached => {
                &backend.open_streams
            }
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        if kind == ExchangeKind::Subscription {
            backend.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        let started = Instant::now();
        let first_alarm = slow.unwrap_or(deadline).min(deadline);
        let timer = (kind == ExchangeKind::Call)
            .then(|| Box::pin(tokio::time::sleep_until(started + first_alarm)));
        Self {
            backend,
            session: None,
            generation: 0,
            session_guard: None,
            initialize_body: None,
            server_requests: Vec::new(),
            request_body: None,
            sample: None,
            clamp_ttl: false,
            lost: false,
            kind,
            parsed,
            synced: 0,
            pending: Vec::new(),
            started,
            slow,
            deadline,
            timer,
            counted_slow: false,
            deadline_passed: false,
            abandoned: false,
        }
    }

    /// What it is for.
    pub(in crate::proxy) fn kind(&self) -> ExchangeKind {
        self.kind
    }

    /// Ids of the requests without an answer, as the client wrote them.
    pub(in crate::proxy) fn pending_ids(&mut self) -> Vec<&str> {
        self.sync_parsed();
        self.pending.iter().map(|request| &*request.id).collect()
    }

    /// Ids of all requests, and whether they came in an array: for an answer in place of one of
    /// which the client has seen nothing yet.
    pub(in crate::proxy) fn request_ids(&self) -> (Vec<Box<str>>, bool) {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner).request_ids()
    }

    /// Why the client's body could not be passed on, if so.
    pub(in crate::proxy) fn body_error(&self) -> Option<BodyError> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner).error
    }

    /// Tells the session which of its requests the client takes back in this exchange.
    pub(in crate::proxy) fn record_cancellations(&self) {
        let Some(session) = &self.session else { return };
        let parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let cancellations =
            parsed.messages.iter().filter(|it| it.id.is_none() && it.request_id.is_some());
        cancellations
            .filter_map(|it| it.request_id.as_deref())
            .for_each(|id| session.record_cancellation(id));
    }

    /// A message came from the release; it settles the request whose id it carries.
    pub(in crate::proxy) fn on_message(&mut self, status: StatusCode, message: &Message) {
        if let (Some(session), Some(protocol)) = (&self.session, &message.protocol_version) {
            session.set_protocol(protocol);
        }
        if let Some(request_state) = message.request_state_hash.filter(|_| message.input_required) {
            self.backend.request_states.record(request_state, self.backend.number);
        }
        self.sync_parsed();
        self.track_server_request(message);
        let Some(id) = message.id.as_ref().filter(|_| message.is_response()) else { return };
        if let Some(session) =
            self.session.as_ref().filter(|_| self.kind == ExchangeKind::GetStream)
        {
            session.remove_detached(id);
        }
        let Some(index) = self.pending.iter().position(|request| same_id(&request.id, id)) else {
            return;
        };
        let request = self.pending.swap_remove(index);
        let mut class = outcome::from_response(status, message);
        self.track_task(&request.task, message);
        if let Some(session) = &self.session {
            class = if self.lost_a_live_one() { Outcome::ServerFault } else { class };
            if class == Outcome::Ok {
                session.mark_known();
            }
        }
        self.record_outcome(&request, class);
    }

    /// Whether all of its requests change nothing, however often they are asked.
    pub(in crate::proxy) fn is_idempotent(&self) -> bool {
        let parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut methods =
            parsed.messages.iter().filter_map(|it| it.method.as_deref().map(|m| (m, it)));
        methods.all(|(method, it)| {
            let name = it.name.as_deref().unwrap_or_default();
            is_idempotent(method) || self.backend.read_only_tools.is_read_only(method, name)
        }) && parsed.messages.iter().any(|it| it.id.is_some())
    }

    /// Another release is asked in its place.
    pub(in crate::proxy) fn mark_replayed(&mut self) {
        self.sync_parsed();
        (0..self.pending.len()).for_each(|_| self.backend.count_replayed_request());
        self.finish(Outcome::Neutral);
    }

    /// What the server asks the client keeps the session where it is.
    fn track_server_request(&mut self, message: &Message) {
        let Some(session) = &self.session else { return };
        let generation = self.generation;
        match (message.method.as_deref(), &message.id, &message.request_id) {
            (Some(_), Some(id), _) => {
                session.with_machine(|life| life.server_request_opened(generation, id));
                if self.kind == ExchangeKind::Call
                    && self.server_requests.len() < SERVER_REQUESTS_MAX
                {
                    self.server_requests.push(id.clone());
                }
            }
            (Some("notifications/cancelled"), None, Some(id)) => {
                session.with_machine(|life| life.server_request_closed(generation, id));
            }
            _ => (),
        }
    }

    fn track_task(&self, task: &TaskEffect, message: &Message) {
        let Some(session) = self.session.as_ref().filter(|_| message.has_result) else { return };
        let generation = self.generation;
        let is_finished = |status| matches!(status, Some("completed" | "failed" | "cancelled"));
        match task {
            TaskEffect::Starts if session.supports_tasks() => {
                session.with_machine(|life| life.task_started(generation));
            }
            TaskEffect::Ends(id) => session.with_machine(|life| life.task_ended(generation, id)),
            TaskEffect::ReportsStatus(id) if is_finished(message.task_status.as_deref()) => {
                session.with_machine(|life| life.task_ended(generation, id));
            }
            TaskEffect::Unchanged | TaskEffect::Starts | TaskEffect::ReportsStatus(_) => (),
        }
    }

    /// Lets go of its release, though the client's stream stays.
    pub(in crate::proxy) fn detach_from_release(&mut self) {
        if self.kind != ExchangeKind::Detached {
            self.finish(Outcome::Neutral);
            self.decrement_gauges();
            self.kind = ExchangeKind::Detached;
        }
    }

    /// The release ended its stream early, for the client to take it up again with a GET.
    pub(in crate::proxy) fn suspend_for_resume(&mut self) {
        if let Some(session) = self.session.clone() {
            let generation = self.generation;
            self.pending_ids().into_iter().for_each(|id| session.add_detached(generation, id));
        }
        self.finish(Outcome::Neutral);
    }

    /// The answer ended: what is still open has this class.
    pub(in crate::proxy) fn finish(&mut self, class: Outcome) {
        self.sync_parsed();
        for request in std::mem::take(&mut self.pending) {
            self.record_outcome(&request, class);
        }
    }

    /// Counts an exchange that holds no request, by its status.
    pub(in crate::proxy) fn count_response(&self, class: Outcome) {
        self.backend.outcomes.count(None, class);
    }

    /// Counts requests as slow, and as failed, at the moment they become so.
    pub(in crate::proxy) fn poll_timer(&mut self, cx: &mut Context<'_>) {
        while let Some(timer) = self.timer.as_mut() {
            if timer.as_mut().poll(cx) == Poll::Pending {
                return;
            }
            self.sync_parsed();
            let elapsed = self.started.elapsed();
            if self.slow.is_some_and(|slow| slow <= elapsed) && !self.counted_slow {
                self.counted_slow = true;
                let still_wanted =
                    self.pending.iter().filter(|request| !self.was_cancelled(request));
                still_wanted.for_each(|request| {
                    self.backend.outcomes.record_latency(Some(&request.counters), true)
                });
            }
            if self.deadline <= elapsed {
                self.deadline_passed = true;
                let mut failed = false;
                for request in &self.pending {
                    let cancelled = self.was_cancelled(request);
                    failed |= !cancelled;
                    let class = if cancelled { Outcome::Neutral } else { Outcome::ServerFault };
                    self.backend.outcomes.count(Some(&request.counters), class);
                }
                self.timer = None;
                if failed {
                    self.keep_for_shadow(Outcome::ServerFault);
                }
                // Some servers never answer, nor end the stream of, what was taken back.
                let was_cancelled = |request| self.was_cancelled(request);
                self.abandoned = !self.pending.is_empty() && self.pending.iter().all(was_cancelled);
                if self.abandoned {
                    self.backend.in_flight_requests.fetch_sub(1, Ordering::Relaxed);
                    self.backend.open_streams.fetch_add(1, Ordering::Relaxed);
                }
            } else {
                let slow = self.slow.filter(|_| !self.counted_slow).unwrap_or(self.deadline);
                reset_timer(&mut self.timer, self.started + slow.min(self.deadline));
            }
        }
    }

    /// Whether the client no longer wanted the answer while it could still have come in time.
    /// Servers then answer with codes of their own, or never.
    fn was_cancelled(&self, request: &PendingRequest) -> bool {
        let at = self.session.as_ref().and_then(|session| session.cancelled_at(&request.id));
        at.is_some_and(|at| !self.waited_in_vain(at))
    }

    /// Whether a client that went away at this time had waited in vain: those that time out by
    /// themselves, common at 60 s as the deadline is, must not hide that a release hangs.
    fn waited_in_vain(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.started) >= self.deadline.mul_f64(GAVE_UP_SHARE)
    }

    /// Keeps a request that failed, so that another release can be asked the same.
    fn keep_for_shadow(&mut self, class: Outcome) {
        let failed = matches!(class, Outcome::ServerFault | Outcome::ToolFault);
        if let Some(sample) = self.sample.take().filter(|_| failed) {
            self.backend.samples.record(*sample, Instant::now());
        }
    }

    fn record_outcome(&mut self, request: &PendingRequest, class: Outcome) {
        let failed = class == Outcome::ServerFault;
        let class = if failed && self.was_cancelled(request) { Outcome::Neutral } else { class };
        if !self.deadline_passed {
            self.backend.outcomes.count(Some(&request.counters), class);
            self.keep_for_shadow(class);
        }
        let timed = matches!(class, Outcome::Ok | Outcome::ToolFault | Outcome::ServerFault);
        if let Some(slow) =
            self.slow.filter(|_| timed && !self.counted_slow && self.kind == ExchangeKind::Call)
        {
            self.backend
                .outcomes
                .record_latency(Some(&request.counters), slow <= self.started.elapsed());
        }
    }

    fn decrement_gauges(&self) {
        let gauge = match self.kind {
            ExchangeKind::Call | ExchangeKind::Other if !self.abandoned => {
                &self.backend.in_flight_requests
            }
            _ => &self.backend.open_streams,
        };
        gauge.fetch_sub(1, Ordering::Relaxed);
        if self.kind == ExchangeKind::Subscription {
            self.backend.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes over the requests that were found in the body since the last time.
    fn sync_parsed(&mut self) {
        let parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        // The release can not answer before it has the whole request.
        let last_progress =
            if parsed.waiting_on_client { Some(Instant::now()) } else { parsed.last_piece_at };
        self.started =
            last_progress.map_or(self.started, |last_progress| self.started.max(last_progress));
        for message in parsed.messages.get(self.synced..).unwrap_or_default() {
            if let (Some(id), Some(method)) = (&message.id, &message.method) {
                let name = message.name.as_deref().unwrap_or_default();
                let counters = self.backend.outcomes.for_call(method, name);
                self.pending.push(PendingRequest {
                    id: id.clone(),
                    counters,
                    task: TaskEffect::from_request(method, message),
                });
            }
        }
        self.synced = parsed.messages.len();
    }
}

fn reset_timer(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant) {
    if let Some(timer) = timer {
        timer.as_mut().reset(at);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.sync_parsed();
        // A client that leaves is nobody's fault, unless it waited in vain.
        let in_vain = self.kind == ExchangeKind::Call && self.waited_in_vain(Instant::now());
        self.finish(if in_vain { Outcome::ServerFault } else { Outcome::Neutral });
        if self.kind != ExchangeKind::Detached {
            self.decrement_gauges();
        }
        // With its call, what the server asked in it is over, too.
        if let Some(session) = &self.session {
            for id in &self.server_requests {
                session.with_machine(|life| life.server_request_closed(self.generation, id));
            }
        }
    }
}
