//! Whether a request breaks JSON-RPC or the protocol, so that its failure says nothing about the server.
//!
//! Servers answer such requests with anything: -32603, status 500, 202, or a closed connection. The
//! check runs only on requests that failed.

use serde_json::{Map, Value};

use super::methods;

/// The levels of `logging/setLevel`.
const LOG_LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// The largest integer that each JSON reader keeps exactly (RFC 8259, section 6).
const ID_MAX: u64 = 1 << 53;

/// Whether a body is no JSON that every server reads (RFC 8259: UTF-8, no NaN, numbers within a double,
/// at most 128 levels), or holds a message that breaks the protocol.
pub(crate) fn is_invalid(body: &[u8]) -> bool {
    match serde_json::from_slice(body) {
        Ok(Value::Array(batch)) => batch.is_empty() || batch.iter().any(is_invalid_message),
        Ok(message) => is_invalid_message(&message),
        Err(_) => true,
    }
}

fn is_invalid_message(message: &Value) -> bool {
    let Some(message) = message.as_object() else { return true };
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0")
        || message.get("id").is_some_and(|id| !is_valid_id(id))
    {
        return true;
    }
    let Some(method) = message.get("method") else {
        return !(message.contains_key("result") || message.contains_key("error"));
    };
    let Some(method) = method.as_str() else { return true };
    match message.get("params") {
        None => !fits(method, &Map::new()),
        Some(Value::Object(params)) => !fits(method, params),
        Some(_) => true,
    }
}

/// A string, or an integer (MCP, Base Protocol).
fn is_valid_id(id: &Value) -> bool {
    let is_exact = |id: &Value| {
        id.as_i64().map(i64::unsigned_abs).or_else(|| id.as_u64()).is_some_and(|it| it <= ID_MAX)
    };
    id.is_string() || is_exact(id)
}

/// Whether the parameters of a known method have the types of the schema.
fn fits(method: &str, params: &Map<String, Value>) -> bool {
    let text = |name| params.get(name).is_some_and(Value::is_string);
    let object = |name| params.get(name).is_some_and(Value::is_object);
    let optional = |name, is: fn(&Value) -> bool| params.get(name).is_none_or(is);
    let has_names = |name, fields: &[&str]| {
        let value = params.get(name).and_then(Value::as_object);
        value.is_some_and(|it| fields.iter().all(|key| it.get(*key).is_some_and(Value::is_string)))
    };
    let specific = match method {
        methods::INITIALIZE => {
            text("protocolVersion")
                && object("capabilities")
                && has_names("clientInfo", &["name", "version"])
        }
        methods::TOOLS_CALL => text("name") && optional("arguments", Value::is_object),
        methods::PROMPTS_GET => {
            let values = params.get("arguments").and_then(Value::as_object);
            text("name")
                && optional("arguments", Value::is_object)
                && values.is_none_or(|it| it.values().all(Value::is_string))
        }
        "resources/read" | methods::RESOURCES_SUBSCRIBE | methods::RESOURCES_UNSUBSCRIBE => {
            text("uri")
        }
        methods::SET_LEVEL => {
            let level = params.get("level").and_then(Value::as_str);
            level.is_some_and(|level| LOG_LEVELS.contains(&level))
        }
        "completion/complete" => {
            has_names("ref", &["type"]) && has_names("argument", &["name", "value"])
        }
        "tasks/get" | "tasks/result" | "tasks/cancel" => text("taskId"),
        _ if method.ends_with("/list") => optional("cursor", Value::is_string),
        _ => true,
    };
    specific && optional("_meta", Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
    }

    #[test]
    fn what_the_protocol_allows_is_valid() {
        for body in [
            r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","method":"notifications/x"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":0,"result":{}}"#.to_owned(),
            call("tools/call", r#"{"name":"x"}"#),
            call("tools/call", r#"{"name":"x","arguments":{"a":[1.5e3,null]},"_meta":{}}"#),
            call("prompts/get", r#"{"name":"x","arguments":{"a":"b"}}"#),
            call("logging/setLevel", r#"{"level":"warning"}"#),
            call("x/unknown", r#"{"name":5}"#),
            call("tools/list", "{}"),
            format!("[{}]", call("ping", "{}")),
        ] {
            assert!(!is_invalid(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn what_no_server_has_to_take_is_invalid() {
        let deep = format!(
            "{{\"name\":\"x\",\"arguments\":{{\"a\":{}{}}}}}",
            "[".repeat(500),
            "]".repeat(500)
        );
        let long = format!("{{\"name\":\"x\",\"arguments\":{{\"a\":{}}}}}", "9".repeat(5000));
        for body in [
            String::new(),
            "{".to_owned(),
            "[]".to_owned(),
            "5".to_owned(),
            "\u{feff}{}".to_owned(),
            r#"{"id":1,"method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":99999999999999999999,"method":"ping"}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":NaN}"#.to_owned(),
            call("ping", "[]"),
            call("tools/call", r#"{"name":"\ud800"}"#),
            call("tools/call", "{}"),
            call("tools/call", r#"{"name":"x","arguments":"y"}"#),
            call("tools/list", r#"{"cursor":5}"#),
            call("logging/setLevel", r#"{"level":"nosuch"}"#),
            call("resources/read", r#"{"uri":5}"#),
            call("initialize", r#"{"protocolVersion":"2025-11-25"}"#),
            call("tools/call", &deep),
            call("tools/call", &long),
        ] {
            assert!(is_invalid(body.as_bytes()), "{body}");
        }
        assert!(is_invalid(
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{\"a\":\"\xff\"}}"
        ));
    }
}
