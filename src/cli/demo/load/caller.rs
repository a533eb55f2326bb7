use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::server::VERSION_KEY;
use super::book::Book;
use crate::model::Era;

/// How long a client waits for an answer, or for the head of a stream.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 1024 * 1024;
const MODERN: &str = "2026-07-28";
pub(super) const LEGACY: &str = "2025-11-25";

/// An MCP client, as far as a load needs one. Connections are kept and shared.
#[derive(Debug)]
pub(super) struct Caller {
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
    ids: AtomicU64,
    pub(super) book: Arc<Book>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: &'static str,
    pub(super) params: Value,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// What was bad about it.
    pub(super) bad: Option<String>,
    /// The session that it opened.
    pub(super) session: Option<String>,
    /// The server says that there is no such session.
    pub(super) lost: bool,
    /// The release that gave it.
    pub(super) release: Option<String>,
}

impl Caller {
    pub(super) fn new(address: SocketAddr, book: Arc<Book>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(4))
            .build(connector);
        Self { http, url: format!("http://{address}/mcp"), ids: AtomicU64::new(1), book }
    }

    /// Asks, waits for the answer, and writes down what came.
    pub(super) async fn ask(&self, era: Era, session: Option<&str>, question: Question) -> Answer {
        let start = self.book.now();
        let answer = timeout(PATIENCE, self.exchange(era, session, question))
            .await
            .unwrap_or_else(|_| Answer::bad(format!("no answer within {} s", PATIENCE.as_secs())));
        self.book.answered(start, answer.bad.clone());
        answer
    }

    /// Sends something that needs no answer: a notification, or DELETE.
    pub(super) async fn tell(&self, session: &str, method: Method, body: Option<Value>) -> Answer {
        let start = self.book.now();
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let sent = timeout(PATIENCE, self.send(method, Era::Legacy, Some(session), "", body)).await;
        let answer = match sent {
            Ok(Ok(response)) => Answer::of_head(&response, true),
            Ok(Err(bad)) => Answer::bad(bad),
            Err(_) => Answer::bad(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        self.book.answered(start, answer.bad.clone());
        answer
    }

    /// Opens a stream: GET in a session, or a POST that stays.
    pub(super) async fn open(
        &self,
        session: Option<&str>,
        question: Option<Question>,
    ) -> Result<(Response<Incoming>, Value), Answer> {
        let start = self.book.now();
        let era = if session.is_some() { Era::Legacy } else { Era::Modern };
        let (method, name, id, body) = match question {
            Some(question) => {
                let (id, body) = self.write(era, &question);
                (Method::POST, question.method, id, body)
            }
            None => (Method::GET, "", Value::Null, Bytes::new()),
        };
        let opened = timeout(PATIENCE, self.send(method, era, session, name, body)).await;
        let answer = match opened {
            Ok(Ok(response)) => {
                let answer = Answer::of_head(&response, session.is_some());
                if answer.bad.is_none() {
                    self.book.answered(start, None);
                    return Ok((response, id));
                }
                answer
            }
            Ok(Err(bad)) => Answer::bad(bad),
            Err(_) => Answer::bad(format!("no stream within {} s", PATIENCE.as_secs())),
        };
        self.book.answered(start, answer.bad.clone());
        Err(answer)
    }

    async fn exchange(&self, era: Era, session: Option<&str>, question: Question) -> Answer {
        let (id, body) = self.write(era, &question);
        let response = match self.send(Method::POST, era, session, question.method, body).await {
            Ok(response) => response,
            Err(bad) => return Answer::bad(bad),
        };
        let mut answer = Answer::of_head(&response, session.is_some());
        if answer.bad.is_some() {
            return answer;
        }
        match read(response, &id).await {
            Ok(message) => answer.judge(&message),
            Err(bad) => answer.bad = Some(bad),
        }
        answer
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
            request =
                request.header("mcp-session-id", session).header("mcp-protocol-version", LEGACY);
        }
        if era == Era::Modern {
            request = request.header("mcp-protocol-version", MODERN).header("mcp-method", name);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.http.request(request).await.map_err(|error| {
            if error.is_connect() { "connection refused" } else { "connection broken" }.to_owned()
        })
    }

    fn write(&self, era: Era, question: &Question) -> (Value, Bytes) {
        let id = Value::from(self.ids.fetch_add(1, Ordering::Relaxed));
        let mut params = question.params.clone();
        if let (Era::Modern, Some(params)) = (era, params.as_object_mut()) {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": { "name": "rollbackd-demo", "version": "1" },
            });
            params.insert("_meta".to_owned(), meta);
        }
        let body =
            json!({ "jsonrpc": "2.0", "id": id, "method": question.method, "params": params });
        (id, Bytes::from(body.to_string()))
    }
}

impl Question {
    /// One of a mix of calls; some are answered as JSON, some as a stream.
    pub(super) fn call(turn: usize) -> Self {
        let (tool, arguments) = match turn % 6 {
            1 | 4 => ("weather", json!({ "city": "Tromsø" })),
            5 => ("slow", json!({ "ms": 50 })),
            _ => ("echo", json!({ "message": "hello" })),
        };
        Self { method: "tools/call", params: json!({ "name": tool, "arguments": arguments }) }
    }

    /// Whether the session is still there.
    pub(super) fn ping() -> Self {
        Self { method: "ping", params: json!({}) }
    }
}

impl Answer {
    fn bad(why: String) -> Self {
        Self { bad: Some(why), ..Self::default() }
    }

    fn of_head(response: &Response<Incoming>, in_session: bool) -> Self {
        let status = response.status().as_u16();
        let session = response.headers().get("mcp-session-id");
        Self {
            bad: (status >= 400).then(|| format!("HTTP {status}")),
            session: session.and_then(|id| id.to_str().ok()).map(str::to_owned),
            lost: in_session && status == 404,
            release: None,
        }
    }

    fn judge(&mut self, message: &Value) {
        let result = message.get("result");
        self.release = result
            .and_then(|result| result.get("_meta")?.get(VERSION_KEY)?.as_str())
            .map(str::to_owned);
        self.bad = match (message.get("error"), result) {
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
pub(super) async fn read(response: Response<Incoming>, id: &Value) -> Result<Value, String> {
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    let stream = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let mut body = Limited::new(response.into_body(), ANSWER_MAX);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "connection broken in the middle of an answer".to_owned())?;
        bytes.extend(frame.into_data().ok());
        if !stream {
            continue;
        }
        while let Some(message) = next_event(&mut bytes) {
            if message.get("id") == Some(id) && message.get("method").is_none() {
                return Ok(message);
            }
        }
    }
    if stream {
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
        let judged = |message: Value| {
            let mut answer = Answer::default();
            answer.judge(&message);
            (answer.bad, answer.release)
        };
        let good = json!({ "id": 1, "result": { "_meta": { VERSION_KEY: "v1" } } });
        assert_eq!(judged(good), (None, Some("v1".to_owned())));
        let error = json!({ "id": 1, "error": { "code": -32603, "message": "no" } });
        assert_eq!(judged(error).0.as_deref(), Some("JSON-RPC error -32603"));
        assert!(judged(json!({ "id": 1, "result": { "isError": true } })).0.is_some());
        assert!(judged(json!({ "id": 1 })).0.is_some());
    }
}
