//! One HTTP request in flight: its JSON-RPC requests, their outcomes and their deadlines.
//!
//! Every JSON-RPC request yields exactly one outcome: at its response, at its deadline, or at the end
//! of the exchange when the client disconnects first.

mod client_duty;
mod counting;
mod deadline;
mod explaining;
mod http_sse;
mod session_tracking;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::{Instant, Sleep};

use crate::clock::monotonic;
use crate::config::ProxyLimits;
use crate::mcp::message::{Message, same_id};
use crate::mcp::methods::{INITIALIZE, is_idempotent};
use crate::mcp::outcome;
use crate::model::Outcome;
use crate::proxy::backend::Backend;
use crate::proxy::backend::client_connection::ClientConnectionState;
use crate::proxy::backend::counted_subject::CountedSubject;
use crate::proxy::backend::failed_samples::SampledRequest;
use crate::proxy::exchange::body_error::BodyError;
use crate::proxy::exchange::cancellation::Cancelled;
use crate::proxy::exchange::mcp_paths::UnconfirmedPath;
use crate::proxy::exchange::parsed_body::{RequestIds, SharedParse, lock_parsed};
use crate::proxy::exchange::pending::{PendingRequest, TaskEffect};
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::exchange::unexplained_failure::UnexplainedFailure;
use crate::proxy::routing::request_states::RequestStates;
use crate::proxy::session::{InFlightGuard, Session};

/// Server requests that are tracked for one stream.
const SERVER_REQUESTS_MAX: usize = 32;

/// An exchange between a client and a release.
#[derive(Debug)]
pub(in crate::proxy) struct InFlight {
    /// The release.
    pub backend: Arc<Backend>,
    /// The session that it belongs to.
    pub session: Option<Arc<Session>>,
    /// How often that session had moved.
    pub generation: u32,
    /// Keeps the session from moving meanwhile.
    pub session_guard: Option<InFlightGuard>,
    /// The body of an `initialize`, until its response arrives.
    pub initialize_body: Option<Bytes>,
    /// The client's body, until the client sees the start of a response.
    pub request_body: Option<RequestBody>,
    /// The request as a shadow call can repeat it, should it fail.
    pub sample: Option<Box<SampledRequest>>,
    /// Whether the client may cache the response for a short time only.
    pub clamp_ttl: bool,
    /// Whether the release content that it has lost the session.
    pub lost: bool,
    /// The connection of the client, while its requests wait.
    pub client: Option<Arc<ClientConnectionState>>,
    /// The subject of its requests, if they are counted for it.
    pub counted: Option<CountedSubject>,
    /// A stream of events without one for this long gets a comment.
    pub sse_ping: Option<Duration>,
    /// The client's body, where it was small enough, to explain a failure.
    pub client_body: Option<Bytes>,
    /// Whether the release accepted no connection, so that no request can be at fault.
    pub unreachable: bool,
    /// Requests that failed, until their error messages are kept.
    unexplained: Vec<UnexplainedFailure>,
    /// What a response without JSON-RPC said.
    failure_words: Option<String>,
    /// The server asked the client something in this exchange.
    asked_client: bool,
    /// The client left while the release waited for it.
    left_owing: bool,
    /// Where the path is not known to serve MCP: the requests count once one is answered.
    unconfirmed: Option<Box<UnconfirmedPath>>,
    kind: ExchangeKind,
    parsed: SharedParse,
    request_states: Arc<RequestStates>,
    synced: usize,
    pending: Vec<PendingRequest>,
    /// Ids of the requests that the server sent on this stream.
    server_requests: Vec<Box<str>>,
    started: Instant,
    slow: Option<Duration>,
    deadline: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    counted_slow: bool,
    deadline_passed: bool,
    /// The client has cancelled all its requests, although it is still open: nothing waits for it.
    abandoned: bool,
    /// When the client disconnected, while the release had to answer.
    client_left_at: Option<Instant>,
    end_unwanted: Option<Cancelled>,
}

/// The kind of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum ExchangeKind {
    /// Requests that wait for responses.
    Call,
    /// `subscriptions/listen`: a stream that stays open.
    Subscription,
    /// A GET that opens a stream.
    GetStream,
    /// The end of a session; its status decides the outcome.
    Other,
    /// No MCP: it is no evidence, and a drain does not wait for its end.
    NotMcp,
    /// The client's stream, without a release.
    Detached,
}

impl InFlight {
    /// Starts an exchange, and its deadline.
    pub(in crate::proxy) fn new(
        backend: Arc<Backend>,
        kind: ExchangeKind,
        parsed: SharedParse,
        request_states: Arc<RequestStates>,
        limits: &ProxyLimits,
    ) -> Self {
        let deadline = limits.deadline;
        let has_threshold = matches!(kind, ExchangeKind::Call | ExchangeKind::Subscription);
        let slow = has_threshold.then_some(limits.slow_after);
        let gauge = match kind {
            ExchangeKind::Call | ExchangeKind::Other => &backend.in_flight_requests,
            ExchangeKind::NotMcp => &backend.other_requests,
            ExchangeKind::Subscription | ExchangeKind::GetStream | ExchangeKind::Detached => {
                &backend.open_streams
            }
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        if kind == ExchangeKind::Subscription {
            backend.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        let started = monotonic();
        let first_alarm = slow.unwrap_or(deadline).min(deadline).min(deadline::POLL_INTERVAL);
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
            client: None,
            counted: None,
            sse_ping: limits.sse_ping,
            client_body: None,
            unreachable: false,
            unexplained: Vec::new(),
            failure_words: None,
            asked_client: false,
            left_owing: false,
            unconfirmed: None,
            kind,
            parsed,
            request_states,
            synced: 0,
            pending: Vec::new(),
            started,
            slow,
            deadline,
            timer,
            counted_slow: false,
            deadline_passed: false,
            abandoned: false,
            client_left_at: None,
            end_unwanted: None,
        }
    }

    /// Its kind.
    pub(in crate::proxy) fn kind(&self) -> ExchangeKind {
        self.kind
    }

    /// Its path is not known to serve MCP: its requests count once a release answers one.
    pub(in crate::proxy) fn set_unconfirmed(&mut self, path: UnconfirmedPath) {
        self.slow = None;
        self.unconfirmed = Some(Box::new(path));
    }

    /// Whether it is not known that its path serves MCP.
    pub(in crate::proxy) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Ids of the requests without a response, as the client wrote them.
    pub(in crate::proxy) fn pending_ids(&mut self) -> Vec<&str> {
        self.sync_parsed();
        self.pending.iter().map(|request| &*request.id).collect()
    }

    /// All requests, for an error response when the client has seen nothing yet.
    pub(in crate::proxy) fn request_ids(&self) -> RequestIds {
        lock_parsed(&self.parsed).request_ids()
    }

    /// Why the client's body could not be forwarded, if that is so.
    pub(in crate::proxy) fn body_error(&self) -> Option<BodyError> {
        lock_parsed(&self.parsed).error
    }

    /// Handles a message of the release; a response completes the request with its id.
    pub(in crate::proxy) fn on_message(&mut self, status: StatusCode, message: &Message) {
        if let Some(request_state) = message.request_state_hash.filter(|_| message.input_required) {
            self.request_states.record(request_state, self.backend.number);
        }
        self.sync_parsed();
        self.note_question(message);
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
        if let Some(path) = self.unconfirmed.take()
            && message.has_result
        {
            path.confirm();
        }
        if let (Some(session), Some(protocol)) = (&self.session, &message.protocol_version)
            && request.is_initialize
        {
            session.set_protocol(protocol);
        }
        let mut class = outcome::from_response(status, message);
        self.track_task(&request.task, message);
        if let Some(session) = &self.session {
            class = if self.lost_a_live_one() { Outcome::ServerFault } else { class };
            if class == Outcome::Ok {
                session.mark_known();
            }
        }
        let content = message.has_result.then(|| message.content_bytes.unwrap_or(0));
        let class = self.record_outcome(&request, class, content);
        self.note_failure(&request.id, class, message.error_code);
    }

    /// Whether all of its requests are idempotent.
    pub(in crate::proxy) fn is_idempotent(&self) -> bool {
        let parsed = lock_parsed(&self.parsed);
        let mut methods =
            parsed.messages.iter().filter_map(|it| it.method.as_deref().map(|m| (m, it)));
        methods.all(|(method, it)| {
            let name = it.name.as_deref().unwrap_or_default();
            is_idempotent(method) || self.backend.read_only_tools.is_read_only(method, name)
        }) && parsed.messages.iter().any(|it| it.id.is_some())
    }

    /// Ends it: the proxy sends its requests to another release.
    pub(in crate::proxy) fn mark_replayed(&mut self) {
        self.sync_parsed();
        (0..self.pending.len()).for_each(|_| self.backend.count_replayed_request());
        self.finish(Outcome::Neutral);
    }

    /// Detaches it from its release, while the client's stream stays open.
    pub(in crate::proxy) fn detach_from_release(&mut self) {
        if self.kind != ExchangeKind::Detached {
            self.finish(Outcome::Neutral);
            self.decrement_gauges();
            self.kind = ExchangeKind::Detached;
        }
    }

    /// The response ended: each pending request gets this outcome.
    pub(in crate::proxy) fn finish(&mut self, class: Outcome) {
        self.sync_parsed();
        let pending = std::mem::take(&mut self.pending);
        if let Some(path) = self.unconfirmed.as_ref().filter(|_| !pending.is_empty()) {
            path.log_unanswered();
            self.backend.outcomes.count_not_mcp(class);
            pending.iter().for_each(|request| self.count_on_trial(request, Outcome::Neutral));
            return;
        }
        for request in pending {
            let class = self.record_outcome(&request, class, None);
            if !self.deadline_passed {
                self.note_failure(&request.id, class, None);
            }
        }
        self.explain_unanswered();
    }

    /// Counts an exchange without JSON-RPC requests.
    pub(in crate::proxy) fn count_response(&self, class: Outcome) {
        if self.kind == ExchangeKind::NotMcp || self.unconfirmed.is_some() {
            self.backend.outcomes.count_not_mcp(class);
        } else {
            self.backend.outcomes.count(None, class);
        }
    }

    fn decrement_gauges(&self) {
        let gauge = match self.kind {
            ExchangeKind::Call | ExchangeKind::Other if !self.abandoned => {
                &self.backend.in_flight_requests
            }
            ExchangeKind::NotMcp => &self.backend.other_requests,
            _ => &self.backend.open_streams,
        };
        gauge.fetch_sub(1, Ordering::Relaxed);
        if self.kind == ExchangeKind::Subscription {
            self.backend.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes over the requests that the body yielded since the last call.
    fn sync_parsed(&mut self) {
        let parsed = lock_parsed(&self.parsed);
        // The release cannot respond before it has the whole request.
        let last_progress =
            if parsed.waiting_on_client { Some(monotonic()) } else { parsed.last_piece_at };
        let reply = self.session.as_ref().filter(|_| self.asked_client);
        let reply = reply.and_then(|session| session.with_requests(|it| it.replied_at));
        self.started =
            [last_progress, reply].into_iter().flatten().fold(self.started, Instant::max);
        for message in parsed.messages.get(self.synced..).unwrap_or_default() {
            if let (Some(id), Some(method)) = (&message.id, &message.method) {
                let name = message.name.as_deref().unwrap_or_default();
                let counters = self.backend.outcomes.for_call(method, name);
                self.pending.push(PendingRequest {
                    id: id.clone(),
                    counters,
                    counted: self.counted.as_ref().map(|it| it.start(method, name)),
                    task: TaskEffect::from_request(method, message),
                    is_initialize: **method == *INITIALIZE,
                    is_overdue: false,
                });
            }
        }
        self.synced = parsed.messages.len();
    }
}

/// Waits for `work`; `None` when the release is cut first, or nothing waits for it in a drain. Deadlines of requests expire meanwhile.
pub(in crate::proxy) async fn unless_left<T>(
    in_flight: &mut InFlight,
    work: impl Future<Output = T>,
) -> Option<T> {
    let cut = in_flight.backend.cut.clone();
    let mut work = std::pin::pin!(work);
    let mut release_cut = std::pin::pin!(cut.cancelled());
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        in_flight.poll_timer(cx);
        if in_flight.poll_unwanted(cx).is_ready() {
            return Poll::Ready(None);
        }
        release_cut.as_mut().poll(cx).map(|()| None)
    })
    .await
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.sync_parsed();
        // A client that disconnects is no fault of the release, unless it waited in vain.
        let now = monotonic();
        let waited =
            self.kind == ExchangeKind::Call && !self.left_owing && !self.client_owes_reply();
        let in_vain = waited && self.waited_in_vain(now);
        self.client_left_at = waited.then_some(now);
        self.finish(if in_vain { Outcome::ServerFault } else { Outcome::Neutral });
        if self.kind != ExchangeKind::Detached {
            self.decrement_gauges();
        }
        // The requests that the server sent during this call end with it.
        if let Some(session) = &self.session {
            for id in &self.server_requests {
                session.with_machine(|life| life.server_request_closed(self.generation, id));
            }
        }
    }
}
