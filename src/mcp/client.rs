//! An MCP client without I/O: [`Client`] builds messages, [`ResponseCollector`] and
//! [`ResponseScanner`] read the response. The caller sends and receives, and adds the URI, the host
//! and credentials.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};

use super::headers::{
    JSON, JSON_OR_EVENT_STREAM, MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION, MCP_SESSION_ID,
};
use super::message::{Message, same_id};
use super::scan::MessageScanner;
use super::sse::SseReader;
use super::sse_splitter::{SseEvent, SseSplitter};
use super::{headers, jsonrpc, lenient_json, methods, sse_splitter, versions};

/// The name and version with which rollbackd introduces itself as a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// A legacy session that the client has opened.
#[derive(Debug, Clone)]
pub(crate) struct ClientSession {
    /// Its id; `None` if the server uses no ids.
    pub(crate) id: Option<HeaderValue>,
    /// The protocol version that was negotiated.
    pub(crate) protocol: String,
    /// The result of `initialize`.
    pub(crate) initialize_result: Value,
}

/// A message that is ready to be sent.
#[derive(Debug)]
pub(crate) struct OutgoingMessage {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// Opens a legacy session.
    pub(crate) fn initialize(&self, id: &Value, version: &str) -> OutgoingMessage {
        let params =
            json!({"protocolVersion": version, "capabilities": {}, "clientInfo": self.info()});
        OutgoingMessage::post(&jsonrpc::request(id, methods::INITIALIZE, &params))
    }

    /// A modern request. `params` is an object.
    pub(crate) fn modern(&self, id: &Value, method: &str, mut params: Value) -> OutgoingMessage {
        let name = params.get("name").and_then(Value::as_str);
        let name = name.and_then(|name| HeaderValue::from_str(name).ok());
        if let Some(fields) = params.as_object_mut() {
            let meta = json!({
                versions::META_PROTOCOL_VERSION: versions::MODERN,
                versions::META_CLIENT_CAPABILITIES: {},
                versions::META_CLIENT_INFO: self.info(),
            });
            fields.insert("_meta".to_owned(), meta);
        }
        let mut message = OutgoingMessage::post(&jsonrpc::request(id, method, &params));
        message.insert(MCP_PROTOCOL_VERSION, HeaderValue::from_static(versions::MODERN));
        if let Ok(method) = HeaderValue::from_str(method) {
            message.insert(MCP_METHOD, method);
        }
        if let Some(name) = name {
            message.insert(MCP_NAME, name);
        }
        message
    }

    fn info(&self) -> Value {
        json!({"name": self.name, "version": self.version})
    }
}

impl ClientSession {
    /// The session that a server opened; `None` if the result names no protocol version.
    pub(crate) fn opened(headers: &HeaderMap, initialize_result: Value) -> Option<Self> {
        let protocol = initialize_result.get("protocolVersion")?.as_str()?.to_owned();
        Some(Self { id: headers.get(MCP_SESSION_ID).cloned(), protocol, initialize_result })
    }

    /// Completes the opening of the session.
    pub(crate) fn initialized(&self) -> OutgoingMessage {
        self.notification(methods::INITIALIZED)
    }

    /// A request in the session.
    pub(crate) fn request(&self, id: &Value, method: &str, params: &Value) -> OutgoingMessage {
        self.within(OutgoingMessage::post(&jsonrpc::request(id, method, params)))
    }

    /// A notification in the session.
    pub(crate) fn notification(&self, method: &str) -> OutgoingMessage {
        self.within(OutgoingMessage::post(&jsonrpc::notification(method)))
    }

    /// Ends the session. `None` if it has no id, so that the server holds nothing.
    pub(crate) fn close(&self) -> Option<OutgoingMessage> {
        let method = Method::DELETE;
        let message = OutgoingMessage { method, headers: HeaderMap::new(), body: Bytes::new() };
        self.id.is_some().then(|| self.within(message))
    }

    /// The headers of every request in the session.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(self.id.clone().map(|id| (MCP_SESSION_ID, id)));
        let protocol = HeaderValue::from_str(&self.protocol).ok();
        headers.extend(protocol.map(|protocol| (MCP_PROTOCOL_VERSION, protocol)));
        headers
    }

    fn within(&self, mut message: OutgoingMessage) -> OutgoingMessage {
        message.headers.extend(self.headers());
        message
    }
}

impl OutgoingMessage {
    fn post(message: &Value) -> Self {
        let headers = [(header::ACCEPT, JSON_OR_EVENT_STREAM), (header::CONTENT_TYPE, JSON)];
        let body = Bytes::from(message.to_string());
        Self { method: Method::POST, headers: HeaderMap::from_iter(headers), body }
    }

    fn insert(&mut self, name: header::HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }
}

/// Collects the response to one request, from a JSON body or an event stream.
#[derive(Debug)]
pub(crate) struct ResponseCollector {
    id: Value,
    max: usize,
    size: usize,
    body: CollectedBody,
    /// Why an event could not be read.
    not_json: Option<String>,
}

#[derive(Debug)]
enum CollectedBody {
    Json(Vec<u8>),
    Events(SseSplitter),
}

/// Why there is no response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The body exceeds this number of bytes.
    TooLong { max: usize },
    /// The body, or an event, is not JSON.
    NotJson(String),
    /// The body answers a request with another id, as JSON.
    OtherId(String),
    /// The stream ended without a response.
    NoResponse,
}

impl ResponseCollector {
    /// Reads the response to `id` from a body with these headers, of at most `max` bytes.
    pub(crate) fn new(headers: &HeaderMap, id: Value, max: usize) -> Self {
        let body = if headers::is_event_stream(headers) {
            CollectedBody::Events(SseSplitter::default())
        } else {
            CollectedBody::Json(Vec::new())
        };
        Self { id, max, size: 0, body, not_json: None }
    }

    /// Reads the next bytes; returns the response as soon as it is complete in a stream.
    ///
    /// # Errors
    /// When the body is too long.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<Option<Value>, ReadError> {
        self.size += chunk.len();
        if self.max < self.size {
            return Err(ReadError::TooLong { max: self.max });
        }
        let splitter = match &mut self.body {
            CollectedBody::Events(splitter) => splitter,
            CollectedBody::Json(text) => {
                text.extend_from_slice(chunk);
                return Ok(None);
            }
        };
        let mut response = None;
        splitter.feed(chunk, |event| {
            let SseEvent::Whole(event) = event else { return };
            match sse_splitter::message(&event) {
                Some(Ok(message)) if jsonrpc::answers(&message, &self.id) => {
                    response.get_or_insert(message);
                }
                Some(Err(error)) => self.not_json = Some(error.to_string()),
                Some(Ok(_)) | None => (),
            }
        });
        Ok(response)
    }

    /// The body has ended: returns the response of a JSON body.
    ///
    /// # Errors
    /// When there is no response in it.
    pub(crate) fn finish(self) -> Result<Value, ReadError> {
        let CollectedBody::Json(text) = self.body else {
            return Err(self.not_json.map_or(ReadError::NoResponse, ReadError::NotJson));
        };
        let message: Value =
            lenient_json::parse(&text).map_err(|error| ReadError::NotJson(error.to_string()))?;
        if jsonrpc::answers(&message, &self.id) {
            return Ok(message);
        }
        let id = message.get("id").filter(|id| **id != self.id);
        Err(id.map_or(ReadError::NoResponse, |id| ReadError::OtherId(id.to_string())))
    }
}

/// Scans for the response to one request, and buffers nothing.
#[derive(Debug)]
pub(crate) struct ResponseScanner {
    /// The id as JSON.
    id: String,
    body: ScannedBody,
}

#[derive(Debug)]
enum ScannedBody {
    Json(MessageScanner),
    Events(SseReader),
}

impl ResponseScanner {
    /// Scans for the response to `id` in a body with these headers.
    pub(crate) fn new(headers: &HeaderMap, id: &Value) -> Self {
        let body = if headers::is_event_stream(headers) {
            ScannedBody::Events(SseReader::new())
        } else {
            ScannedBody::Json(MessageScanner::default())
        };
        Self { id: id.to_string(), body }
    }

    /// Reads the next bytes; returns the response once its last bracket has passed.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Option<Message> {
        let mut response = None;
        let on_message = |message: Message| {
            let id = message.id.as_deref();
            if message.is_response() && id.is_some_and(|it| same_id(it, &self.id)) {
                response.get_or_insert(message);
            }
        };
        match &mut self.body {
            ScannedBody::Json(scanner) => scanner.feed(chunk, on_message),
            ScannedBody::Events(events) => events.feed(chunk, on_message),
        }
        response
    }

    /// Whether a client can resume the stream after it ends.
    pub(crate) fn is_resumable(&self) -> bool {
        matches!(&self.body, ScannedBody::Events(events) if events.is_resumable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Client = Client { name: "test", version: "1" };

    fn stream_headers() -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, headers::EVENT_STREAM)])
    }

    #[test]
    fn a_response_is_found_however_lines_end_and_chunks_fall() {
        let stream = b"id: 1\ndata:\n\n: hi\r\ndata: {\"id\":7,\r\ndata: \"method\":\"ping\"}\r\n\r\ndata: {\"id\":7,\ndata:\"result\":{}}\r\rdata: 2\n\n";
        for cut in 1..stream.len() {
            let mut collector = ResponseCollector::new(&stream_headers(), json!(7), 1000);
            let mut scanner = ResponseScanner::new(&stream_headers(), &json!(7));
            let (mut collected, mut scanned) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(cut) {
                collected.extend(collector.feed(chunk).unwrap());
                scanned.extend(scanner.feed(chunk));
            }
            assert_eq!(collected, [json!({"id": 7, "result": {}})], "cut {cut}");
            assert_eq!(scanned.len(), 1, "cut {cut}");
            assert!(scanner.is_resumable() && scanned[0].has_result);
            assert_eq!(collector.finish(), Err(ReadError::NoResponse));
        }
    }

    #[test]
    fn a_json_body_is_read_whole() {
        let read = |body: &str, max| {
            let mut collector = ResponseCollector::new(&HeaderMap::new(), json!("a"), max);
            collector.feed(body.as_bytes()).and_then(|_| collector.finish())
        };
        assert!(read(r#"{"id":"a","result":1}"#, 100).is_ok());
        let other = read(r#"{"id":7,"result":1}"#, 100);
        assert_eq!(other, Err(ReadError::OtherId("7".to_owned())));
        assert_eq!(read(r#"{"id":"a","method":"ping"}"#, 100), Err(ReadError::NoResponse));
        assert_eq!(read("{}", 1), Err(ReadError::TooLong { max: 1 }));
        assert!(matches!(read("<html>", 100), Err(ReadError::NotJson(_))));
    }

    #[test]
    fn a_broken_event_is_reported_at_the_end_of_the_stream() {
        let mut collector = ResponseCollector::new(&stream_headers(), json!(1), 100);
        assert_eq!(collector.feed(b"data: {\n\n"), Ok(None));
        assert!(matches!(collector.finish(), Err(ReadError::NotJson(_))));
    }

    #[test]
    fn messages_carry_what_their_era_needs() {
        let opened = HeaderMap::from_iter([(MCP_SESSION_ID, HeaderValue::from_static("s"))]);
        let result = json!({"protocolVersion": versions::LATEST_LEGACY});
        let session = ClientSession::opened(&opened, result).unwrap();
        let request = session.request(&json!(1), methods::PING, &json!({}));
        assert_eq!(request.headers[MCP_SESSION_ID], "s");
        assert_eq!(request.headers[MCP_PROTOCOL_VERSION], versions::LATEST_LEGACY);
        assert_eq!(session.close().unwrap().method, Method::DELETE);
        let stateless = ClientSession { id: None, ..session };
        assert!(stateless.close().is_none());
        let modern = CLIENT.modern(&json!(1), methods::TOOLS_LIST, json!({}));
        assert_eq!(modern.headers[MCP_METHOD], methods::TOOLS_LIST);
        let body: Value = serde_json::from_slice(&modern.body).unwrap();
        assert_eq!(body["params"]["_meta"][versions::META_PROTOCOL_VERSION], versions::MODERN);
        let initialize = CLIENT.initialize(&json!(1), versions::LATEST_LEGACY);
        assert!(!initialize.headers.contains_key(MCP_SESSION_ID));
    }
}
