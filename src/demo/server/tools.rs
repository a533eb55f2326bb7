//! The tools of the server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::demo::server::message::{RpcError, RpcMessage};

/// The key in `_meta` of a result for the version of the server.
pub const VERSION_KEY: &str = "rollbackd.demo/version";

/// The tool that the fault of one tool is about.
pub(super) const WEATHER: &str = "weather";

/// Longest time that the tool `slow` takes.
const SLOW_MAX: Duration = Duration::from_secs(10);

/// The result of `tools/list`, without one of the tools.
pub(crate) fn list_tools(without: Option<&str>) -> Value {
    let tool = |name: &str, does: &str, argument: &str, kind: &str| {
        json!({
            "name": name,
            "description": does,
            "inputSchema": {
                "type": "object",
                "properties": { argument: { "type": kind } },
                "required": [argument],
            },
            "annotations": { "readOnlyHint": true, "idempotentHint": true },
        })
    };
    let all = [
        tool("echo", "Says the message again.", "message", "string"),
        tool(WEATHER, "Tells the weather of a city.", "city", "string"),
        tool("slow", "Answers after so many milliseconds.", "ms", "integer"),
    ];
    all.into_iter().filter(|tool| without.is_none_or(|name| tool["name"] != name)).collect()
}

/// Whether the response to a call of this tool is a stream, if the client accepts one.
pub(crate) fn is_streamed(tool: &str) -> bool {
    matches!(tool, WEATHER | "slow")
}

/// The result of a call.
///
/// # Errors
/// -32602 if there is no such tool. A wrong argument is a result: the model can correct it.
pub(crate) async fn call_tool(message: &RpcMessage, version: &str) -> Result<Value, RpcError> {
    let argument = |name: &str| message.params.get("arguments").and_then(|all| all.get(name));
    let text = |name: &str| argument(name).and_then(Value::as_str);
    let output = match message.string_param("name") {
        Some("echo") => text("message").map(str::to_owned),
        Some(WEATHER) => text("city").map(|city| weather(city, version)),
        Some("slow") => match argument("ms").and_then(Value::as_u64) {
            Some(ms) => {
                let wait = Duration::from_millis(ms).min(SLOW_MAX);
                sleep(wait).await;
                Some(format!("done after {} ms", wait.as_millis()))
            }
            None => None,
        },
        other => {
            let why = format!("unknown tool {:?}", other.unwrap_or_default());
            return Err(RpcError::new(200, -32602, why));
        }
    };
    Ok(output.map_or_else(
        || tool_result(version, "a required argument is missing or of the wrong type", true),
        |output| tool_result(version, &output, false),
    ))
}

/// The result of a call that failed inside the tool.
pub(crate) fn failed_call(version: &str) -> Value {
    tool_result(version, "the weather service did not respond", true)
}

fn weather(city: &str, version: &str) -> String {
    // Invented, but always the same for a city.
    let degrees = city.bytes().map(u32::from).sum::<u32>() % 30;
    format!("{city}: {degrees} °C and dry, says {version}")
}

fn tool_result(version: &str, text: &str, is_error: bool) -> Value {
    json!({
        "content": [{ "type": "text", "text": text }],
        "isError": is_error,
        "_meta": { VERSION_KEY: version },
    })
}
