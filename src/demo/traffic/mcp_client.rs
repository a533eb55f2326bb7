//! The MCP client of the demo traffic.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::demo::server::VERSION_KEY;
use crate::demo::traffic::statistics::Statistics;
use crate::mcp::client::{
    Client, ClientSession, OutgoingMessage, ReadError, ResponseCollector,
};
use crate::mcp::headers::{EVENT_STREAM, MCP_SESSION_ID};
use crate::mcp::{methods, versions};
use crate::model::Era;

/// How long the client waits for a response, or for the head of a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest response that is read, in bytes.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
const CLIENT: Client = Client { name: "rollbackd-demo", version: "1" };

/// An MCP client with shared connections. It records each request in the statistics.
#[derive(Debug)]
pub(crate) struct McpClient {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    url: String,
    next_id: AtomicU64,
    pub(crate) statistics: Arc<Statistics>,
}

/// A request without its id.
#[derive(Debug, Clone)]
pub(crate) struct McpRequest {
    pub(crate) method: &'static str,
    pub(crate) params: Value,
}

/// The result of a request.
#[derive(Debug, Default)]
pub(crate) struct McpResponse {
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// The session that it opened.
    pub(crate) session_id: Option<String>,
    /// Whether the server no longer knows the session.
    pub(crate) session_lost: bool,
    /// The release that answered.
    pub(crate) release: Option<String>,
}

impl McpClient {
    pub(crate) fn new(address: SocketAddr, statistics: Arc<Statistics>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(4))
            .build(connector);
        Self { http, url: format!("http://{address}/mcp"), next_id: AtomicU64::new(1), statistics }
    }

    /// Sends a request, waits for the response, and records the result.
    pub(crate) async fn request(
        &self,
        era: Era,
        session: Option<&str>,
        request: McpRequest,
    ) -> McpResponse {
        let start = self.statistics.now();
        let response = timeout(REQUEST_TIMEOUT, self.round_trip(era, session, request))
            .await
            .unwrap_or_else(|_| {
                McpResponse::failed(format!("no response within {} s", REQUEST_TIMEOUT.as_secs()))
            });
        self.statistics.record_request(start, response.error.clone());
        response
    }

    /// Completes the opening of a session.
    pub(crate) async fn send_initialized(&self, session: &ClientSession) -> McpResponse {
        self.notify(session.initialized()).await
    }

    /// Ends a session.
    pub(crate) async fn close(&self, session: &ClientSession) -> McpResponse {
        match session.close() {
            Some(message) => self.notify(message).await,
            None => McpResponse::default(),
        }
    }

    async fn notify(&self, message: OutgoingMessage) -> McpResponse {
        let start = self.statistics.now();
        let sent = timeout(REQUEST_TIMEOUT, self.send(message)).await;
        let outcome = match sent {
            Ok(Ok(response)) => McpResponse::from_head(&response, true),
            Ok(Err(bad)) => McpResponse::failed(bad),
            Err(_) => {
                McpResponse::failed(format!("no response within {} s", REQUEST_TIMEOUT.as_secs()))
            }
        };
        self.statistics.record_request(start, outcome.error.clone());
        outcome
    }

    /// Opens a stream: GET in a session, or a POST that stays.
    pub(crate) async fn open_stream(
        &self,
        session: Option<&str>,
        request: Option<McpRequest>,
    ) -> Result<(Response<Incoming>, Value), McpResponse> {
        let start = self.statistics.now();
        let era = if session.is_some() { Era::Legacy } else { Era::Modern };
        let (method, name, id, body) = match request {
            Some(request) => {
                let (id, body) = self.encode(era, &request);
                (Method::POST, request.method, id, body)
            }
            None => (Method::GET, "", Value::Null, Bytes::new()),
        };
        let sent = timeout(REQUEST_TIMEOUT, self.send(method, era, session, name, body)).await;
        let outcome = match sent {
            Ok(Ok(response)) => {
                let outcome = McpResponse::from_head(&response, session.is_some());
                if outcome.error.is_none() {
                    self.statistics.record_request(start, None);
                    return Ok((response, id));
                }
                outcome
            }
            Ok(Err(bad)) => McpResponse::failed(bad),
            Err(_) => {
                McpResponse::failed(format!("no stream within {} s", REQUEST_TIMEOUT.as_secs()))
            }
        };
        self.statistics.record_request(start, outcome.error.clone());
        Err(outcome)
    }

    async fn round_trip(
        &self,
        era: Era,
        session: Option<&str>,
        request: McpRequest,
    ) -> McpResponse {
        let (id, body) = self.encode(era, &request);
        let response = match self.send(Method::POST, era, session, request.method, body).await {
            Ok(response) => response,
            Err(bad) => return McpResponse::failed(bad),
        };
        let mut outcome = McpResponse::from_head(&response, session.is_some());
        if outcome.error.is_some() {
            return outcome;
        }
        match read_response(response, &id).await {
            Ok(message) => outcome.read_message(&message),
            Err(bad) => outcome.error = Some(bad),
        }
        outcome
    }

    async fn send(
        &self,
        method: Method,
        era: Era,
        session: Option<&str>,
        name: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let accept = match method {
            Method::GET => "text/event-stream",
            _ => "application/json, text/event-stream",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(&self.url)
            .header("content-type", "application/json")
            .header("accept", accept);
        if let Some(session) = session {
            request = request
                .header("mcp-session-id", session)
                .header("mcp-protocol-version", LEGACY_VERSION);
        }
        if era == Era::Modern {
            request =
                request.header("mcp-protocol-version", MODERN_VERSION).header("mcp-method", name);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.http.request(request).await.map_err(|error| {
            if error.is_connect() { "connection refused" } else { "connection broken" }.to_owned()
        })
    }

    fn encode(&self, era: Era, request: &McpRequest) -> (Value, Bytes) {
        let id = Value::from(self.next_id.fetch_add(1, Ordering::Relaxed));
        let mut params = request.params.clone();
        if let (Era::Modern, Some(params)) = (era, params.as_object_mut()) {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": { "name": "rollbackd-demo", "version": "1" },
            });
            params.insert("_meta".to_owned(), meta);
        }
        let body =
            json!({ "jsonrpc": "2.0", "id": id, "method": request.method, "params": params });
        (id, Bytes::from(body.to_string()))
    }
}

impl McpRequest {
    /// One of a mix of calls; some are answered as JSON, some as a stream.
    pub(crate) fn tool_call(sequence: usize) -> Self {
        let (tool, arguments) = match sequence % 6 {
            1 | 4 => ("weather", json!({ "city": "Tromsø" })),
            5 => ("slow", json!({ "ms": 50 })),
            _ => ("echo", json!({ "message": "hello" })),
        };
        Self { method: "tools/call", params: json!({ "name": tool, "arguments": arguments }) }
    }

    /// Whether the session is still there.
    pub(crate) fn ping() -> Self {
        Self { method: "ping", params: json!({}) }
    }
}

impl McpResponse {
    fn failed(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    fn from_head(response: &Response<Incoming>, in_session: bool) -> Self {
        let status = response.status().as_u16();
        let session = response.headers().get("mcp-session-id");
        Self {
            error: (status >= 400).then(|| format!("HTTP {status}")),
            session_id: session.and_then(|id| id.to_str().ok()).map(str::to_owned),
            session_lost: in_session && status == 404,
            release: None,
        }
    }

    fn read_message(&mut self, message: &Value) {
        let result = message.get("result");
        self.release = result
            .and_then(|result| result.get("_meta")?.get(VERSION_KEY)?.as_str())
            .map(str::to_owned);
        self.error = match (message.get("error"), result) {
            (Some(error), _) => {
                Some(format!("JSON-RPC error {}", error.get("code").unwrap_or(&Value::Null)))
            }
            (None, None) => Some("neither a result nor an error".to_owned()),
            (None, Some(result)) => (result.get("isError") == Some(&Value::Bool(true)))
                .then(|| "the tool says isError".to_owned()),
        };
    }
}

/// The message that answers `id`, from a JSON body or from a stream of events.
pub(crate) async fn read_response(
    response: Response<Incoming>,
    id: &Value,
) -> Result<Value, String> {
    let content_type = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    let is_stream = content_type.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let mut body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "connection broken in the middle of an answer".to_owned())?;
        bytes.extend(frame.into_data().ok());
        if !is_stream {
            continue;
        }
        while let Some(message) = next_event(&mut bytes) {
            if message.get("id") == Some(id) && message.get("method").is_none() {
                return Ok(message);
            }
        }
    }
    if is_stream {
        return Err("the stream ended without an answer".to_owned());
    }
    let message: Value =
        serde_json::from_slice(&bytes).map_err(|_| "the answer is not JSON".to_owned())?;
    if message.get("id") == Some(id) {
        Ok(message)
    } else {
        Err("an answer to something else".to_owned())
    }
}

/// Takes whole events off the front until one carries JSON.
fn next_event(bytes: &mut BytesMut) -> Option<Value> {
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let event = bytes.split_to(end + 2);
        let text = String::from_utf8_lossy(&event);
        let data: String = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
        if let Ok(message) = serde_json::from_str(&data) {
            return Some(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole_and_comments_skipped() {
        let mut bytes = BytesMut::from(
            &b": hi\n\nid: 1\ndata:\n\nevent: message\ndata: {\"id\":7}\n\ndata: {"[..],
        );
        assert_eq!(next_event(&mut bytes), Some(json!({ "id": 7 })));
        assert_eq!(next_event(&mut bytes), None);
        assert_eq!(&bytes[..], b"data: {");
    }

    #[test]
    fn an_error_and_is_error_are_bad_and_a_result_is_not() {
        let inspect = |message: Value| {
            let mut answer = McpResponse::default();
            answer.read_message(&message);
            (answer.error, answer.release)
        };
        let good = json!({ "id": 1, "result": { "_meta": { VERSION_KEY: "v1" } } });
        assert_eq!(inspect(good), (None, Some("v1".to_owned())));
        let error = json!({ "id": 1, "error": { "code": -32603, "message": "no" } });
        assert_eq!(inspect(error).0.as_deref(), Some("JSON-RPC error -32603"));
        assert!(inspect(json!({ "id": 1, "result": { "isError": true } })).0.is_some());
        assert!(inspect(json!({ "id": 1 })).0.is_some());
    }
}
