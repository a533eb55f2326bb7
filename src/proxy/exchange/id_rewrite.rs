//! Rewrites the parts of a response that mean something else to the client than to the release.
//!
//! The response to `initialize` advertises list changes, since the proxy sends them when a session
//! moves. After a move, event ids, request ids of the server and the ids in cancellations get the
//! generation of the session as a prefix: servers count both from zero, and a late response could
//! match a request of the next release. A reopened subscription does not acknowledge again. On trial,
//! [`ttl_clamp`] shortens the time for which clients may cache a response. An event over 16 MiB passes
//! unchanged.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::Value;

use crate::mcp::capabilities::advertise_list_changed;
use crate::mcp::sse_splitter::{SseEvent, SseSplitter};
use crate::mcp::{lenient_json, sse_splitter, ttl_clamp};

/// The prefix of an id with a generation.
const GENERATION_PREFIX: &str = "rollbackd~";

/// Rewrites the events of one stream.
#[derive(Debug)]
pub(crate) struct Rewriter {
    splitter: SseSplitter,
    generation: u32,
    initialize: bool,
    /// The client has already received the acknowledgement of its subscription.
    suppress_ack: bool,
    /// The client may cache the response for a short time only.
    clamp_ttl: bool,
    /// The result of `initialize`, once it has passed.
    pub(crate) initialize_result: Option<Value>,
}

impl Rewriter {
    /// For a stream of this generation; `initialize` if it holds the response to `initialize`. `None`
    /// when nothing has to be rewritten.
    pub(crate) fn new(generation: u32, initialize: bool) -> Option<Self> {
        let splitter = SseSplitter::default();
        let (suppress_ack, clamp_ttl, result) = (false, false, None);
        let rewriter = Self {
            splitter,
            generation,
            initialize,
            suppress_ack,
            clamp_ttl,
            initialize_result: result,
        };
        (generation > 0 || initialize).then_some(rewriter)
    }

    /// For a `subscriptions/listen` stream that started at another release.
    pub(crate) fn suppressing_ack() -> Self {
        Self { suppress_ack: true, ..Self::inactive() }
    }

    /// For responses of a release on trial that clients may cache.
    pub(crate) fn clamping_ttl() -> Self {
        Self { clamp_ttl: true, ..Self::inactive() }
    }

    fn inactive() -> Self {
        let splitter = SseSplitter::default();
        let (generation, initialize, suppress_ack) = (0, false, false);
        Self {
            splitter,
            generation,
            initialize,
            suppress_ack,
            clamp_ttl: false,
            initialize_result: None,
        }
    }

    /// Rewrites these bytes. It holds an event back until it is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Bytes {
        let mut splitter = std::mem::take(&mut self.splitter);
        let mut out = Vec::new();
        splitter.feed(bytes, |block| match block {
            SseEvent::Whole(block) => self.rewrite_event(&block, &mut out),
            SseEvent::Fragment(piece) => out.extend(piece),
        });
        self.splitter = splitter;
        out.into()
    }

    /// The number of bytes that wait for the end of their event.
    pub(crate) fn incomplete_bytes(&self) -> usize {
        self.splitter.buffered()
    }

    /// Whether what it returned so far ends with a whole event.
    pub(crate) fn at_event_boundary(&self) -> bool {
        self.splitter.at_event_boundary()
    }

    /// The bytes of an incomplete event when the stream ends.
    pub(crate) fn take_rest(&mut self) -> Bytes {
        self.splitter.take_rest().into()
    }

    fn rewrite_event(&mut self, event: &[u8], out: &mut Vec<u8>) {
        if self.clamp_ttl {
            return write_clamped_event(event, out);
        }
        let encode_ids = self.generation > 0;
        let message = sse_splitter::parse_message(event);
        let method = message.as_ref().and_then(|it| it.get("method")).and_then(Value::as_str);
        if self.suppress_ack && method == Some("notifications/subscriptions/acknowledged") {
            self.suppress_ack = false;
            return;
        }
        let rewritten = message.and_then(|message| self.rewrite_message(message));
        let has_id = encode_ids && sse_splitter::fields(event).any(|(name, _)| name == "id");
        if rewritten.is_none() && !has_id {
            out.extend(event);
            return;
        }
        for (name, value) in sse_splitter::fields(event) {
            let line = match name {
                "data" if rewritten.is_some() => continue,
                "id" if encode_ids && !value.is_empty() => {
                    format!("id: {}\n", encode_generation(self.generation, value))
                }
                _ => format!("{name}: {value}\n"),
            };
            out.extend(line.as_bytes());
        }
        if let Some(message) = rewritten {
            out.extend(format!("data: {message}\n").as_bytes());
        }
        out.push(b'\n');
    }

    /// The message for the client; `None` when it stays as it is.
    fn rewrite_message(&mut self, mut message: Value) -> Option<Value> {
        if self.initialize && message.pointer("/result/protocolVersion").is_some() {
            let result = message.get_mut("result")?;
            let changed = advertise_list_changed(result);
            self.initialize_result = Some(result.clone());
            return changed.then_some(message);
        }
        let method = message.get("method")?.as_str()?;
        let id = match method {
            "notifications/cancelled" => message.pointer_mut("/params/requestId"),
            _ => message.get_mut("id"),
        };
        let id = id.filter(|id| self.generation > 0 && !id.is_null())?;
        *id = Value::String(encode_generation(self.generation, &id.to_string()));
        Some(message)
    }
}

/// Writes an event with a clamped `ttlMs`.
fn write_clamped_event(event: &[u8], out: &mut Vec<u8>) {
    let data: Vec<_> = sse_splitter::fields(event).filter(|(name, _)| *name == "data").collect();
    let data = data.iter().map(|(_, value)| *value).collect::<Vec<_>>().join("\n");
    let Some(message) = ttl_clamp::clamp_ttl(data.as_bytes()) else { return out.extend(event) };
    for (name, value) in sse_splitter::fields(event).filter(|(name, _)| *name != "data") {
        out.extend(format!("{name}: {value}\n").as_bytes());
    }
    for line in message.split(|byte| *byte == b'\n') {
        out.extend(b"data: ");
        out.extend(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// An id with the generation that it belongs to.
fn encode_generation(generation: u32, id: &str) -> String {
    format!("{GENERATION_PREFIX}{generation}~{id}")
}

/// Splits an id into its generation and the id that the release knows.
fn decode_generation(id: &str) -> (u32, &str) {
    let encoded = id.strip_prefix(GENERATION_PREFIX).and_then(|rest| rest.split_once('~'));
    encoded.and_then(|(number, id)| Some((number.parse().ok()?, id))).unwrap_or((0, id))
}

/// The generation of the server requests that these ids answer: the largest one of a batch.
pub(crate) fn response_generation(ids: &[&str]) -> u32 {
    let text = |id: &str| serde_json::from_str::<String>(id).unwrap_or_default();
    ids.iter().map(|id| decode_generation(&text(id)).0).max().unwrap_or(0)
}

/// A client's body of responses to server requests, with the ids that the server knows.
pub(crate) fn restore_response_ids(body: &[u8]) -> Option<Bytes> {
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let responses = match &mut body {
        Value::Array(many) => many.as_mut_slice(),
        one => std::slice::from_mut(one),
    };
    for response in responses.iter_mut().filter(|it| it.get("method").is_none()) {
        let id = response.get_mut("id")?;
        let Some((1.., original)) = id.as_str().map(decode_generation) else { continue };
        *id = serde_json::from_str(original).ok()?;
    }
    Some(body.to_string().into())
}

/// The id of a server request as the server knows it, as JSON.
pub(crate) fn restore_request_id(id: &str) -> String {
    match serde_json::from_str::<String>(id) {
        Ok(text) => match decode_generation(&text) {
            (1.., original) => original.to_owned(),
            _ => id.to_owned(),
        },
        Err(_) => id.to_owned(),
    }
}

/// The level in a `logging/setLevel`.
pub(crate) fn logging_level(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body.pointer("/params/level")?.as_str()?.to_owned())
}

/// The last event id as the release of this generation knows it; `None` when another release issued
/// it.
pub(crate) fn restore_last_event_id(id: &HeaderValue, generation: u32) -> Option<HeaderValue> {
    let (of, id) = decode_generation(id.to_str().ok()?);
    (of == generation).then(|| HeaderValue::from_str(id).ok())?
}

/// Rewrites a JSON response to `initialize`: the body for the client, and the result in it.
pub(crate) fn rewrite_initialize_response(body: &[u8]) -> Option<(Bytes, Value)> {
    let mut message = lenient_json::parse(body).ok()?;
    let result = message.get_mut("result")?;
    result.get("protocolVersion")?;
    let changed = advertise_list_changed(result);
    let result = result.clone();
    let body = if changed { message.to_string().into() } else { Bytes::copy_from_slice(body) };
    Some((body, result))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite_all(rewriter: Option<Rewriter>, events: &str) -> String {
        let mut rewriter = rewriter.unwrap();
        let mut out = rewriter.feed(events.as_bytes()).to_vec();
        out.extend(rewriter.take_rest());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_release_of_a_session_passes_unchanged() {
        assert!(Rewriter::new(0, false).is_none());
    }

    #[test]
    fn ids_of_later_releases_get_a_prefix_and_are_restored() {
        let server_request =
            "id: 4\nevent: message\ndata: {\"id\":0,\"method\":\"roots/list\"}\n\n";
        let out = rewrite_all(Rewriter::new(2, false), server_request);
        assert!(out.contains("id: rollbackd~2~4\nevent: message\n"), "{out}");
        assert!(out.contains(r#""id":"rollbackd~2~0""#), "{out}");
        let body = br#"{"jsonrpc":"2.0","id":"rollbackd~2~0","result":{"roots":[]}}"#;
        assert_eq!(response_generation(&[r#""rollbackd~2~0""#]), 2);
        let back: Value = serde_json::from_slice(&restore_response_ids(body).unwrap()).unwrap();
        assert_eq!(back["id"], 0);
        let text = "data: {\"id\":\"a~b\",\"method\":\"roots/list\"}\n\n";
        let out = rewrite_all(Rewriter::new(1, false), text);
        let id = serde_json::from_str::<Value>(out.trim().strip_prefix("data: ").unwrap()).unwrap();
        let response = serde_json::json!({"id": id["id"], "result": {}}).to_string();
        assert_eq!(response_generation(&[&id["id"].to_string()]), 1);
        let back: Value =
            serde_json::from_slice(&restore_response_ids(response.as_bytes()).unwrap()).unwrap();
        assert_eq!(back["id"], "a~b");
        let cancelled = r#"data: {"method":"notifications/cancelled","params":{"requestId":0}}"#;
        let out = rewrite_all(Rewriter::new(1, false), &format!("{cancelled}\n\n"));
        assert!(out.contains(r#""requestId":"rollbackd~1~0""#), "{out}");
    }

    #[test]
    fn responses_and_other_events_of_later_releases_pass_unchanged() {
        let text = ": hi\n\ndata: {\"id\": 1,  \"result\":{}}\r\n\r\ndata: {\"method\":\"notifications/x\"}\n\nretry: 1\n\nevent: half";
        assert_eq!(rewrite_all(Rewriter::new(1, false), text), text);
    }

    #[test]
    fn a_last_event_of_another_generation_is_dropped() {
        let id = |text: &str| HeaderValue::from_str(text).unwrap();
        assert_eq!(restore_last_event_id(&id("7"), 0), Some(id("7")));
        assert_eq!(restore_last_event_id(&id("7"), 1), None);
        assert_eq!(restore_last_event_id(&id("rollbackd~1~7"), 1), Some(id("7")));
        assert_eq!(restore_last_event_id(&id("rollbackd~1~7"), 2), None);
    }

    #[test]
    fn the_response_to_initialize_advertises_list_changes() {
        let json =
            r#"{"id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}}}}"#;
        let (body, result) = rewrite_initialize_response(json.as_bytes()).unwrap();
        assert_eq!(result["capabilities"]["tools"]["listChanged"], true);
        assert!(String::from_utf8_lossy(&body).contains("listChanged"));
        let out = rewrite_all(Rewriter::new(0, true), &format!("id: 1\ndata: {json}\n\n"));
        assert!(out.starts_with("id: 1\n") && out.contains("listChanged"), "{out}");
        let same = r#"{"id":0, "result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;
        assert_eq!(rewrite_initialize_response(same.as_bytes()).unwrap().0, same);
        assert!(rewrite_initialize_response(br#"{"id":0,"error":{}}"#).is_none());
    }
}
