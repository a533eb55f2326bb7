//! Error responses that the proxy makes itself.
//!
//! A client that waits for a response to its id hangs or fails on anything else. So an error is HTTP
//! 200 with a JSON-RPC error where the id is known. Exceptions: an ended session (404), headers that
//! do not match the body (400), a body that the client did not send properly (408, 413), and a client
//! address over its bounds (429).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use crate::mcp::headers::JSON;
use crate::mcp::messages::FailureReason;
use crate::mcp::{jsonrpc, messages};
use crate::proxy::exchange::cors::OwnResponse;
use crate::proxy::exchange::parsed_body::RequestIds;
use crate::proxy::routing::router::RouteError;

/// A JSON-RPC error for each of these requests; an array where the client sent a batch.
pub(in crate::proxy) fn rpc_errors(
    requests: &RequestIds,
    cause: FailureReason,
) -> Response<Full<Bytes>> {
    let bodies: Vec<_> =
        requests.ids.iter().map(|id| messages::error_response(id, cause)).collect();
    match bodies.as_slice() {
        [] if cause == FailureReason::Rollback => plain_text(StatusCode::ACCEPTED, ""),
        [] => plain_text(StatusCode::BAD_GATEWAY, cause.message()),
        [one] if !requests.batch => json_response(StatusCode::OK, one.clone()),
        many => json_response(StatusCode::OK, format!("[{}]", many.join(","))),
    }
}

/// The response to a request that no release gets.
pub(in crate::proxy) fn not_routed(
    error: RouteError,
    requests: &RequestIds,
) -> Response<Full<Bytes>> {
    match error {
        RouteError::SessionEnded | RouteError::NotOwner => session_not_found(requests.first()),
        RouteError::NoRelease => rpc_errors(requests, FailureReason::NoRelease),
        RouteError::NotMigrated => rpc_errors(requests, FailureReason::SessionNotMoved),
        RouteError::Discarded => plain_text(StatusCode::ACCEPTED, ""),
        RouteError::AlreadyEnded => plain_text(StatusCode::OK, ""),
        RouteError::StateOwnerGone => request_state_lost(requests.first()),
        RouteError::CredentialsRejected(response) => *response,
    }
}

/// The session ended: the client must initialize again.
pub(in crate::proxy) fn session_not_found(id: Option<&str>) -> Response<Full<Bytes>> {
    let body =
        jsonrpc::error(id.unwrap_or("null"), jsonrpc::INVALID_REQUEST, "Session not found", None);
    json_response(StatusCode::NOT_FOUND, body)
}

/// The headers of a request do not match its body (2026-07-28).
pub(in crate::proxy) fn header_mismatch(id: Option<&str>) -> Response<Full<Bytes>> {
    let text = "Header mismatch: Mcp-Method or Mcp-Name does not match the body";
    match id {
        Some(id) => {
            let body = jsonrpc::error(id, jsonrpc::HEADER_MISMATCH, text, None);
            json_response(StatusCode::BAD_REQUEST, body)
        }
        None => plain_text(StatusCode::BAD_REQUEST, text),
    }
}

/// A client address is over a bound. Nothing was sent to a release.
pub(in crate::proxy) fn too_many(text: &str, id: Option<&str>) -> Response<Full<Bytes>> {
    match id {
        Some(id) => {
            let data = json!({"reason": "too_many", "retryable": true});
            let body = jsonrpc::error(id, jsonrpc::INTERNAL_ERROR, text, Some(data));
            json_response(StatusCode::TOO_MANY_REQUESTS, body)
        }
        None => plain_text(StatusCode::TOO_MANY_REQUESTS, text),
    }
}

/// The release that issued the `requestState` is gone: the client must start again.
pub(in crate::proxy) fn request_state_lost(id: Option<&str>) -> Response<Full<Bytes>> {
    let text = "Invalid requestState: the release that issued it is gone; start again without it";
    match id {
        Some(id) => {
            let body = jsonrpc::error(id, jsonrpc::INVALID_PARAMS, text, None);
            json_response(StatusCode::OK, body)
        }
        None => plain_text(StatusCode::BAD_REQUEST, text),
    }
}

/// A plain text response.
pub(in crate::proxy) fn plain_text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let newline = if text.is_empty() { "" } else { "\n" };
    let mut response = full_response(status, format!("{text}{newline}"));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json_response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = full_response(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn full_response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.extensions_mut().insert(OwnResponse);
    *response.status_mut() = status;
    response
}
