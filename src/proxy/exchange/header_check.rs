//! The headers of 2026-07-28 that repeat what the body says, held against it.
//!
//! Whoever stands before the daemon may have let a request pass for its headers. So a request whose
//! body says something else goes nowhere: one of up to 64 KiB is not sent at all, and of a larger
//! one, whose beginning is on its way already, the piece that would complete it is withheld.

use std::borrow::Cow;
use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::mcp::message::Message;
use crate::model::Outcome;
use crate::proxy::backend::headers;
use crate::proxy::exchange::error_response;
use crate::proxy::exchange::error_response::ClientBody;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::exchange::request_body::RequestBody;

const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What the headers of a request say of its body.
#[derive(Debug)]
pub(in crate::proxy) struct ExpectedBody {
    methods: Vec<HeaderValue>,
    names: Vec<HeaderValue>,
}

impl ExpectedBody {
    /// `None` where they say nothing.
    pub(in crate::proxy) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let all = |name| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        let expected = Self { methods: all(MCP_METHOD), names: all(MCP_NAME) };
        let has_any = !(expected.methods.is_empty() && expected.names.is_empty());
        (has_any && headers::is_modern(headers)).then_some(expected)
    }

    /// Whether a message is what they say. A name that is too long to be known passes.
    pub(in crate::proxy) fn matches(&self, message: &Message) -> bool {
        let Some(method) = message.method.as_deref() else { return true };
        let takes_name = matches!(method, "tools/call" | "prompts/get" | "resources/read");
        let name = message.name.as_deref().filter(|_| takes_name);
        let agree = |headers: &[HeaderValue], text: &str| {
            let text = unescape_json(text);
            headers.iter().all(|it| decode_header(it).is_some_and(|said| said == text.as_bytes()))
        };
        agree(&self.methods, method) && name.is_none_or(|name| agree(&self.names, name))
    }
}

impl ProxyState {
    /// An error in place of a request whose headers say something else than its body; what is not
    /// known of it yet is looked at as it passes.
    pub(in crate::proxy) fn check_headers_match(
        &self,
        headers: &HeaderMap,
        request_body: &RequestBody,
    ) -> Option<Response<ClientBody>> {
        let expected = ExpectedBody::from_headers(headers)?;
        let parsed = request_body.parsed();
        let parsed = parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if parsed.messages.iter().all(|message| expected.matches(message)) {
            drop(parsed);
            request_body.set_expected(expected);
            return None;
        }
        let routes = self.routes.load();
        for message in parsed.messages.iter().filter(|message| message.id.is_some()) {
            let Some((active, method)) = routes.active().zip(message.method.as_deref()) else {
                continue;
            };
            let counters =
                active.outcomes.for_call(method, message.name.as_deref().unwrap_or_default());
            active.outcomes.count(Some(&counters), Outcome::ClientFault);
        }
        let (ids, _) = parsed.request_ids();
        Some(error_response::header_mismatch(ids.first().map(AsRef::as_ref)))
    }
}

/// A text as it stands in JSON, without its escapes.
fn unescape_json(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    serde_json::from_str(&format!("\"{text}\"")).map_or(text.into(), |text: String| text.into())
}

/// What a header says; `None` where its encoding is broken.
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

    fn matches_body(method: &'static str, name: &'static str, message: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(headers::MCP_PROTOCOL_VERSION, HeaderValue::from_static("2026-07-28"));
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
    fn headers_are_held_against_the_body() {
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
    fn a_request_of_the_handshake_era_says_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(MCP_METHOD, HeaderValue::from_static("x"));
        assert!(ExpectedBody::from_headers(&headers).is_none());
        headers.insert(headers::MCP_PROTOCOL_VERSION, HeaderValue::from_static("2025-11-25"));
        assert!(ExpectedBody::from_headers(&headers).is_none());
    }
}
