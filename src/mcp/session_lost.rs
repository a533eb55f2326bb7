//! Whether an answer says that the release does not know a session any more.
//!
//! The specification wants 404 to any request of an ended session. Servers also use 404 where they
//! have no stream (GET) or do not let clients end a session (DELETE), and modern ones for an unknown
//! JSON-RPC method; and many say 400, or 401, and only the text tells. So: 404 to a POST is enough
//! unless the body answers the request itself; all else needs one of the texts that servers were
//! seen to give, as the beginning of the whole message. A text that only mentions a session is none.

use http::Method;
use serde_json::Value;

/// Bytes of a text that is no JSON-RPC; a longer one is a page for people.
const TEXT_MAX: usize = 200;

/// How texts begin that say it: without the words for the status that some put before, in lower
/// case. After one of them the message is over, or goes on behind a punctuation mark.
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

/// The words for the status.
const STATUS_WORDS: &[&str] = &["bad request: ", "not found: ", "unauthorized: "];

/// What the body of an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
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

/// An answer, and to what.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The HTTP method of the request.
    pub method: &'a Method,
    /// Whether the request was made in a session that is open, and does not open one.
    pub in_session: bool,
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub said: &'a Said,
}

impl Said {
    /// Reads a whole body.
    pub fn of(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
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

/// Whether the release does not know the session any more, so that it has to be opened anew.
pub fn session_lost(answer: &Answered<'_>) -> bool {
    // Who ends a session opens none in its place.
    if !answer.in_session || *answer.method == Method::DELETE {
        return false;
    }
    match (answer.status, answer.said) {
        (_, Said::Result) => false,
        // Of a call with a wrong argument, of an unknown method, or of what is no JSON-RPC.
        (_, Said::Error { code: -32700 | -32601 | -32602, .. }) => false,
        (404, Said::Text(_)) if *answer.method == Method::POST => true,
        (404, Said::Error { code: -32000 | -32001 | -32600, .. })
            if *answer.method == Method::POST =>
        {
            true
        }
        // A login may have sessions, too; theirs end in other words, or in JSON.
        (401, Said::Text(text)) => text.starts_with("Unauthorized: ") && says_so(text),
        (400 | 404 | 410 | 422, Said::Error { message: text, .. } | Said::Text(text)) => {
            says_so(text)
        }
        _ => false,
    }
}

fn says_so(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let bare = STATUS_WORDS.iter().find_map(|words| text.strip_prefix(words));
    let bare = bare.unwrap_or(&text);
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '.', ',', ';', '!', '(']);
    TEXTS.iter().any(|it| bare.strip_prefix(it).is_some_and(ends))
}

#[cfg(test)]
#[path = "session_lost_tests.rs"]
mod tests;
