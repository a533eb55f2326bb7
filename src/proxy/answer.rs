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

use super::download::Download;
use super::notice::{self, Cause};

/// The body of an answer to a client.
#[derive(Debug)]
pub(super) enum Answer {
    /// Known whole.
    Full(Full<Bytes>),
    /// Passing through.
    Passing(Box<Download>),
}

/// The answer to a POST with these open ids; an array where a batch was asked.
pub(super) fn errors(ids: &[&str], batch: bool, cause: Cause) -> Response<Answer> {
    let bodies: Vec<_> = ids.iter().map(|id| notice::error(id, cause)).collect();
    match bodies.as_slice() {
        [] if cause == Cause::Rollback => plain(StatusCode::ACCEPTED, ""),
        [] => plain(StatusCode::BAD_GATEWAY, cause.text()),
        [one] if !batch => json_body(StatusCode::OK, one.clone()),
        many => json_body(StatusCode::OK, format!("[{}]", many.join(","))),
    }
}

/// The last resort: the session is over. The client has to initialize again.
pub(super) fn session_over(id: Option<&str>) -> Response<Answer> {
    let body = rpc_error(id.unwrap_or("null"), -32600, "Session not found");
    json_body(StatusCode::NOT_FOUND, body)
}

/// The headers of a request say something else than its body (2026-07-28).
pub(super) fn mismatch(id: Option<&str>) -> Response<Answer> {
    let text = "Header mismatch: Mcp-Method or Mcp-Name is not what the body says";
    match id {
        Some(id) => json_body(StatusCode::BAD_REQUEST, rpc_error(id, -32020, text)),
        None => plain(StatusCode::BAD_REQUEST, text),
    }
}

/// The release that sealed the state of this request is gone: the client has to begin again.
pub(super) fn state_lost(id: Option<&str>) -> Response<Answer> {
    let text = "Invalid requestState: the release that gave it is gone, begin again without it";
    match id {
        Some(id) => json_body(StatusCode::OK, rpc_error(id, -32602, text)),
        None => plain(StatusCode::BAD_REQUEST, text),
    }
}

fn rpc_error(id: &str, code: i64, text: &str) -> String {
    let error = json!({"code": code, "message": text});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// A short text.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Answer> {
    let newline = if text.is_empty() { "" } else { "\n" };
    let mut response = full(status, format!("{text}{newline}"));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn json_body(status: StatusCode, body: String) -> Response<Answer> {
    let mut response = full(status, body);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn full(status: StatusCode, body: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Full(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response
}

impl Body for Answer {
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
            Self::Passing(download) => download.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Passing(download) => download.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Passing(_) => SizeHint::new(),
        }
    }
}
