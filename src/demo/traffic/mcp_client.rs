//! The MCP client of the demo traffic.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::demo::server::VERSION_KEY;
use crate::demo::traffic::statistics::Statistics;
use crate::mcp::client::{Client, ClientSession, OutgoingMessage, ReadError, ResponseCollector};
use crate::mcp::headers::EVENT_STREAM;
use crate::mcp::{methods, versions};

/// How long the client waits for a response, or for the head of a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest response that is read, in bytes.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
const CLIENT: Client = Client { name: "rollbackd-demo", version: "1" };

/// An MCP client with shared connections. It records each request in the statistics.
#[derive(Debug)]
pub(crate) struct McpClient {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    url: Uri,
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
        let url = Uri::builder().scheme("http").authority(address.to_string());
        let url = url.path_and_query("/mcp").build().unwrap_or_default();
        Self { http, url, next_id: AtomicU64::new(1), statistics }
    }

    /// Sends a request, waits for the response, and records the result. Without a session it is a
    /// modern one.
    pub(crate) async fn request(
        &self,
        session: Option<&ClientSession>,
        request: McpRequest,
    ) -> McpResponse {
        let start = self.statistics.now();
        let response = timeout(REQUEST_TIMEOUT, self.round_trip(session, request))
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
            Ok(Err(error)) => McpResponse::failed(error),
            Err(_) => {
                McpResponse::failed(format!("no response within {} s", REQUEST_TIMEOUT.as_secs()))
            }
        };
        self.statistics.record_request(start, outcome.error.clone());
        outcome
    }

    /// Opens a legacy session; `None` if that failed.
    pub(crate) async fn initialize(&self) -> Option<ClientSession> {
        let start = self.statistics.now();
        let id = self.next_id();
        let message = CLIENT.initialize(&id, versions::LATEST_LEGACY);
        let opening = timeout(REQUEST_TIMEOUT, self.open_session(message, &id)).await;
        let timed_out = || Err(format!("no response within {} s", REQUEST_TIMEOUT.as_secs()));
        let opened = opening.unwrap_or_else(|_| timed_out());
        self.statistics.record_request(start, opened.as_ref().err().cloned());
        opened.ok()
    }

    /// Opens a stream: GET in a session, or a POST without one.
    pub(crate) async fn open_stream(
        &self,
        session: Option<&ClientSession>,
        request: Option<McpRequest>,
    ) -> Result<(Response<Incoming>, Value), McpResponse> {
        let start = self.statistics.now();
        let id = self.next_id();
        let message = match (request, session) {
            (Some(request), _) => request.encode(session, &id),
            (None, session) => {
                let mut headers = session.map(ClientSession::headers).unwrap_or_default();
                headers.insert(header::ACCEPT, EVENT_STREAM);
                OutgoingMessage { method: Method::GET, headers, body: Bytes::new() }
            }
        };
        let sent = timeout(REQUEST_TIMEOUT, self.send(message)).await;
        let outcome = match sent {
            Ok(Ok(response)) => {
                let outcome = McpResponse::from_head(&response, session.is_some());
                if outcome.error.is_none() {
                    self.statistics.record_request(start, None);
                    return Ok((response, id));
                }
                outcome
            }
            Ok(Err(error)) => McpResponse::failed(error),
            Err(_) => {
                McpResponse::failed(format!("no stream within {} s", REQUEST_TIMEOUT.as_secs()))
            }
        };
        self.statistics.record_request(start, outcome.error.clone());
        Err(outcome)
    }

    async fn open_session(
        &self,
        message: OutgoingMessage,
        id: &Value,
    ) -> Result<ClientSession, String> {
        let response = self.send(message).await?;
        if let Some(error) = McpResponse::from_head(&response, false).error {
            return Err(error);
        }
        let headers = response.headers().clone();
        let message = read_response(response, id).await?;
        let mut outcome = McpResponse::default();
        outcome.read_message(&message);
        let result = message.get("result").cloned().unwrap_or_default();
        let session = ClientSession::opened(&headers, result).filter(|it| it.id.is_some());
        match outcome.error {
            Some(error) => Err(error),
            None => session.ok_or_else(|| "initialize opened no session".to_owned()),
        }
    }

    async fn round_trip(
        &self,
        session: Option<&ClientSession>,
        request: McpRequest,
    ) -> McpResponse {
        let id = self.next_id();
        let response = match self.send(request.encode(session, &id)).await {
            Ok(response) => response,
            Err(error) => return McpResponse::failed(error),
        };
        let mut outcome = McpResponse::from_head(&response, session.is_some());
        if outcome.error.is_some() {
            return outcome;
        }
        match read_response(response, &id).await {
            Ok(message) => outcome.read_message(&message),
            Err(error) => outcome.error = Some(error),
        }
        outcome
    }

    async fn send(&self, message: OutgoingMessage) -> Result<Response<Incoming>, String> {
        let OutgoingMessage { method, headers, body } = message;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        *request.uri_mut() = self.url.clone();
        self.http.request(request).await.map_err(|error| {
            if error.is_connect() { "connection refused" } else { "connection broken" }.to_owned()
        })
    }

    fn next_id(&self) -> Value {
        Value::from(self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

impl McpRequest {
    /// One of a mix of calls; the server answers some as JSON, some as a stream.
    pub(crate) fn tool_call(sequence: usize) -> Self {
        let (tool, arguments) = match sequence % 6 {
            1 | 4 => ("weather", json!({ "city": "Tromsø" })),
            5 => ("slow", json!({ "ms": 50 })),
            _ => ("echo", json!({ "message": "hello" })),
        };
        Self {
            method: methods::TOOLS_CALL,
            params: json!({ "name": tool, "arguments": arguments }),
        }
    }

    /// Checks that the session still exists.
    pub(crate) fn ping() -> Self {
        Self { method: methods::PING, params: json!({}) }
    }

    fn encode(self, session: Option<&ClientSession>, id: &Value) -> OutgoingMessage {
        match session {
            Some(session) => session.request(id, self.method, &self.params),
            None => CLIENT.modern(id, self.method, self.params),
        }
    }
}

impl McpResponse {
    fn failed(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    fn from_head(response: &Response<Incoming>, in_session: bool) -> Self {
        let status = response.status().as_u16();
        Self {
            error: (status >= 400).then(|| format!("HTTP {status}")),
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
                .then(|| "the result has isError".to_owned()),
        };
    }
}

/// Reads the response to `id`, from a JSON body or an event stream.
pub(crate) async fn read_response(
    response: Response<Incoming>,
    id: &Value,
) -> Result<Value, String> {
    let (head, mut body) = response.into_parts();
    let mut collector = ResponseCollector::new(&head.headers, id.clone(), RESPONSE_BYTES_MAX);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| "connection broken in the middle of a response".to_owned())?;
        let Ok(data) = frame.into_data() else { continue };
        if let Some(message) = collector.feed(&data).map_err(|error| read_error(&error))? {
            return Ok(message);
        }
    }
    collector.finish().map_err(|error| read_error(&error))
}

fn read_error(error: &ReadError) -> String {
    match error {
        ReadError::TooLong { .. } => "the response is too long",
        ReadError::NotJson(_) => "the response is not JSON",
        ReadError::OtherId(_) => "the response has another id",
        ReadError::NoResponse => "the body ended without a response",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
