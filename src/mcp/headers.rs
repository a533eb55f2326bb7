//! The HTTP headers and media types of MCP.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::model::Era;

/// The session of a legacy request.
pub(crate) const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The protocol version of a request.
pub(crate) const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The method of a modern request, as in its body.
pub(crate) const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The tool, prompt or resource of a modern request, as in its body.
pub(crate) const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The event after which a client resumes a stream.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The media type of JSON.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// What a client accepts as the response to a POST.
pub(crate) const JSON_OR_EVENT_STREAM: HeaderValue =
    HeaderValue::from_static("application/json, text/event-stream");

/// Whether a request is of a modern version, by its header.
pub(crate) fn is_modern(headers: &HeaderMap) -> bool {
    let version = headers.get(MCP_PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
    version.is_some_and(|version| Era::of(version) == Era::Modern)
}

/// Whether a body consists of server-sent events.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("text/event-stream")
}

/// Whether a body consists of server-sent events that can be read.
pub(crate) fn is_readable_stream(headers: &HeaderMap) -> bool {
    is_event_stream(headers) && !is_compressed(headers)
}

/// Whether a body is compressed, so that nothing can be read from it.
pub(crate) fn is_compressed(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.into_iter().any(|it| !it.is_empty() && !it.as_bytes().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stream_is_known_by_its_media_type() {
        let is_stream = |value| {
            let value = HeaderValue::from_static(value);
            is_event_stream(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        assert!(is_stream("text/event-stream") && is_stream("Text/Event-Stream; charset=utf-8"));
        assert!(!is_stream("text/event-streamx") && !is_stream("application/json"));
    }
}
