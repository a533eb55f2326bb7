//! JSON-RPC messages that the proxy makes itself, as text.

use serde_json::json;

/// Why the proxy answers for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureReason {
    /// The release was left while the request was open.
    Rollback,
    /// The release could not be reached, or did not finish its answer.
    BackendFailed,
    /// No release has the traffic.
    NoRelease,
    /// The session could not be brought to the release that took over.
    SessionNotMoved,
}

impl FailureReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::BackendFailed => "upstream",
            Self::NoRelease => "no_release",
            Self::SessionNotMoved => "session_not_moved",
        }
    }

    fn is_retryable(self) -> bool {
        matches!(self, Self::NoRelease | Self::SessionNotMoved)
    }

    /// What the client is told.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Rollback => "The service moved to another release while this request was open",
            Self::BackendFailed => "The service did not answer",
            Self::NoRelease => "No release of this service is in charge",
            Self::SessionNotMoved => "The session could not be moved to the release in charge yet",
        }
    }
}

/// The JSON-RPC error for one request. `id` is JSON, as the client wrote it.
pub(crate) fn error_response(id: &str, reason: FailureReason) -> String {
    // A request that never reached a release may be sent again; of others nobody can know.
    let data = json!({"reason": reason.as_str(), "retryable": reason.is_retryable()});
    let error = json!({"code": -32603, "message": reason.message(), "data": data});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// The warning for a client that listens on a GET stream which is about to end.
pub(crate) fn stream_closing_warning(rolled_back: bool) -> String {
    let data = match rolled_back {
        true => "The service moved to its previous release; this stream ends, reconnect to go on",
        false => "The proxy is started again; this stream ends, reconnect to go on",
    };
    let params = json!({"level": "warning", "logger": "rollbackd", "data": data});
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).to_string()
}

/// A notice of ours that says the same to those who look for it; others pass over it.
pub(crate) fn session_closing_notification(reason: &str) -> String {
    let params = json!({"reason": reason});
    let method = "notifications/rollbackd/session_closing";
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

/// The graceful end of a `subscriptions/listen` stream (2026-07-28).
pub(crate) fn listen_result(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
    )
}
