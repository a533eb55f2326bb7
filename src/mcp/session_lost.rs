//! Whether a response means that the server no longer knows a session.
//!
//! The specification requires 404 for any request of an ended session. Servers also send 404 when
//! they offer no stream (GET) or do not let clients end a session (DELETE); modern servers send it
//! for an unknown JSON-RPC method. Many send 400 or 401, and only the text shows the cause. So 404
//! to a POST is enough, unless the body answers the request itself. Every other status needs one of
//! the [`TEXTS`] that real servers send, at the start of the message. A text that only mentions a
//! session does not count.

use http::Method;
use serde_json::Value;

use super::jsonrpc::{
    INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, SERVER_ERROR, SESSION_NOT_FOUND,
};
use super::lenient_json;

/// The longest text that is compared when the body is not JSON-RPC; a longer one is an HTML page.
const TEXT_MAX: usize = 200;

/// The beginnings of such texts, in lower case, without the [`STATUS_WORDS`] that some servers put
/// before them. After one of them the message ends, or continues after a punctuation mark.
const TEXTS: &[&str] = &[
    "session not found",
    "session terminated",
    "session has been terminated",
    "session is closing",
    "session id is required",
    "session id missing",
    "missing session id",
    "unknown session",
    "unknown session id",
    "invalid session",
    "invalid session id",
    "invalid or expired session id",
    "invalid or missing session id",
    "no valid session id",
    "no valid session id provided",
    "mcp-session-id header is required",
    "server not initialized",
    "unexpected message, expect initialize request",
];

/// The words for the HTTP status.
const STATUS_WORDS: &[&str] = &["bad request: ", "not found: ", "unauthorized: "];

/// What the body of a response contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseContent {
    /// A JSON-RPC error.
    Error {
        /// Its code.
        code: i64,
        /// Its message.
        message: String,
    },
    /// A JSON-RPC result.
    Result,
    /// Anything else.
    Text(String),
}

/// A response, with the facts about its request that matter.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The HTTP method of the request.
    pub method: &'a Method,
    /// Whether the request belongs to an open session, and is not `initialize`.
    pub in_session: bool,
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub content: &'a ResponseContent,
}

impl ResponseContent {
    /// Reads a whole body.
    pub fn of(body: &[u8]) -> Self {
        let Ok(value) = lenient_json::parse(body) else {
            return Self::text(&String::from_utf8_lossy(body));
        };
        let error = value.get("error");
        let within = |name| error.and_then(|error| error.get(name));
        let message = within("message").or(error).and_then(Value::as_str).unwrap_or_default();
        match within("code").and_then(Value::as_i64) {
            Some(code) => Self::Error { code, message: message.to_owned() },
            None if value.get("result").is_some() => Self::Result,
            None => Self::text(value.as_str().unwrap_or(message)),
        }
    }

    fn text(text: &str) -> Self {
        Self::Text(if text.len() <= TEXT_MAX { text.to_owned() } else { String::new() })
    }
}

/// Whether the server no longer knows the session, so that it must be opened again.
pub fn session_lost(answer: &Answered<'_>) -> bool {
    // A client that ends a session does not open another one in its place.
    if !answer.in_session || *answer.method == Method::DELETE {
        return false;
    }
    match (answer.status, answer.content) {
        (_, ResponseContent::Result) => false,
        // A call with a wrong argument, an unknown method, or a body that is not JSON-RPC.
        (
            _,
            ResponseContent::Error {
                code: PARSE_ERROR | METHOD_NOT_FOUND | INVALID_PARAMS, ..
            },
        ) => false,
        (404, ResponseContent::Text(_)) if *answer.method == Method::POST => true,
        (
            404,
            ResponseContent::Error {
                code: SERVER_ERROR | SESSION_NOT_FOUND | INVALID_REQUEST, ..
            },
        ) if *answer.method == Method::POST => true,
        // A login has sessions, too; its errors use other words, or JSON.
        (401, ResponseContent::Text(text)) => text.starts_with("Unauthorized: ") && names_it(text),
        (
            400 | 404 | 410 | 422,
            ResponseContent::Error { message: text, .. } | ResponseContent::Text(text),
        ) => names_it(text),
        _ => false,
    }
}

fn names_it(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let bare = STATUS_WORDS.iter().find_map(|words| text.strip_prefix(words));
    let bare = bare.unwrap_or(&text);
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '.', ',', ';', '!', '(']);
    TEXTS.iter().any(|it| bare.strip_prefix(it).is_some_and(ends))
}

#[cfg(test)]
#[path = "session_lost_tests.rs"]
mod tests;
