//! Releases for the tests: scripted ones that misbehave, and a well-behaved MCP server.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::async_wait::wait_for;
use crate::fake_responses::{ChannelBody, open_stream, refuse, refused, response_with, sse_event};
use crate::wait_until;

/// A release of which each connection follows a script.
pub(crate) async fn scripted<F, Fut>(script: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    address
}

/// A release that sends the same response to every request, then closes.
pub(crate) async fn fixed_response(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer: Arc<[u8]> = answer.into().into();
    scripted(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            if read_request(&mut stream).await.is_some() {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                // Unread input would reset the connection.
                let rest = read_to_end(&mut stream);
                let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
            }
        }
    })
    .await
}

async fn read_to_end(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

/// Reads one request: its head, and its body as it stands on the wire.
pub(crate) async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let at = loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let mut body = bytes.split_off(at + 4);
    let length = super::http_client::header(&head, "content-length").map(|it| it.parse().unwrap());
    let chunked = super::http_client::header(&head, "transfer-encoding").is_some();
    let whole = |body: &[u8]| match length {
        Some(length) => body.len() >= length,
        None => !chunked || body.starts_with(b"0\r\n") || find(body, b"\r\n0\r\n").is_some(),
    };
    while !whole(&body) {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// An answer with a JSON body.
pub(crate) fn json_answer(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The head of an answer with events, which lasts until the connection closes.
pub(crate) const SSE_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

/// A well-behaved MCP server of both eras.
#[derive(Clone)]
pub(crate) struct FakeMcpServer {
    pub address: SocketAddr,
    name: &'static str,
    /// Head of each request, session id, and body.
    pub log: Arc<Mutex<Vec<(String, String, String)>>>,
    sessions: Arc<Mutex<BTreeSet<String>>>,
    next: Arc<AtomicUsize>,
    pub behaviour: Arc<Mutex<ServerBehaviour>>,
    /// The GET streams that were opened, with the session of each.
    pub streams: Arc<Mutex<Streams>>,
    /// Responses of clients to requests of the server.
    pub client_replies: Arc<Mutex<Vec<Value>>>,
    crashed: Arc<Mutex<CancellationToken>>,
    accepting: Arc<Mutex<CancellationToken>>,
}

type Streams = Vec<(String, mpsc::Sender<String>)>;

/// How a server behaves.
#[derive(Clone)]
pub(crate) struct ServerBehaviour {
    pub protocol: &'static str,
    pub capabilities: Value,
    /// Status of the answer to `initialize`; 0: it never answers.
    pub initialize_status: u16,
    /// How long that takes.
    pub initialize_delay: Duration,
    /// Status and body for unknown sessions.
    pub unknown: (u16, &'static str),
    /// The same for GET and DELETE, whatever the session, where it has neither.
    pub beside_post: Option<(u16, &'static str)>,
    /// Has no session ids.
    pub stateless: bool,
    /// Allows one GET stream for a session.
    pub one_stream: bool,
}

impl Default for ServerBehaviour {
    fn default() -> Self {
        let resources = json!({"subscribe": true});
        let capabilities = json!({"tools": {}, "resources": resources, "logging": {}});
        Self {
            protocol: "2025-06-18",
            capabilities,
            initialize_status: 200,
            initialize_delay: Duration::ZERO,
            unknown: (404, ""),
            beside_post: None,
            stateless: false,
            one_stream: false,
        }
    }
}

impl FakeMcpServer {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mcp = Self {
            address: listener.local_addr().unwrap(),
            name,
            log: Arc::default(),
            sessions: Arc::default(),
            next: Arc::default(),
            behaviour: Arc::default(),
            streams: Arc::default(),
            client_replies: Arc::default(),
            crashed: Arc::default(),
            accepting: Arc::default(),
        };
        mcp.serve(listener);
        mcp
    }

    fn serve(&self, listener: TcpListener) {
        let (server, crashed) = (self.clone(), self.crashed.lock().unwrap().clone());
        let accept = crashed.child_token();
        *self.accepting.lock().unwrap() = accept.clone();
        let accepting = accept.run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let connection = async move {
                    let service = hyper::service::service_fn(move |request| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.respond(request).await) }
                    });
                    let io = TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                };
                tokio::spawn(crashed.clone().run_until_cancelled_owned(connection));
            }
        });
        tokio::spawn(accepting);
    }

    /// Its process ends.
    pub(crate) async fn crash(&self) {
        self.crashed.lock().unwrap().cancel();
        self.wait_until_refused().await;
        self.streams.lock().unwrap().clear();
    }

    async fn wait_until_refused(&self) {
        wait_for("nothing listens", || async { TcpStream::connect(self.address).await.err() })
            .await;
    }

    /// Waits until it has received this many requests.
    pub(crate) async fn wait_for_requests(&self, count: usize) {
        let seen = || self.request_count();
        wait_until(&format!("{count} requests"), || count <= seen(), || seen().to_string()).await;
    }

    /// It shuts down in order: nothing listens, and its streams end.
    pub(crate) async fn stop(&self) {
        self.accepting.lock().unwrap().cancel();
        self.wait_until_refused().await;
        self.streams.lock().unwrap().clear();
    }

    /// It starts again, without its sessions.
    pub(crate) async fn restart(&self) {
        *self.crashed.lock().unwrap() = CancellationToken::new();
        self.drop_sessions();
        self.serve(TcpListener::bind(self.address).await.unwrap());
    }

    pub(crate) fn request_count(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    pub(crate) fn set_behaviour(&self, change: impl FnOnce(&mut ServerBehaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// Requests so far: method and path, or the JSON-RPC method.
    pub(crate) fn methods(&self) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let method = |body: &str| {
            let body: Value = serde_json::from_str(body).ok()?;
            Some(body["method"].as_str()?.to_owned())
        };
        log.iter().map(|(head, _, body)| method(body).unwrap_or_else(|| head.clone())).collect()
    }

    /// Sends an event on every GET stream.
    pub(crate) async fn notify_streams(&self, text: &str) {
        let streams = self.streams.lock().unwrap().clone();
        for (_, stream) in streams {
            let _ = stream.send(text.to_owned()).await;
        }
    }

    fn has_stream(&self, id: &str) -> bool {
        self.behaviour.lock().unwrap().one_stream
            && self.streams.lock().unwrap().iter().any(|(of, it)| of == id && !it.is_closed())
    }

    /// Forgets every session.
    pub(crate) fn drop_sessions(&self) {
        self.sessions.lock().unwrap().clear();
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<ChannelBody> {
        let (head, body) = request.into_parts();
        let get = |name: &str| {
            head.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (id, modern) = (get("mcp-session-id"), get("mcp-protocol-version").as_str() >= "2026");
        let body = body.collect().await.map(|it| it.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&body).into_owned();
        self.log.lock().unwrap().push((format!("{} {}", head.method, head.uri), id.clone(), text));
        if !id.is_empty() && !modern && !self.sessions.lock().unwrap().contains(&id) {
            return refused(self.behaviour.lock().unwrap().unknown);
        }
        let beside = self.behaviour.lock().unwrap().beside_post;
        if let Some(beside) = beside.filter(|_| head.method != Method::POST) {
            return refused(beside);
        }
        match head.method {
            Method::GET if self.has_stream(&id) => return refused((409, "Conflict")),
            Method::GET => {
                let texts = vec![": open\n\n".to_owned()];
                let (response, tell) = response_with(StatusCode::OK, "text/event-stream", texts);
                self.streams.lock().unwrap().push((id, tell));
                return response;
            }
            Method::DELETE => {
                self.sessions.lock().unwrap().remove(&id);
                return response_with(StatusCode::OK, "text/plain", Vec::new()).0;
            }
            _ => (),
        }
        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
        if message["method"] == "initialize" {
            let ServerBehaviour { initialize_status: opening, initialize_delay: slowly, .. } =
                self.behaviour.lock().unwrap().clone();
            tokio::time::sleep(slowly).await;
            if opening == 0 {
                std::future::pending::<()>().await;
            }
            if opening != 200 {
                let status = StatusCode::from_u16(opening).unwrap();
                let mut denied = response_with(status, "text/plain", vec!["no".to_owned()]).0;
                denied.headers_mut().insert("www-authenticate", "Bearer x".parse().unwrap());
                return denied;
            }
        }
        let mut response = self.respond_to_call(&message).await;
        if message["method"] == "initialize" && !self.behaviour.lock().unwrap().stateless {
            let id = format!("{}-{}", self.name, self.next.fetch_add(1, Ordering::Relaxed));
            response.headers_mut().insert("mcp-session-id", id.parse().unwrap());
            self.sessions.lock().unwrap().insert(id);
        }
        response
    }

    /// Sends a request to the client, and continues after its response.
    fn elicit(&self, good: Value) -> Response<ChannelBody> {
        let (response, tell) = response_with(StatusCode::OK, "text/event-stream", Vec::new());
        let asks = json!({"jsonrpc": "2.0", "id": 0, "method": "elicitation/create"});
        let heard = Arc::clone(&self.client_replies);
        tokio::spawn(async move {
            let _ = tell.send(sse_event(&asks)).await;
            while heard.lock().unwrap().is_empty() && !tell.is_closed() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = tell.send(sse_event(&good)).await;
        });
        response
    }

    async fn respond_to_call(&self, message: &Value) -> Response<ChannelBody> {
        let id = &message["id"];
        if message["method"].is_null() {
            self.client_replies.lock().unwrap().push(message.clone());
        }
        if message["method"].is_null() || id.is_null() {
            return response_with(StatusCode::ACCEPTED, "text/plain", Vec::new()).0;
        }
        let answer = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
        let json =
            |it: Value| response_with(StatusCode::OK, "application/json", vec![it.to_string()]).0;
        if message["method"] == "initialize" {
            let ServerBehaviour { protocol, capabilities, .. } =
                self.behaviour.lock().unwrap().clone();
            let opened = json!({"protocolVersion": protocol, "capabilities": capabilities});
            return json(answer(opened));
        }
        if message["method"] == "subscriptions/listen" {
            return open_stream(vec![sse_event(
                &json!({"method": "notifications/subscriptions/acknowledged"}),
            )]);
        }
        let arguments = &message["params"]["arguments"];
        let pause = Duration::from_millis(arguments["ms"].as_u64().unwrap_or(0));
        let good =
            json!({"release": self.name, "echo": arguments, "protocolVersion": "2025-06-18"});
        let good = answer(good);
        let error = |code: i64| json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "x"}});
        match message["params"]["name"].as_str().unwrap_or_default() {
            "fail" => json(error(-32603)),
            "fail-late" => {
                tokio::time::sleep(pause).await;
                json(error(0))
            }
            "arguments" => json(error(-32602)),
            "refuse" => refuse(id, arguments),
            "wrong" => json(answer(json!({"isError": true, "content": []}))),
            "elicit" => self.elicit(good),
            "stream" => {
                let (response, tell) =
                    response_with(StatusCode::OK, "text/event-stream", Vec::new());
                tokio::spawn(async move {
                    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress"});
                    let _ = tell.send(sse_event(&progress)).await;
                    tokio::time::sleep(pause).await;
                    let _ = tell.send(sse_event(&good)).await;
                });
                response
            }
            _ => {
                tokio::time::sleep(pause).await;
                json(good)
            }
        }
    }
}
