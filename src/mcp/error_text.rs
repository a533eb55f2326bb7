//! Finds the error message of one response in the bytes of its body, for people.

use serde_json::Value;

use crate::mcp::message::same_id;

/// A longer body is not searched, in bytes.
const BODY_MAX: usize = 256 * 1024;
/// Characters of a message that are kept.
const TEXT_MAX: usize = 1_000;
/// A shorter argument, in characters, is no secret, and occurs in any text.
const ARGUMENT_MIN: usize = 3;
/// A server may shorten an argument: this many of its first characters are enough to find it.
const ARGUMENT_START: usize = 32;
/// Arguments that are looked for.
const ARGUMENTS_MAX: usize = 100;
/// What stands in place of an argument.
const ARGUMENT: &str = "[argument]";
/// What stands in place of a message whose arguments are too many to look for.
const TOO_MANY_ARGUMENTS: &str = "(not kept: the call has over 100 arguments to mask)";

/// The whole message of the response with this id: `error.message`, or the first text of a tool's error.
/// The body is JSON, or server-sent events. `None` where it is not complete.
pub(crate) fn error_text(body: &[u8], id: &str) -> Option<String> {
    let body = std::str::from_utf8(body).ok().filter(|it| it.len() <= BODY_MAX)?;
    if let Ok(value) = serde_json::from_str(body) {
        return find(&value, id);
    }
    body.lines().find_map(|line| {
        let data = line.strip_prefix("data:")?;
        find(&serde_json::from_str(data.trim()).ok()?, id)
    })
}

fn find(value: &Value, id: &str) -> Option<String> {
    if let Some(batch) = value.as_array() {
        return batch.iter().find_map(|it| find(it, id));
    }
    if !same_id(&value.get("id")?.to_string(), id) {
        return None;
    }
    let text = match value.get("error") {
        Some(error) => error.get("message")?.as_str()?,
        None => {
            let content = value.get("result")?.get("content")?.as_array()?;
            content.iter().find_map(|it| it.get("text")?.as_str())?
        }
    };
    Some(text.to_owned())
}

/// The start of the text without the arguments of the call with this id, which the client's body has: an
/// error often repeats them, and they belong to the user.
pub(crate) fn without_arguments(text: &str, client_body: &[u8], id: &str) -> String {
    let mut arguments = Vec::new();
    if let Ok(value) = &serde_json::from_slice::<Value>(client_body) {
        let request = match value.as_array() {
            Some(batch) => {
                let is_it =
                    |it: &&Value| it.get("id").is_some_and(|it| same_id(&it.to_string(), id));
                batch.iter().find(is_it)
            }
            None => Some(value),
        };
        let params = request.and_then(|it| it.get("params"));
        if let Some(given) = params.and_then(|it| it.get("arguments")) {
            collect(given, &mut arguments);
        }
    }
    if arguments.len() > ARGUMENTS_MAX {
        return TOO_MANY_ARGUMENTS.to_owned();
    }
    // The longest first: one can be part of another.
    arguments.sort_by_key(|it| std::cmp::Reverse(it.len()));
    let masked = arguments.iter().fold(text.to_owned(), |text, it| without(&text, it));
    // Cut at last: a part of an argument would not be found.
    without_input_value(&masked).chars().take(TEXT_MAX).collect()
}

/// The texts and numbers in a value, and one more than are looked for at most.
fn collect(value: &Value, into: &mut Vec<String>) {
    if into.len() > ARGUMENTS_MAX {
        return;
    }
    match value {
        Value::String(text) if text.chars().count() >= ARGUMENT_MIN => into.push(text.clone()),
        Value::Number(number) if number.to_string().len() >= ARGUMENT_MIN => {
            into.push(number.to_string());
        }
        Value::Array(items) => items.iter().for_each(|it| collect(it, into)),
        Value::Object(fields) => fields.values().for_each(|it| collect(it, into)),
        _ => (),
    }
}

/// The text without an argument, whole or shortened.
fn without(text: &str, argument: &str) -> String {
    let start_end = argument.char_indices().nth(ARGUMENT_START).map_or(argument.len(), |it| it.0);
    let start = argument.get(..start_end).unwrap_or(argument);
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, _)) = rest.split_once(start) {
        let found = rest.get(before.len()..).unwrap_or_default();
        let same = found.chars().zip(argument.chars()).take_while(|(a, b)| a == b);
        let length = same.map(|(it, _)| it.len_utf8()).sum();
        out.push_str(before);
        out.push_str(ARGUMENT);
        rest = found.get(length..).unwrap_or_default();
    }
    out + rest
}

/// pydantic, which FastMCP checks arguments with, repeats them as `input_value=..., input_type=`.
fn without_input_value(text: &str) -> String {
    let (start, end) = ("input_value=", ", input_type=");
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(start) {
        let tail = after.find(end).map_or("", |at| after.get(at..).unwrap_or_default());
        out.push_str(before);
        out.push_str(start);
        out.push_str(ARGUMENT);
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_the_right_response_is_found() {
        let json = br#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":"KeyError: 'region'"}}]"#;
        assert_eq!(error_text(json, "2").as_deref(), Some("KeyError: 'region'"));
        assert_eq!(error_text(json, "1"), None);
        let events = b"event: message\ndata: {\"id\":\"a\",\"result\":{\"isError\":true,\"content\":[{\"type\":\"image\"},{\"type\":\"text\",\"text\":\"down\"}]}}\n\n";
        assert_eq!(error_text(events, "\"a\"").as_deref(), Some("down"));
        for broken in [&b"{\"id\":2,\"error\":{\"mess"[..], b"\xff", b"", b"[[[]]]", b"7"] {
            assert_eq!(error_text(broken, "2"), None);
        }
        let long = format!(r#"{{"id":2,"error":{{"message":"{}"}}}}"#, "x".repeat(5_000));
        assert_eq!(error_text(long.as_bytes(), "2").map(|it| it.len()), Some(5_000));
    }

    #[test]
    fn arguments_do_not_pass() {
        let body = br#"{"id":2,"params":{"name":"forecast","arguments":{"city":"Berlin Mitte","at":[{"zip":10115}],"n":7}}}"#;
        let text = "no station near Berlin Mitte (10115), 7 tried";
        assert_eq!(
            without_arguments(text, body, "2"),
            "no station near [argument] ([argument]), 7 tried"
        );
        assert_eq!(without_arguments(text, b"", "2"), text);
        let pydantic = "Field required [type=missing, input_value={'city': 'X'}, input_type=dict] a \
                        input_value=secret";
        assert_eq!(
            without_arguments(pydantic, b"{", "2"),
            "Field required [type=missing, input_value=[argument], input_type=dict] a \
             input_value=[argument]"
        );
    }

    #[test]
    fn long_and_many_arguments_do_not_pass_either() {
        let body = |arguments: Value| {
            let call = serde_json::json!({"id": 2, "params": {"arguments": arguments}});
            call.to_string().into_bytes()
        };
        // The text is cut after it is masked.
        let long = "geheim ".repeat(1_000);
        let text = format!("cannot read {long}, sorry");
        let masked = without_arguments(&text, &body(serde_json::json!({"text": long})), "2");
        assert_eq!(masked, "cannot read [argument], sorry");
        // The server shortened it, at any place.
        let shortened = format!("cannot read '{}...': sorry", &long[..100]);
        let masked = without_arguments(&shortened, &body(serde_json::json!([long])), "2");
        assert_eq!(masked, "cannot read '[argument]...': sorry");
        let many: Vec<_> = (0..101).map(|it| format!("secret-{it}")).collect();
        let masked = without_arguments("not secret-100", &body(serde_json::json!(many)), "2");
        assert_eq!(masked, TOO_MANY_ARGUMENTS);
        let masked = without_arguments("not secret-99", &body(serde_json::json!(many[..100])), "2");
        assert_eq!(masked, "not [argument]");
        let masked = without_arguments(&"x".repeat(5_000), b"{}", "2");
        assert_eq!(masked.len(), TEXT_MAX);
    }
}
