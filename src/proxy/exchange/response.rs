//! From the head of a release's answer to a POST, to the answer that the client gets.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, header, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::mcp::message::Message;
use crate::mcp::messages::FailureReason;
use crate::mcp::scan::MessageScanner;
use crate::mcp::sse::SseReader;
use crate::mcp::{outcome, ttl_clamp};
use crate::model::Outcome;
use crate::proxy::backend::headers;
use crate::proxy::exchange::error_response::ClientBody;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::request_body::BodyError;
use crate::proxy::exchange::response_body::{BodyParser, ResponseBody};
use crate::proxy::exchange::resumable_stream::Replay;
use crate::proxy::exchange::subscription::Subscription;
use crate::proxy::exchange::{error_response, id_rewrite};
use crate::proxy::session::{ReplayDecision, replay_decision};

/// A JSON answer up to this size is read before its head is passed on, so that a release that
/// fails or is left in the middle still leads to an answer for the client's id.
pub(in crate::proxy) const ANSWER_AHEAD_MAX: usize = 64 * 1024;

/// How a stream goes on when its release is left in the middle.
pub(in crate::proxy) struct OnReleaseLeft {
    /// A request is asked again.
    pub replay: Option<Replay>,
    /// It listens at the next release.
    pub subscription: Option<Box<Subscription>>,
}

/// A POST whose release was left before the client saw anything of an answer.
pub(in crate::proxy) struct Interrupted {
    /// What was asked.
    pub in_flight: InFlight,
    /// Whether the release may have done it.
    pub sent: bool,
    /// What happened.
    pub cause: FailureReason,
}

impl Interrupted {
    /// What becomes of it.
    pub(in crate::proxy) fn replay_decision(&self) -> ReplayDecision {
        replay_decision(self.sent, self.in_flight.is_idempotent(), false)
    }
}

/// Waits for `work`; `None` when the release is left first. Requests become overdue meanwhile.
pub(in crate::proxy) async fn unless_left<T>(
    in_flight: &mut InFlight,
    work: impl Future<Output = T>,
) -> Option<T> {
    let cut = in_flight.backend.cut.clone();
    let mut work = std::pin::pin!(work);
    let mut release_cut = std::pin::pin!(cut.cancelled());
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(done) = work.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(done));
        }
        in_flight.poll_timer(cx);
        release_cut.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Passes the answer to a POST on, as it comes. An error when the release is left first.
pub(in crate::proxy) async fn relay(
    state: &Arc<ProxyState>,
    mut head: response::Parts,
    body: Incoming,
    mut in_flight: InFlight,
    on_release_left: OnReleaseLeft,
) -> Result<Response<ClientBody>, Interrupted> {
    if headers::is_compressed(&head.headers) {
        return Ok(streamed(head, VecDeque::new(), body, BodyParser::Unparsed, in_flight));
    }
    if headers::is_event_stream(&head.headers) {
        // The proxy may have to add to them.
        head.headers.remove(header::CONTENT_LENGTH);
        in_flight.request_body = None;
        let reader = BodyParser::Events(SseReader::new());
        let response_body =
            ResponseBody::new(VecDeque::new(), body, reader, head.status, in_flight);
        let response_body =
            response_body.with_session_events(state).with_on_release_left(on_release_left);
        return Ok(Response::from_parts(head, ClientBody::Streaming(Box::new(response_body))));
    }
    let (mut scanner, mut ready, mut size) = (MessageScanner::default(), VecDeque::new(), 0);
    // They count when they are on their way: until then the answer may still be one of ours.
    let mut responses = Vec::new();
    let mut body = body;
    // A stream that listens is not waited for: servers were seen to send it without events.
    let limit = if in_flight.kind() == ExchangeKind::Subscription { 0 } else { ANSWER_AHEAD_MAX };
    while size < limit {
        match unless_left(&mut in_flight, body.frame()).await {
            None => {
                return Err(Interrupted { in_flight, sent: true, cause: FailureReason::Rollback });
            }
            Some(None) => {
                let body = joined(ready);
                in_flight.lost = in_flight.is_lost(&Method::POST, head.status, &body);
                if in_flight.lost && state.forgot(&in_flight) {
                    // The release refused to do it.
                    return Err(Interrupted {
                        in_flight,
                        sent: false,
                        cause: FailureReason::BackendFailed,
                    });
                }
                return Ok(buffered(state, head, body, &responses, in_flight).await);
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
    responses.iter().for_each(|message| in_flight.on_message(head.status, message));
    Ok(streamed(head, ready, body, BodyParser::Json(scanner), in_flight))
}

/// An answer that was read to its end.
async fn buffered(
    state: &ProxyState,
    head: response::Parts,
    body: Bytes,
    responses: &[Message],
    mut in_flight: InFlight,
) -> Response<ClientBody> {
    responses.iter().for_each(|message| in_flight.on_message(head.status, message));
    let unanswered = !in_flight.pending_ids().is_empty();
    if unanswered && head.status.is_success() {
        return respond_with_error(in_flight, FailureReason::BackendFailed).await;
    }
    // Not for its id, but the status tells enough: an unknown session, a wrong method.
    let lost = in_flight.lost_a_live_one();
    in_flight.finish(if lost { Outcome::ServerFault } else { outcome::from_status(head.status) });
    let mut head = head;
    head.headers.remove(header::CONTENT_LENGTH);
    let body = match in_flight.initialize_body.take().and_then(|initialize_body| {
        let (body, result) = id_rewrite::rewrite_initialize_response(&body)
            .filter(|_| in_flight.session.is_some())?;
        state.session_opened(&in_flight, &initialize_body, &result);
        Some(body)
    }) {
        Some(body) => body,
        None if in_flight.clamp_ttl => ttl_clamp::clamp_ttl(&body).map_or(body, Bytes::from),
        None => body,
    };
    Response::from_parts(head, ClientBody::Full(Full::new(body)))
}

/// Pieces in one.
pub(in crate::proxy) fn joined(pieces: VecDeque<Bytes>) -> Bytes {
    match pieces.len() {
        0 | 1 => pieces.into_iter().next().unwrap_or_default(),
        _ => pieces.into_iter().flatten().collect(),
    }
}

pub(in crate::proxy) fn streamed(
    head: response::Parts,
    ready: VecDeque<Bytes>,
    body: Incoming,
    reader: BodyParser,
    mut in_flight: InFlight,
) -> Response<ClientBody> {
    in_flight.request_body = None;
    let status = head.status;
    let response_body = ResponseBody::new(ready, body, reader, status, in_flight);
    Response::from_parts(head, ClientBody::Streaming(Box::new(response_body)))
}

/// An answer of ours for every id that waits.
pub(in crate::proxy) async fn respond_with_error(
    mut in_flight: InFlight,
    cause: FailureReason,
) -> Response<ClientBody> {
    if let Some(error) = in_flight.body_error().filter(|_| cause == FailureReason::BackendFailed) {
        let class = match error {
            BodyError::TooLarge | BodyError::HeaderMismatch => Outcome::ClientFault,
            BodyError::TimedOut | BodyError::Disconnected => Outcome::Neutral,
        };
        let (ids, _) = in_flight.request_ids();
        in_flight.finish(class);
        if error == BodyError::HeaderMismatch {
            return error_response::header_mismatch(ids.first().map(AsRef::as_ref));
        }
        return error_response::plain_text(error.status(), error.text());
    }
    let complete = match in_flight.request_body.take() {
        Some(request_body) => request_body.read_to_end().await,
        None => true,
    };
    let (ids, batch) = in_flight.request_ids();
    // What is not known to be a notification can not be taken for one.
    let reported_cause =
        if complete || !ids.is_empty() { cause } else { FailureReason::BackendFailed };
    let refs: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
    let response = error_response::rpc_errors(&refs, batch, reported_cause);
    match cause {
        FailureReason::Rollback => {
            ids.iter().for_each(|_| in_flight.backend.count_error_response());
            in_flight.finish(Outcome::Neutral);
        }
        FailureReason::BackendFailed
        | FailureReason::NoRelease
        | FailureReason::SessionNotMoved => {
            if ids.is_empty() {
                in_flight.count_response(Outcome::ServerFault);
            }
            in_flight.finish(Outcome::ServerFault);
        }
    }
    response
}
