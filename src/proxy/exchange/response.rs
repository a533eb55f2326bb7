//! Relays the response to a POST: from the head that the release sent to the client's response.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header, response};
use http_body_util::{BodyExt as _, Full};

use crate::mcp::message::Message;
use crate::mcp::messages::FailureReason;
use crate::mcp::scan::MessageScanner;
use crate::mcp::sse::SseReader;
use crate::mcp::{headers, outcome, ttl_clamp};
use crate::model::Outcome;
use crate::proxy::backend::body::ReleaseBody;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::body_error::BodyError;
use crate::proxy::exchange::client_body::ClientBody;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight, unless_left};
use crate::proxy::exchange::replay::{Replay, Reroute};
use crate::proxy::exchange::response_body::{BodyParser, OnReleaseLeft, ResponseBody};
use crate::proxy::exchange::state::ProxyState;
use crate::proxy::exchange::subscription::Subscription;
use crate::proxy::exchange::{error_response, id_rewrite};
use crate::proxy::routing::router::Router;
use crate::proxy::session::{ReplayDecision, replay_decision};

/// The proxy reads a JSON response of up to this size before it sends the head. Then the client gets
/// a response for its id even when the release fails or is cut in the middle.
const RESPONSE_BUFFERED_MAX: usize = 64 * 1024;
/// The same for the response to `initialize`.
const INITIALIZE_RESPONSE_MAX: usize = 4 * 1024 * 1024;

/// What the response to a POST needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct RelayContext<'a> {
    /// What all requests share.
    pub state: &'a Arc<ProxyState>,
    /// The request.
    pub request: &'a Arc<ClientRequest>,
}

impl RelayContext<'_> {
    /// How the stream of this exchange continues when its release drains or is cut.
    fn on_release_left(self, in_flight: &InFlight) -> OnReleaseLeft {
        let reroute = || -> Arc<dyn Reroute> { Arc::<ProxyState>::clone(self.state) };
        if in_flight.kind() == ExchangeKind::Subscription {
            let subscription = Subscription::new(reroute(), self.state, self.request, in_flight);
            return subscription
                .map_or(OnReleaseLeft::End, |it| OnReleaseLeft::Reopen(Box::new(it)));
        }
        Replay::new(reroute(), self.request, in_flight)
            .map_or(OnReleaseLeft::End, |it| OnReleaseLeft::Replay(Box::new(it)))
    }
}

/// A POST whose release was cut, or lost the session, before the client saw any of the response.
pub(in crate::proxy) struct Interrupted {
    /// The exchange.
    pub in_flight: InFlight,
    /// Whether the release may have executed it.
    pub sent: bool,
    /// Why it was interrupted.
    pub cause: FailureReason,
}

impl Interrupted {
    /// Whether it may be sent again.
    pub(in crate::proxy) fn replay_decision(&self) -> ReplayDecision {
        replay_decision(self.sent, self.in_flight.is_idempotent(), false)
    }
}

/// Relays the response to a POST. An error when the release is cut before the client saw any of it.
pub(in crate::proxy) async fn relay(
    context: RelayContext<'_>,
    mut head: response::Parts,
    body: ReleaseBody,
    mut in_flight: InFlight,
) -> Result<Response<ClientBody>, Interrupted> {
    if head.status == StatusCode::TOO_MANY_REQUESTS {
        in_flight.backend.outcomes.count_rate_limited();
    }
    if headers::is_compressed(&head.headers) {
        count_unread(context, &head, &in_flight);
        return Ok(streamed(head, VecDeque::new(), body, BodyParser::Unparsed, in_flight));
    }
    if headers::is_event_stream(&head.headers) {
        // The proxy may append events.
        head.headers.remove(header::CONTENT_LENGTH);
        let on_release_left = context.on_release_left(&in_flight);
        in_flight.request_body = None;
        let reader = BodyParser::Events(SseReader::new());
        let response_body =
            ResponseBody::new(VecDeque::new(), body, reader, head.status, in_flight)
                .with_on_release_left(on_release_left)
                .with_session_events(context.state);
        return Ok(Response::from_parts(head, ClientBody::Streaming(Box::new(response_body))));
    }
    let (mut scanner, mut ready, mut size) = (MessageScanner::default(), VecDeque::new(), 0);
    // They count when they are sent: until then an error response may replace them.
    let mut responses = Vec::new();
    let mut body = body;
    let limit = buffered_max(&in_flight);
    while size < limit {
        match unless_left(&mut in_flight, body.frame()).await {
            None => {
                return Err(Interrupted { in_flight, sent: true, cause: FailureReason::Rollback });
            }
            Some(None) => {
                let body = joined(ready);
                in_flight.lost = in_flight.is_lost(&Method::POST, head.status, &body);
                if in_flight.lost && can_reopen(&context.state.router, &in_flight) {
                    // The release did not execute it.
                    return Err(Interrupted {
                        in_flight,
                        sent: false,
                        cause: FailureReason::BackendFailed,
                    });
                }
                let router = &context.state.router;
                return Ok(buffered(router, head, body, &responses, in_flight).await);
            }
            Some(Some(Err(_))) => {
                return Ok(respond_with_error(in_flight, FailureReason::BackendFailed).await);
            }
            Some(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                size += data.len();
                scanner.feed(&data, |message| {
                    if message.is_response() {
                        responses.push(message);
                    }
                });
                ready.push_back(data);
            }
        }
    }
    count_responses(&mut in_flight, head.status, &responses, &ready);
    Ok(streamed(head, ready, body, BodyParser::Json(scanner), in_flight))
}

/// The bytes of a JSON response that are read before the head is sent.
fn buffered_max(in_flight: &InFlight) -> usize {
    match in_flight.kind() {
        // A listening stream has no limit in time: servers were seen to send it without events.
        ExchangeKind::Subscription => 0,
        // It must be read whole, so that the session can move.
        _ if in_flight.initialize_body.is_some() => INITIALIZE_RESPONSE_MAX,
        _ => RESPONSE_BUFFERED_MAX,
    }
}

/// Counts a response that the proxy cannot read, and logs the first.
fn count_unread(context: RelayContext<'_>, head: &response::Parts, in_flight: &InFlight) {
    if in_flight.backend.outcomes.count_unread() {
        let coding = head.headers.get(header::CONTENT_ENCODING);
        tracing::warn!(
            service = context.state.paths.service(),
            ?coding,
            "the release codes responses in a way that rollbackd cannot read, although the request did \
             not ask for it: their outcome is unknown, and its sessions cannot move; switch that off at \
             the endpoint"
        );
    }
}

/// The response when the proxy read all of it.
async fn buffered(
    router: &Router,
    head: response::Parts,
    body: Bytes,
    responses: &[Message],
    mut in_flight: InFlight,
) -> Response<ClientBody> {
    responses.iter().for_each(|message| in_flight.on_message(head.status, message));
    in_flight.explain_failures(&body);
    in_flight.set_failure_status(head.status, &body);
    let unanswered = !in_flight.pending_ids().is_empty();
    let is_mistake = unanswered && in_flight.has_invalid_body();
    if unanswered && head.status.is_success() && !in_flight.is_unconfirmed() && !is_mistake {
        return respond_with_error(in_flight, FailureReason::BackendFailed).await;
    }
    // It does not carry the id, but the status is enough: an unknown session, a wrong method.
    let lost = in_flight.lost_a_live_one();
    in_flight.finish(match outcome::from_status(head.status) {
        _ if lost => Outcome::ServerFault,
        Outcome::Ok if is_mistake => Outcome::ClientFault,
        class => class,
    });
    if let Some(request_body) = in_flight.request_body.take() {
        request_body.discard_rest();
    }
    let mut head = head;
    head.headers.remove(header::CONTENT_LENGTH);
    let body = match in_flight.initialize_body.take().and_then(|initialize_body| {
        let session = in_flight.session.as_ref()?;
        let (body, result) = id_rewrite::rewrite_initialize_response(&body)?;
        router.session_opened(session, &initialize_body, &result);
        Some(body)
    }) {
        Some(body) => body,
        None if in_flight.clamp_ttl => ttl_clamp::clamp_ttl(&body).map_or(body, Bytes::from),
        None => body,
    };
    Response::from_parts(head, ClientBody::Full(Full::new(body)))
}

/// Counts responses, and keeps the error messages of failed requests, whose answers these pieces have.
fn count_responses(
    in_flight: &mut InFlight,
    status: StatusCode,
    responses: &[Message],
    pieces: &VecDeque<Bytes>,
) {
    responses.iter().for_each(|message| in_flight.on_message(status, message));
    if in_flight.has_unexplained() {
        in_flight.explain_failures(&joined(pieces.clone()));
    }
}

/// All pieces as one.
fn joined(pieces: VecDeque<Bytes>) -> Bytes {
    match pieces.len() {
        0 | 1 => pieces.into_iter().next().unwrap_or_default(),
        _ => pieces.into_iter().flatten().collect(),
    }
}

/// The response when its body streams.
pub(in crate::proxy) fn streamed(
    head: response::Parts,
    ready: VecDeque<Bytes>,
    body: ReleaseBody,
    reader: BodyParser,
    mut in_flight: InFlight,
) -> Response<ClientBody> {
    in_flight.request_body = None;
    let status = head.status;
    let response_body = ResponseBody::new(ready, body, reader, status, in_flight);
    Response::from_parts(head, ClientBody::Streaming(Box::new(response_body)))
}

/// An error response for every pending id.
pub(in crate::proxy) async fn respond_with_error(
    mut in_flight: InFlight,
    cause: FailureReason,
) -> Response<ClientBody> {
    if let Some(error) = in_flight.body_error().filter(|_| cause == FailureReason::BackendFailed) {
        let class = match error {
            BodyError::TooLarge | BodyError::HeaderMismatch => Outcome::ClientFault,
            BodyError::TimedOut | BodyError::Disconnected => Outcome::Neutral,
        };
        let requests = in_flight.request_ids();
        in_flight.finish(class);
        let response = match error {
            BodyError::HeaderMismatch => error_response::header_mismatch(requests.first()),
            _ => error_response::plain_text(error.status(), error.text()),
        };
        return response.map(ClientBody::Full);
    }
    let complete = match in_flight.request_body.take() {
        Some(request_body) => request_body.read_to_end().await,
        None => true,
    };
    let requests = in_flight.request_ids();
    // A body that was not read to its end may hold a request.
    let reported_cause =
        if complete || !requests.ids.is_empty() { cause } else { FailureReason::BackendFailed };
    let response = error_response::rpc_errors(&requests, reported_cause);
    match cause {
        FailureReason::Rollback => {
            requests.ids.iter().for_each(|_| in_flight.count_error_response());
            in_flight.finish(Outcome::Neutral);
        }
        FailureReason::OwnShortage => {
            in_flight.backend.outcomes.count_own_shortage();
            in_flight.finish(Outcome::Neutral);
        }
        FailureReason::BackendFailed
        | FailureReason::BackendUnreachable
        | FailureReason::NoRelease
        | FailureReason::SessionNotMoved => {
            in_flight.unreachable = cause == FailureReason::BackendUnreachable;
            if requests.ids.is_empty() {
                let is_mistake = !in_flight.unreachable && in_flight.has_invalid_body();
                in_flight.count_response(match is_mistake {
                    true => Outcome::ClientFault,
                    false => Outcome::ServerFault,
                });
            }
            in_flight.finish(Outcome::ServerFault);
        }
    }
    response.map(ClientBody::Full)
}

/// Whether the session that the release has lost can be reopened; if so, the next request does it.
pub(in crate::proxy) fn can_reopen(router: &Router, in_flight: &InFlight) -> bool {
    let session = in_flight.session.as_ref();
    session.is_some_and(|session| router.mark_session_lost(session, in_flight.generation))
}

/// Reads the error response to a GET or DELETE of a session: what was read of it, and whether the release has
/// lost the session. `None` when the release is cut meanwhile, or breaks the response.
pub(in crate::proxy) async fn read_refusal(
    in_flight: &mut InFlight,
    status: StatusCode,
    body: &mut ReleaseBody,
) -> Option<(VecDeque<Bytes>, bool)> {
    let mut ready = VecDeque::new();
    if !read_start(in_flight, body, &mut ready).await? {
        return Some((ready, false));
    }
    let body = joined(ready);
    let lost = in_flight.is_lost(&Method::GET, status, &body);
    Some((VecDeque::from([body]), lost))
}

/// Reads a body up to a limit into `ready`, and returns whether that is all of it. `None` when the
/// release is cut meanwhile, or breaks the response.
pub(in crate::proxy) async fn read_start(
    in_flight: &mut InFlight,
    body: &mut ReleaseBody,
    ready: &mut VecDeque<Bytes>,
) -> Option<bool> {
    let mut size = 0;
    while size < RESPONSE_BUFFERED_MAX {
        let Some(frame) = unless_left(in_flight, body.frame()).await? else { return Some(true) };
        if let Ok(data) = frame.ok()?.into_data() {
            size += data.len();
            ready.push_back(data);
        }
    }
    Some(false)
}
