//! The JSON-RPC messages that the proxy creates, as text.

use serde_json::{Value, json};

use super::{jsonrpc, versions};

/// Why the proxy answers in place of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureReason {
    /// The service switched to another release while the request was open.
    Rollback,
    /// The backend did not finish its response: it may have executed the request.
    BackendFailed,
    /// The backend accepted no connection: nothing was sent.
    BackendUnreachable,
    /// This host is short of files, ports or memory: nothing was sent.
    OwnShortage,
    /// No release is active.
    NoRelease,
    /// The session could not be migrated to the active release.
    SessionNotMoved,
}

impl FailureReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::BackendFailed | Self::BackendUnreachable => "upstream",
            Self::OwnShortage => "overloaded",
            Self::NoRelease => "no_release",
            Self::SessionNotMoved => "session_not_moved",
        }
    }

    fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::BackendUnreachable | Self::OwnShortage | Self::NoRelease | Self::SessionNotMoved
        )
    }

    /// The error text that the client receives.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Rollback => {
                "The request was interrupted: the service switched to another release"
            }
            Self::BackendFailed => "The backend did not respond",
            Self::BackendUnreachable => {
                "The backend accepts no connection: the request was not sent; retry"
            }
            Self::OwnShortage => {
                "The proxy is short of files or memory: the request was not sent; retry later"
            }
            Self::NoRelease => "No release of this service is active",
            Self::SessionNotMoved => {
                "The session could not be migrated to the active release yet; retry"
            }
        }
    }
}

/// The JSON-RPC error for one request. `id` is JSON, as the client wrote it.
pub(crate) fn error_response(id: &str, reason: FailureReason) -> String {
    // Only a request that never reached a release is safe to send again.
    let data = json!({"reason": reason.as_str(), "retryable": reason.is_retryable()});
    jsonrpc::error(id, jsonrpc::INTERNAL_ERROR, reason.message(), Some(data))
}

/// The warning for a client whose GET stream is about to close. `release_switched`: because its
/// release stops serving; otherwise because the proxy restarts.
pub(crate) fn stream_closing_warning(release_switched: bool) -> String {
    let data = match release_switched {
        true => {
            "The service switched to another release; this stream closes, reconnect to continue"
        }
        false => "The proxy restarts; this stream closes, reconnect to continue",
    };
    let params = json!({"level": "warning", "logger": "rollbackd", "data": data});
    jsonrpc::notification_with("notifications/message", &params).to_string()
}

/// A notification with the machine-readable reason. Clients that do not know it ignore it.
pub(crate) fn session_closing_notification(reason: &str) -> String {
    let method = "notifications/rollbackd/session_closing";
    jsonrpc::notification_with(method, &json!({"reason": reason})).to_string()
}

/// The notification that a list changed: `tools`, `prompts` or `resources`. In a modern stream it
/// names the subscription.
pub(crate) fn list_changed(list: &str, subscription: Option<&Value>) -> String {
    let method = format!("notifications/{list}/list_changed");
    let message = match subscription {
        Some(id) => {
            let params = json!({"_meta": {versions::META_SUBSCRIPTION_ID: id}});
            jsonrpc::notification_with(&method, &params)
        }
        None => jsonrpc::notification(&method),
    };
    message.to_string()
}

/// The graceful end of a `subscriptions/listen` stream (2026-07-28).
pub(crate) fn listen_result(id: &str) -> String {
    let key = versions::META_SUBSCRIPTION_ID;
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"{key}":{id}}}}}}}"#
    )
}
