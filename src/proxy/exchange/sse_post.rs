//! Handles a POST of a client with the HTTP+SSE transport (2024-11-05): the release that holds the
//! stream of its session gets it and accepts it, and answers on the stream.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::clock::monotonic;
use crate::mcp::messages::FailureReason;
use crate::mcp::outcome;
use crate::model::Outcome;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::headers;
use crate::proxy::backend::pool::SendError;
use crate::proxy::exchange::body_limits::BodyLimits;
use crate::proxy::exchange::client_body::ClientBody;
use crate::proxy::exchange::error_response::{plain_text, session_not_found};
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::parsed_body::{ParsedBody, lock_parsed};
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::exchange::response::respond_with_error;
use crate::proxy::exchange::sse_call::SseCall;
use crate::proxy::exchange::sse_sessions::SseSession;
use crate::proxy::exchange::state::{ProxyState, head_for_release};
use crate::proxy::routing::router::Route;
use crate::proxy::routing::view::RoutingView;

/// The bytes of the response to a POST: servers send a word, or the reason of a refusal.
const RESPONSE_MAX: usize = 64 * 1024;

impl ProxyState {
    /// Handles a POST of this session.
    pub(super) async fn handle_sse_post(
        self: &Arc<Self>,
        view: &RoutingView,
        request: &Arc<ClientRequest>,
        body: Incoming,
        session: &SseSession,
    ) -> Response<ClientBody> {
        let read = RequestBody::read(body, BodyLimits::of(&view.service.limits, request)).await;
        let request_body = match read {
            Ok(request_body) => request_body,
            Err(error) => return plain_text(error.status(), error.text()).map(ClientBody::Full),
        };
        let backend = &session.backend;
        let parsed = request_body.parsed();
        if !backend.is_open() {
            let requests = lock_parsed(&parsed).request_ids();
            return session_not_found(requests.first()).map(ClientBody::Full);
        }
        cancel_requests(session, &lock_parsed(&parsed));
        let mut route = Route::new(Arc::clone(backend), None);
        route.counted = Some(self.router.counted_client(view, request, true, backend));
        let mut in_flight = self.start_in_flight(view, &mut route, ExchangeKind::Call, parsed);
        in_flight.client_body = request_body.buffered().cloned();
        // The answer may come before the response to the POST.
        let call = SseCall::start(session, in_flight);
        let head = head_for_release(view, &route, request);
        let sending = backend.send(Request::from_parts(head, request_body.to_backend_body()));
        let until = monotonic() + view.service.limits.deadline;
        let sent = tokio::select! {
            sent = timeout_at(until, sending) => sent,
            () = backend.cut.cancelled() => {
                call.leave_to_stream();
                return accepted();
            }
        };
        match sent.unwrap_or(Err(SendError::Unanswered { was_reused: false })) {
            Ok(response) => {
                request_body.discard_rest();
                relayed(call, response, until).await
            }
            Err(error) => refused(session, call, request_body, error.reason()).await,
        }
    }
}

/// A client that cancels a request waits for no answer.
fn cancel_requests(session: &SseSession, parsed: &ParsedBody) {
    let cancellations = parsed.messages.iter().filter(|it| it.id.is_none());
    cancellations.filter_map(|it| it.request_id.as_deref()).for_each(|id| session.cancel(id));
}

/// The response where the release did not take the POST. The client waits for the answers on the stream,
/// and gets the errors there. Where it sent no request, or not its whole body, the status tells it.
async fn refused(
    session: &SseSession,
    call: SseCall<'_>,
    request_body: RequestBody,
    reason: FailureReason,
) -> Response<ClientBody> {
    let Some(mut in_flight) = call.take() else { return accepted() };
    if reason == FailureReason::BackendFailed && in_flight.body_error().is_some() {
        return respond_with_error(in_flight, reason).await;
    }
    // Many clients write the id last.
    request_body.read_to_end().await;
    if in_flight.request_ids().ids.is_empty() {
        return respond_with_error(in_flight, reason).await;
    }
    session.send_errors(&mut in_flight, reason);
    in_flight.unreachable = reason == FailureReason::BackendUnreachable;
    if reason == FailureReason::OwnShortage {
        session.backend.outcomes.count_own_shortage();
        in_flight.finish(Outcome::Neutral);
    } else {
        in_flight.finish(Outcome::ServerFault);
    }
    accepted()
}

fn accepted() -> Response<ClientBody> {
    plain_text(StatusCode::ACCEPTED, "Accepted").map(ClientBody::Full)
}

/// The response of the release, with what of its body arrived in time: the status says what counts.
async fn relayed(
    call: SseCall<'_>,
    response: Response<Incoming>,
    until: Instant,
) -> Response<ClientBody> {
    let (mut head, body) = response.into_parts();
    let refused: Option<InFlight> = if head.status.is_success() {
        call.accepted();
        None
    } else {
        call.take()
    };
    headers::strip_hop_by_hop(&mut head.headers);
    head.version = http::Version::HTTP_11;
    let body = timeout_at(until, Limited::new(body, RESPONSE_MAX).collect()).await;
    let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    if let Some(mut in_flight) = refused {
        in_flight.set_failure_status(head.status, &body);
        in_flight.finish(outcome::from_status(head.status));
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(head, ClientBody::Full(body.into()))
}
