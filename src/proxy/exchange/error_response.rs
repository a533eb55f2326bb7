//! Error responses that the proxy makes itself.
//!
//! A client that waits for a response to its id hangs or fails on anything else. So an error is HTTP
//! 200 with a JSON-RPC error where the id is known. Exceptions: an ended session (404), headers that
//! do not match the body (400), and a body that the client did not send properly (408, 413).

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

/// The body of a response to a client.
#[derive(Debug)]
pub(in crate::proxy) enum ClientBody {
    /// All bytes are known.
    Full(Full<Bytes>),
    /// It streams from a release.
    Streaming(Box<ResponseBody>),
}

/// A JSON-RPC error for each of these ids; an array where the client sent a batch.
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

/// The session ended: the client must initialize again.
pub(in crate::proxy) fn session_not_found(id: Option<&str>) -> Response<ClientBody> {
    let body = rpc_error(id.unwrap_or("null"), -32600, "Session not found");
    json_response(StatusCode::NOT_FOUND, body)
}

/// The headers of a request do not match its body (2026-07-28).
pub(in crate::proxy) fn header_mismatch(id: Option<&str>) -> Response<ClientBody> {
    let text = "Header mismatch: Mcp-Method or Mcp-Name does not match the body";
    match id {
        Some(id) => json_response(StatusCode::BAD_REQUEST, rpc_error(id, -32020, text)),
        None => plain_text(StatusCode::BAD_REQUEST, text),
    }
}

/// The release that issued the `requestState` is gone: the client must start again.
pub(in crate::proxy) fn request_state_lost(id: Option<&str>) -> Response<ClientBody> {
    let text = "Invalid requestState: the release that issued it is gone; start again without it";
    match id {
        Some(id) => json_response(StatusCode::OK, rpc_error(id, -32602, text)),
        None => plain_text(StatusCode::BAD_REQUEST, text),
    }
}

fn rpc_error(id: &str, code: i64, text: &str) -> String {
    let error = json!({"code": code, "message": text});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// A plain text response.
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
