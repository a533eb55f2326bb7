//! JSON-RPC 2.0: the envelopes of messages, and the error codes.

use serde_json::{Value, json};

/// The body is not JSON.
pub(crate) const PARSE_ERROR: i64 = -32700;
/// The message is not a valid request.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// The server does not know the method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are not valid.
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// The server failed.
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// A code that servers use for several errors of the transport.
pub(crate) const SERVER_ERROR: i64 = -32000;
/// The code for an unknown session in the TypeScript SDK.
pub(crate) const SESSION_NOT_FOUND: i64 = -32001;
/// The server does not know the resource.
pub(crate) const RESOURCE_NOT_FOUND: i64 = -32002;
/// The headers do not match the body (2026-07-28).
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// The client lacks a capability that the request needs (2026-07-28).
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// The server does not support the protocol version (2026-07-28).
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
/// The client must open a URL first (2025-11-25).
pub(crate) const URL_ELICITATION_REQUIRED: i64 = -32042;
/// The client cancelled its request.
pub(crate) const REQUEST_CANCELLED: i64 = -32800;
/// The user declined the request.
pub(crate) const USER_DECLINED: i64 = -1;

/// The content of a JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorBody {
    /// Its code; 0 if it has none.
    pub(crate) code: i64,
    /// Its message; empty if it has none.
    pub(crate) message: String,
}

/// A request.
pub(crate) fn request(id: &Value, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// A notification without parameters.
pub(crate) fn notification(method: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": method})
}

/// A notification.
pub(crate) fn notification_with(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// An error response. `id` is JSON, as the client wrote it.
pub(crate) fn error(id: &str, code: i64, message: &str, data: Option<Value>) -> String {
    let mut error = json!({"code": code, "message": message});
    if let (Some(data), Some(fields)) = (data, error.as_object_mut()) {
        fields.insert("data".to_owned(), data);
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// Whether a message is the response to a request. An error without an id counts: a server that
/// could not read the id still answers the only request on the exchange.
pub(crate) fn answers(message: &Value, id: &Value) -> bool {
    match message.get("id") {
        Some(found) if found == id => {
            message.get("result").is_some() || message.get("error").is_some()
        }
        None | Some(Value::Null) => message.get("error").is_some_and(Value::is_object),
        Some(_) => false,
    }
}

/// The result in a response, or its error.
pub(crate) fn into_result(mut response: Value) -> Result<Value, ErrorBody> {
    if let Some(error) = response.get("error").filter(|error| !error.is_null()) {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        return Err(ErrorBody { code, message: message.to_owned() });
    }
    Ok(response.get_mut("result").map(Value::take).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_response_answers_a_request() {
        let id = json!("a-1");
        assert!(answers(&json!({"id": "a-1", "result": {}}), &id));
        assert!(answers(&json!({"id": "a-1", "error": {"code": 1}}), &id));
        assert!(answers(&json!({"id": null, "error": {"code": 1}}), &id));
        assert!(!answers(&json!({"id": "a-1", "method": "ping"}), &id));
        assert!(!answers(&json!({"id": 1, "result": {}}), &id));
        assert!(!answers(&json!({"method": "notifications/message"}), &id));
    }

    #[test]
    fn an_error_keeps_the_id_as_written() {
        let text = error(r#""\u0061""#, INTERNAL_ERROR, "no", Some(json!({"retryable": true})));
        assert!(text.starts_with(r#"{"jsonrpc":"2.0","id":"\u0061","error":{"#), "{text}");
        let error = into_result(serde_json::from_str(&text).unwrap()).unwrap_err();
        assert_eq!(error, ErrorBody { code: INTERNAL_ERROR, message: "no".to_owned() });
        assert_eq!(into_result(json!({"id": 1, "result": 7})), Ok(json!(7)));
    }
}
