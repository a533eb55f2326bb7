//! Small servers with scripted responses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::config::Address;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request that a fake server received.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedRequest {
    pub(crate) method_name: String,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl ReceivedRequest {
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (have, value) = line.split_once(": ")?;
            have.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// How a fake answers: bytes, then for as long as they are wanted, more of the same end.
pub(crate) struct FakeResponse {
    pub(crate) bytes: Vec<u8>,
    pub(crate) after: AfterResponse,
}

pub(crate) enum AfterResponse {
    Close,
    Hang,
    Repeat(Vec<u8>),
}

impl FakeResponse {
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), after: AfterResponse::Close }
    }

    pub(crate) fn then(self, then: AfterResponse) -> Self {
        Self { after: then, ..self }
    }

    pub(crate) fn with(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::raw(format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n{body}"))
    }

    pub(crate) fn json(status: u16, headers: &str, body: &Value) -> Self {
        Self::with(
            status,
            &format!("content-type: application/json\r\n{headers}"),
            &body.to_string(),
        )
    }

    pub(crate) fn events(events: &str) -> Self {
        Self::raw(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}"))
    }

    pub(crate) fn result(asked: &ReceivedRequest, headers: &str, result: &Value) -> Self {
        Self::json(
            200,
            headers,
            &json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result}),
        )
    }

    pub(crate) fn error(status: u16, asked: &ReceivedRequest, code: i64, message: &str) -> Self {
        let error = json!({"code": code, "message": message});
        Self::json(status, "", &json!({"jsonrpc": "2.0", "id": asked.body["id"], "error": error}))
    }
}

pub(crate) type Log = Arc<Mutex<Vec<ReceivedRequest>>>;

/// A fake on a port of its own.
pub(crate) struct FakeServer {
    pub(crate) address: Address,
    pub(crate) log: Log,
}

impl FakeServer {
    pub(crate) async fn start(
        answer: impl Fn(&ReceivedRequest) -> FakeResponse + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let (log, answer) = (Log::default(), Arc::new(answer));
        let heard = Arc::clone(&log);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, Arc::clone(&heard), Arc::clone(&answer)));
            }
        });
        Self { address, log }
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|asked| asked.method().to_owned()).collect()
    }

    pub(crate) fn deleted_sessions(&self) -> usize {
        self.log.lock().unwrap().iter().filter(|asked| asked.method_name == "DELETE").count()
    }
}

pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: S,
    log: Log,
    answer: Arc<impl Fn(&ReceivedRequest) -> FakeResponse>,
) {
    let mut heard = Vec::new();
    let end = loop {
        if let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut heard).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&heard[..end]).into_owned();
    let verb = head.split(' ').next().unwrap_or_default().to_owned();
    let mut asked = ReceivedRequest { method_name: verb, head, body: Value::Null };
    let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
    while heard.len() < end + 4 + length {
        assert_ne!(socket.read_buf(&mut heard).await.unwrap(), 0);
    }
    asked.body = serde_json::from_slice(&heard[end + 4..]).unwrap_or_default();
    log.lock().unwrap().push(asked.clone());
    let said = answer(&asked);
    let mut alive = socket.write_all(&said.bytes).await.is_ok();
    match said.after {
        AfterResponse::Close => {
            let _ = socket.shutdown().await;
        }
        AfterResponse::Hang => tokio::time::sleep(Duration::from_secs(60)).await,
        AfterResponse::Repeat(bytes) => {
            while alive {
                alive = socket.write_all(&bytes).await.is_ok();
            }
        }
    }
}

pub(crate) fn initialize_result(asked: &ReceivedRequest) -> Value {
    json!({
        "protocolVersion": asked.body["params"]["protocolVersion"],
        "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": false}},
        "serverInfo": {"name": "fake", "version": "1.2"},
    })
}

/// A legacy server that gives out sessions `s1`, `s2`, ... and knows those that `knows` accepts.
pub(crate) fn legacy_response(
    asked: &ReceivedRequest,
    opened: &Mutex<u32>,
    knows: impl Fn(&str) -> bool,
    lost_session_status: u16,
) -> FakeResponse {
    if asked.method_name == "DELETE" {
        return FakeResponse::with(200, "", "");
    }
    if asked.method() == "initialize" {
        let mut opened = opened.lock().unwrap();
        *opened += 1;
        return FakeResponse::result(
            asked,
            &format!("mcp-session-id: s{opened}\r\n"),
            &initialize_result(asked),
        );
    }
    match asked.header("mcp-session-id") {
        None => FakeResponse::error(400, asked, -32000, "Bad Request: Server not initialized"),
        Some(id) if !knows(id) && lost_session_status == 404 => FakeResponse::with(404, "", "gone"),
        Some(id) if !knows(id) => {
            FakeResponse::error(lost_session_status, asked, -32000, "No valid session ID provided")
        }
        Some(_) => match asked.method() {
            "notifications/initialized" => FakeResponse::with(202, "", ""),
            "tools/list" => tools_response(asked),
            _ => FakeResponse::error(200, asked, -32601, "Method not found"),
        },
    }
}

/// Three pages of tools, one a page.
pub(crate) fn tools_response(asked: &ReceivedRequest) -> FakeResponse {
    let page = asked.body["params"]["cursor"].as_str().unwrap_or("1");
    let mut result = json!({"tools": [{"name": format!("tool{page}")}]});
    result["tools"][0]["annotations"]["readOnlyHint"] = json!(page != "2");
    if page != "3" {
        result["nextCursor"] = json!(if page == "1" { "2" } else { "3" });
    }
    FakeResponse::result(asked, "", &result)
}

pub(crate) fn modern_response(asked: &ReceivedRequest) -> FakeResponse {
    let meta = &asked.body["params"]["_meta"];
    let said = asked.header("mcp-protocol-version");
    if meta["io.modelcontextprotocol/protocolVersion"] != "2026-07-28"
        || said != Some("2026-07-28")
        || asked.header("mcp-method") != Some(asked.method())
        || !meta["io.modelcontextprotocol/clientCapabilities"].is_object()
    {
        return FakeResponse::error(400, asked, -32022, "Unsupported protocol version");
    }
    match asked.method() {
        "server/discover" => {
            let meta =
                json!({"io.modelcontextprotocol/serverInfo": {"name": "new", "version": "3"}});
            let result = json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}, "_meta": meta,
            });
            FakeResponse::result(asked, "", &result)
        }
        "tools/list" => tools_response(asked),
        _ => FakeResponse::error(404, asked, -32601, "Method not found"),
    }
}
