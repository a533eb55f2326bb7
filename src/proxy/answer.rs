//! Answers that the proxy makes itself.
//!
//! A client that waits for the answer to its id hangs, or dies, on anything else than an answer to
//! its id: so an error of ours is HTTP 200 with a JSON-RPC error, wherever an id is known.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use super::download::Answer;

/// Why the proxy answers for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The release was left while the request was open.
    Rollback,
    /// The release could not be reached, or did not finish its answer.
    Upstream,
    /// No release has the traffic.
    NoRelease,
}

impl Cause {
    fn reason(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Upstream => "upstream",
            Self::NoRelease => "no_release",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Rollback => "The service moved to another release while this request was open",
            Self::Upstream => "The service did not answer",
            Self::NoRelease => "No release of this service is in charge",
        }
    }
}

/// The JSON-RPC error for one request. `id` is JSON, as the client wrote it.
pub(super) fn error(id: &str, cause: Cause) -> String {
    // A request that never reached a release may be sent again; of others nobody can know.
    let data = json!({"reason": cause.reason(), "retryable": cause == Cause::NoRelease});
    let error = json!({"code": -32603, "message": cause.text(), "data": data});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// The answer to a POST with these open ids; an array where a batch was asked.
pub(super) fn errors(ids: &[&str], batch: bool, cause: Cause) -> Response<Answer> {
    let bodies: Vec<_> = ids.iter().map(|id| error(id, cause)).collect();
    match bodies.as_slice() {
        [] if cause == Cause::Rollback => plain(StatusCode::ACCEPTED, ""),
        [] => plain(StatusCode::BAD_GATEWAY, cause.text()),
        [one] if !batch => json_body(StatusCode::OK, one.clone()),
        many => json_body(StatusCode::OK, format!("[{}]", many.join(","))),
    }
}

/// The last resort: the session is over. The client has to initialize again.
pub(super) fn session_over(id: Option<&str>) -> Response<Answer> {
    let (id, error) =
        (id.unwrap_or("null"), json!({"code": -32600, "message": "Session not found"}));
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
    json_body(StatusCode::NOT_FOUND, body)
}

/// A short text.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Answer> {
    let newline = if text.is_empty() { "" } else { "\n" };
    let mut response = full(status, format!("{text}{newline}"));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The warning for a client that listens on a GET stream which is about to end.
pub(super) fn closing() -> String {
    let data = "The service moved to its previous release; this stream ends, reconnect to go on";
    let params = json!({"level": "warning", "logger": "rollbackd", "data": data});
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).to_string()
}

/// The graceful end of a `subscriptions/listen` stream (2026-07-28).
pub(super) fn listen_over(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
    )
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
