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

use crate::model::Class;

use super::answer::{self, Answer};
use super::front::Front;
use super::headers;
use super::message::Message;
use super::upload::Upload;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What the headers of a request say of its body.
#[derive(Debug)]
pub(super) struct Mirror {
    methods: Vec<HeaderValue>,
    names: Vec<HeaderValue>,
}

impl Mirror {
    /// `None` where they say nothing.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let all = |name| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        let it = Self { methods: all(METHOD), names: all(NAME) };
        let says = !(it.methods.is_empty() && it.names.is_empty());
        (says && headers::is_modern(headers)).then_some(it)
    }

    /// Whether a message is what they say. A name that is too long to be known passes.
    pub(super) fn fits(&self, message: &Message) -> bool {
        let Some(method) = message.method.as_deref() else { return true };
        let named = matches!(method, "tools/call" | "prompts/get" | "resources/read");
        let name = message.name.as_deref().filter(|_| named);
        let say = |headers: &[HeaderValue], text: &str| {
            let text = plain(text);
            headers.iter().all(|it| said(it).is_some_and(|said| said == text.as_bytes()))
        };
        say(&self.methods, method) && name.is_none_or(|name| say(&self.names, name))
    }
}

impl Front {
    /// An error in place of a request whose headers say something else than its body; what is not
    /// known of it yet is looked at as it passes.
    pub(super) fn mirrored(
        &self,
        headers: &HeaderMap,
        upload: &Upload,
    ) -> Option<Response<Answer>> {
        let mirror = Mirror::of(headers)?;
        let asked = upload.asked();
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.messages.iter().all(|message| mirror.fits(message)) {
            drop(asked);
            upload.expect(mirror);
            return None;
        }
        let routes = self.routes.load();
        for message in asked.messages.iter().filter(|message| message.id.is_some()) {
            let Some((active, method)) = routes.active().zip(message.method.as_deref()) else {
                continue;
            };
            let call = active.tally.call(method, message.name.as_deref().unwrap_or_default());
            active.tally.count(Some(&call), Class::ClientFault);
        }
        let (ids, _) = asked.ids();
        Some(answer::mismatch(ids.first().map(AsRef::as_ref)))
    }
}

/// A text as it stands in JSON, without its escapes.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    serde_json::from_str(&format!("\"{text}\"")).map_or(text.into(), |text: String| text.into())
}

/// What a header says; `None` where its encoding is broken.
fn said(value: &HeaderValue) -> Option<Cow<'_, [u8]>> {
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

    fn fits(method: &'static str, name: &'static str, message: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(headers::PROTOCOL, HeaderValue::from_static("2026-07-28"));
        headers.insert(METHOD, HeaderValue::from_static(method));
        if !name.is_empty() {
            headers.insert(NAME, HeaderValue::from_static(name));
        }
        let mirror = Mirror::of(&headers).unwrap();
        let mut found = Vec::new();
        super::super::scan::Scan::default().feed(message, |message| found.push(message));
        mirror.fits(&found[0])
    }

    #[test]
    fn headers_are_held_against_the_body() {
        let call = br#"{"id":1,"method":"tools/call","params":{"name":"a"}}"#;
        assert!(fits("tools/call", "", call));
        assert!(fits("tools/call", "a", call));
        assert!(!fits("tools/list", "a", call));
        assert!(!fits("tools/call", "b", call));
        assert!(!fits("Tools/Call", "a", call));
        assert!(fits("tools/list", "x", br#"{"id":1,"method":"tools/list"}"#));
        let read = br#"{"id":1,"method":"resources/read","params":{"uri":"x:\/\/\u0061"}}"#;
        assert!(fits("resources/read", "x://a", read));
    }

    #[test]
    fn encoded_names_are_decoded() {
        let call =
            "{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"größe\"}}".as_bytes();
        assert!(fits("tools/call", "=?base64?Z3LDtsOfZQ==?=", call));
        assert!(!fits("tools/call", "=?base64?Z3LDtsOf?=", call));
        assert!(!fits("tools/call", "=?base64?!?=", call));
    }

    #[test]
    fn a_request_of_the_handshake_era_says_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(METHOD, HeaderValue::from_static("x"));
        assert!(Mirror::of(&headers).is_none());
        headers.insert(headers::PROTOCOL, HeaderValue::from_static("2025-11-25"));
        assert!(Mirror::of(&headers).is_none());
    }
}
