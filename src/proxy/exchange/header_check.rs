//! Compares the headers of 2026-07-28 that repeat parts of the body with the body.
//!
//! A gateway in front of the proxy may authorize a request by its headers. So the proxy rejects a
//! request whose body differs. It does not send a body of up to 64 KiB at all. Of a larger one, whose
//! start is already sent, it withholds the piece that would complete it.
//!
//! Readers of JSON differ: in keys that are repeated, escaped or spelled in another case, and in what
//! they take for JSON at all. So such a request must be one message that every reader takes for the
//! same.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderValue};

use crate::mcp::headers::{MCP_METHOD, MCP_NAME};
use crate::mcp::message::Message;
use crate::mcp::methods;

/// What the headers of a request promise about its body.
#[derive(Debug)]
pub(in crate::proxy) struct ExpectedBody {
    methods: Vec<HeaderValue>,
    names: Vec<HeaderValue>,
}

impl ExpectedBody {
    /// `None` when the headers promise nothing. The version in `MCP-Protocol-Version` does not matter: a
    /// server may read it from the body, and a gateway may not look at it.
    pub(in crate::proxy) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let all = |name| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        let expected = Self { methods: all(MCP_METHOD), names: all(MCP_NAME) };
        let has_any = !(expected.methods.is_empty() && expected.names.is_empty());
        has_any.then_some(expected)
    }

    /// Whether a message matches.
    pub(in crate::proxy) fn matches(&self, message: &Message) -> bool {
        let Some(method) = message.method.as_deref() else { return false };
        if message.is_ambiguous || method.contains('\\') {
            return false;
        }
        let agree = |headers: &[HeaderValue], text: &str| {
            let text = unescape_json(text);
            headers.iter().all(|it| decode_header(it).is_some_and(|value| value == text.as_bytes()))
        };
        let name_agrees = match message.name.as_deref() {
            _ if !methods::has_name_header(method) => true,
            Some(name) => agree(&self.names, name),
            None => self.names.is_empty(),
        };
        agree(&self.methods, method) && name_agrees
    }
}

/// The content of a JSON string, with its escapes decoded.
fn unescape_json(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    serde_json::from_str(&format!("\"{text}\"")).map_or(text.into(), |text: String| text.into())
}

/// The decoded value of a header; `None` when its encoding is invalid.
fn decode_header(value: &HeaderValue) -> Option<Cow<'_, [u8]>> {
    let bytes = value.as_bytes();
    let encoded = bytes.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?="));
    match encoded {
        Some(encoded) => BASE64.decode(encoded).ok().map(Cow::Owned),
        None => Some(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::headers::MCP_PROTOCOL_VERSION;

    fn matches_body(method: &'static str, name: &'static str, message: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(MCP_PROTOCOL_VERSION, HeaderValue::from_static("2026-07-28"));
        headers.insert(MCP_METHOD, HeaderValue::from_static(method));
        if !name.is_empty() {
            headers.insert(MCP_NAME, HeaderValue::from_static(name));
        }
        let expected = ExpectedBody::from_headers(&headers).unwrap();
        let mut messages = Vec::new();
        crate::mcp::scan::MessageScanner::default().feed(message, |message| messages.push(message));
        expected.matches(&messages[0])
    }

    #[test]
    fn headers_are_compared_with_the_body() {
        let call = br#"{"id":1,"method":"tools/call","params":{"name":"a"}}"#;
        assert!(matches_body("tools/call", "", call));
        assert!(matches_body("tools/call", "a", call));
        assert!(!matches_body("tools/list", "a", call));
        assert!(!matches_body("tools/call", "b", call));
        assert!(!matches_body("Tools/Call", "a", call));
        assert!(matches_body("tools/list", "x", br#"{"id":1,"method":"tools/list"}"#));
        let read = br#"{"id":1,"method":"resources/read","params":{"uri":"x:\/\/\u0061"}}"#;
        assert!(matches_body("resources/read", "x://a", read));
    }

    #[test]
    fn encoded_names_are_decoded() {
        let call =
            "{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"größe\"}}".as_bytes();
        assert!(matches_body("tools/call", "=?base64?Z3LDtsOfZQ==?=", call));
        assert!(!matches_body("tools/call", "=?base64?Z3LDtsOf?=", call));
        assert!(!matches_body("tools/call", "=?base64?!?=", call));
    }

    #[test]
    fn what_readers_take_differently_does_not_match() {
        let bodies: [&[u8]; 11] = [
            br#"{"id":1,"method":"tools/call","params":{"name":"safe","name":"wipe"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"name":"safe","n\u0061me":"wipe"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"n\u0061me":"wipe"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"name":"safe","Name":"wipe"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"name":"safe"},"params":{"name":"wipe"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"name":"safe"},"p\u0061rams":{"name":"wipe"}}"#,
            "{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"safe\"},\"param\u{17f}\":{}}"
                .as_bytes(),
            br#"{"id":1,"method":"tools/call","m\u0065thod":"x","params":{"name":"safe"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"name":"wipe","uri":"safe"}}"#,
            br#"{"id":1,"method":"tools/call","params":{"arguments":{"name":"safe"}}}"#,
            br#"{"id":1,"params":{"name":"safe"}}"#,
        ];
        for body in bodies {
            let text = String::from_utf8_lossy(body);
            assert!(!matches_body("tools/call", "safe", body), "{text}");
        }
        let long = format!(
            r#"{{"id":1,"method":"tools/call","params":{{"name":"{}"}}}}"#,
            "w".repeat(600)
        );
        assert!(!matches_body("tools/call", "safe", long.as_bytes()));
        assert!(!matches_body(
            "tools/call",
            "safe",
            b"{\"method\":\"tools/call\",\"params\":{\"name\":\"safe\xff\"}}"
        ));
        let read = br#"{"id":1,"method":"resources\/read","params":{"name":"safe","uri":"wipe"}}"#;
        assert!(!matches_body("resources/read", "safe", read));
        let php = br#"{"id":1,"method":"tools\/call","params":{"name":"safe","uri":"x"}}"#;
        assert!(matches_body("tools/call", "safe", php));
    }

    #[test]
    fn headers_are_compared_in_every_version_of_the_protocol() {
        let mut headers = HeaderMap::new();
        assert!(ExpectedBody::from_headers(&headers).is_none());
        headers.insert(MCP_METHOD, HeaderValue::from_static("x"));
        assert!(ExpectedBody::from_headers(&headers).is_some());
        headers.insert(MCP_PROTOCOL_VERSION, HeaderValue::from_static("2025-11-25"));
        assert!(ExpectedBody::from_headers(&headers).is_some());
    }
}
