//! Answers to clients, and those that the proxy makes itself.
//!
//! A client that waits for the answer to its id hangs, or dies, on anything else than an answer to
//! its id: so an error of ours is HTTP 200 with a JSON-RPC error, wherever an id is known.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use serde_json::json;

use crate::mcp::messages;
use crate::mcp::messages::FailureReason;
use crate::proxy::exchange::response_body::ResponseBody;

/// The body of an answer to a client.
#[derive(Debug)]
pub(in crate::proxy) enum ClientBody {
    /// Known whole.
    Full(Full<Bytes>),
    /// Passing through.
    Streaming(Box<ResponseBody>),
}

/// The answer to a POST with these open ids; an array where a batch was asked.
pub(in crate::proxy) fn rpc_errors(
    ids: &[&str],
    batch: bool,
    cause: FailureReason,
) -> Response<ClientBody> {
    let bodies: Vec<_> = ids.iter().map(|id| messages::error_response(id, cause)).collect();
    match bodies.as_slice() {
        [] if cause == FailureReason::Rollback => plain_text(StatusCode::ACCEPTED, ""),
        [] => plain_text(StatusCode::BAD_GATEWAY, cause.message()),
        [one] if !batch => json_response(StatusCode::OK, one.clone()),
        many => json_response(StatusCode::OK, format!("[{}]", many.join(","))),
    }
}

/// The last resort: the session is over. The client has to initialize again.
pub(in crate::proxy) fn session_not_found(id: Option<&str>) -> Response<ClientBody> {
    let body = rpc_error(id.unwrap_or("null"), -32600, "Session not found");
    json_response(StatusCode::NOT_FOUND, body)
}

/// The headers of a request say something else than its body (2026-07-28).
pub(in crate::proxy) fn header_mismatch(id: Option<&str>) -> Response<ClientBody> {
    let text = "Header mismatch: Mcp-Method or Mcp-Name is not what the body says";
    match id {
        Some(id) => json_response(StatusCode::BAD_REQUEST, rpc_error(id, -32020, text)),
        None => plain_text(StatusCode::BAD_REQUEST, text),
    }
}

/// The release that sealed the state of this request is gone: the client has to begin again.
pub(in crate::proxy) fn request_state_lost(id: Option<&str>) -> Response<ClientBody> {
    let text = "Invalid requestState: the release that gave it is gone, begin again without it";
    match id {
        Some(id) => json_response(StatusCode::OK, rpc_error(id, -32602, text)),
        None => plain_text(StatusCode::BAD_REQUEST, text),
    }
}

fn rpc_error(id: &str, code: i64, text: &str) -> String {
    let error = json!({"code": code, "message": text});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// A short text.
pub(in crate::proxy) fn plain_text(status: StatusCode, text: &str) -> Response<ClientBody> {
    let newline = if text.is_empty() { "" } else { "\n" };
    let mut response = full_response(status, format!("{text}{newline}"));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json_response(status: StatusCode, body: String) -> Response<ClientBody> {
    let mut response = full_response(status, body);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn full_response(status: StatusCode, body: String) -> Response<ClientBody> {
    let mut response = Response::new(ClientBody::Full(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|it| it.map(|it| it.map_err(|never| match never {}))),
            Self::Streaming(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Streaming(body) => body.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Streaming(_) => SizeHint::new(),
        }
    }
}
