//! Handles a POST of a client with the HTTP+SSE transport (2024-11-05): the release that holds the
//! stream of its session gets it and accepts it, and answers on the stream.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::mcp::messages::FailureReason;
use crate::mcp::outcome;
use crate::model::Outcome;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::headers;
use crate::proxy::backend::pool::SendError;
use crate::proxy::exchange::client_body::ClientBody;
use crate::proxy::exchange::error_response::{plain_text, session_not_found};
use crate::proxy::exchange::in_flight::ExchangeKind;
use crate::proxy::exchange::pace::BodyLimits;
use crate::proxy::exchange::parsed_body::{ParsedBody, lock_parsed};
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::exchange::sse_sessions::SseSession;
use crate::proxy::exchange::state::{ProxyState, head_for_release};
use crate::proxy::routing::router::Route;
use crate::proxy::routing::view::RoutingView;

/// The body of the response to a POST: servers send a word, or the reason of a refusal.
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
        let read = RequestBody::read(body, BodyLimits::of(&view.service.limits)).await;
        let request_body = match read {
            Ok(request_body) => request_body,
            Err(error) => return plain_text(error.status(), error.text()).map(ClientBody::Full),
        };
        if let Some(refusal) = self.check_new_session(request, &request_body) {
            return refusal.map(ClientBody::Full);
        }
        let backend = &session.backend;
        let parsed = request_body.parsed();
        if !backend.is_open() {
            let requests = lock_parsed(&parsed).request_ids();
            return session_not_found(requests.first()).map(ClientBody::Full);
        }
        cancel_requests(session, &lock_parsed(&parsed));
        let mut route = Route::new(Arc::clone(backend), None);
        route.counted = view.assignment.as_ref().and_then(|assignment| {
            let client = assignment.of_client(request);
            assignment.counted((client, client), backend.number)
        });
        let mut call = self.start_in_flight(view, &mut route, ExchangeKind::Call, parsed);
        call.client_body = request_body.buffered().cloned();
        // The answer may come before the response to the POST.
        let number = session.add(call);
        let head = head_for_release(view, &route, request);
        let sending = backend.send(Request::from_parts(head, request_body.to_backend_body()));
        let sent = tokio::select! {
            sent = tokio::time::timeout(view.service.limits.deadline, sending) => sent,
            // The end of the stream tells the client.
            () = backend.cut.cancelled() => return accepted(),
        };
        match sent.unwrap_or(Err(SendError::Unanswered { was_reused: false })) {
            Ok(response) => {
                let status = response.status();
                if status.is_success() {
                    session.accepted(number);
                } else if let Some(mut call) = session.take(number) {
                    call.finish(outcome::from_status(status));
                }
                request_body.discard_rest();
                relayed(response).await
            }
            Err(error) => {
                refuse(session, number, error.reason());
                accepted()
            }
        }
    }
}

/// A client that cancels a request waits for no answer.
fn cancel_requests(session: &SseSession, parsed: &ParsedBody) {
    let cancellations = parsed.messages.iter().filter(|it| it.id.is_none());
    cancellations.filter_map(|it| it.request_id.as_deref()).for_each(|id| session.cancel(id));
}

/// The client waits for the answer on the stream: it gets the error there.
fn refuse(session: &SseSession, number: u64, reason: FailureReason) {
    let Some(mut call) = session.take(number) else { return };
    session.send_errors(&mut call, reason);
    call.unreachable = reason == FailureReason::BackendUnreachable;
    if reason == FailureReason::OwnShortage {
        session.backend.outcomes.count_own_shortage();
        call.finish(Outcome::Neutral);
    } else {
        call.finish(Outcome::ServerFault);
    }
}

fn accepted() -> Response<ClientBody> {
    plain_text(StatusCode::ACCEPTED, "Accepted").map(ClientBody::Full)
}

async fn relayed(response: Response<Incoming>) -> Response<ClientBody> {
    let (mut head, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    head.version = http::Version::HTTP_11;
    let body = Limited::new(body, RESPONSE_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    head.headers.remove(http::header::CONTENT_LENGTH);
    Response::from_parts(head, ClientBody::Full(body.into()))
}
