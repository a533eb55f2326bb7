//! An HTTP client that gives access to every byte.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest wait for a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// One connection.
pub(crate) struct RawConnection(pub BufReader<TcpStream>);

/// A whole response.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl HttpResponse {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (have, value) = line.split_once(':')?;
        have.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl RawConnection {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).await.unwrap();
    }

    /// Waits until the response has begun; it is still to be read.
    pub(crate) async fn wait_for_response(&mut self) {
        let begun = tokio::time::timeout(READ_TIMEOUT, self.0.fill_buf());
        assert!(!begun.await.unwrap().unwrap().is_empty(), "closed without a response");
    }

    /// The next head, 100 and 103 too.
    pub(crate) async fn read_head(&mut self) -> (u16, String) {
        let mut head = String::new();
        loop {
            let line = self.read_line().await;
            assert!(!line.is_empty(), "closed within a head: {head:?}");
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head)
    }

    pub(crate) async fn read_line(&mut self) -> String {
        let mut line = String::new();
        tokio::time::timeout(READ_TIMEOUT, self.0.read_line(&mut line)).await.unwrap().unwrap();
        line
    }

    pub(crate) async fn read_response(&mut self) -> HttpResponse {
        let (mut status, mut head) = self.read_head().await;
        while status == 103 {
            (status, head) = self.read_head().await;
        }
        let bodiless = matches!(status, 204 | 304);
        let body = if bodiless { Vec::new() } else { self.read_body(&head).await };
        HttpResponse { status, head, body }
    }

    async fn read_body(&mut self, head: &str) -> Vec<u8> {
        let mut body = Vec::new();
        if header(head, "transfer-encoding").is_some() {
            while self.read_chunk(&mut body).await {}
        } else if let Some(length) = header(head, "content-length") {
            body.resize(length.parse().unwrap(), 0);
            tokio::time::timeout(READ_TIMEOUT, self.0.read_exact(&mut body))
                .await
                .unwrap()
                .unwrap();
        } else {
            tokio::time::timeout(READ_TIMEOUT, self.0.read_to_end(&mut body))
                .await
                .unwrap()
                .unwrap();
        }
        body
    }

    /// One chunk; `false` after the last one.
    async fn read_chunk(&mut self, body: &mut Vec<u8>) -> bool {
        let line = self.read_line().await;
        let Ok(size) = usize::from_str_radix(line.trim(), 16) else {
            panic!("cut off after {:?}", String::from_utf8_lossy(body));
        };
        if size == 0 {
            while !matches!(self.read_line().await.as_str(), "\r\n" | "") {}
            return false;
        }
        let at = body.len();
        body.resize(at + size + 2, 0);
        tokio::time::timeout(READ_TIMEOUT, self.0.read_exact(&mut body[at..]))
            .await
            .unwrap()
            .unwrap();
        body.truncate(at + size);
        true
    }

    /// Reads chunks until `needle` was received.
    pub(crate) async fn read_until(&mut self, needle: &str) -> String {
        let mut body = Vec::new();
        while !String::from_utf8_lossy(&body).contains(needle) {
            assert!(self.read_chunk(&mut body).await, "{:?}", String::from_utf8_lossy(&body));
        }
        String::from_utf8(body).unwrap()
    }

    /// Reads chunks until the last one.
    pub(crate) async fn read_to_end(&mut self) -> String {
        let mut body = Vec::new();
        while self.read_chunk(&mut body).await {}
        String::from_utf8(body).unwrap()
    }

    /// Whether the other end closes, after more bytes or none.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(READ_TIMEOUT, self.0.read_to_end(&mut rest)).await.is_ok()
    }

    /// What comes until the other end closes, or resets the connection.
    pub(crate) async fn read_rest(&mut self) -> String {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(READ_TIMEOUT, self.0.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {:?}", String::from_utf8_lossy(&rest));
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// The text of a POST; `headers` are whole lines.
pub(crate) fn request(body: &str, headers: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a POST on a connection of its own.
pub(crate) async fn post(to: SocketAddr, body: &str, headers: &str) -> HttpResponse {
    let mut wire = open_request(to, body, headers).await;
    wire.read_response().await
}

/// Sends a POST; the caller reads the response.
pub(crate) async fn open_request(to: SocketAddr, body: &str, headers: &str) -> RawConnection {
    let mut wire = RawConnection::connect(to).await;
    wire.send(request(body, headers)).await;
    wire
}

/// Sends a text, and reads one response.
pub(crate) async fn send_raw(to: SocketAddr, text: &str) -> HttpResponse {
    let mut wire = RawConnection::connect(to).await;
    wire.send(text).await;
    wire.read_response().await
}

/// A `tools/call`.
pub(crate) fn tool_call(id: &str, tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

pub(crate) const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

/// Opens a session. Returns its header line.
pub(crate) async fn open_session(to: SocketAddr) -> String {
    let reply = post(to, INITIALIZE, "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id").unwrap())
}

/// Asserts an error response that the proxy made itself.
pub(crate) fn assert_error(answer: &Value, id: Value, reason: &str) {
    assert_eq!(answer["id"], id, "{answer}");
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert_eq!(answer["error"]["data"]["reason"], reason, "{answer}");
}

/// The messages in a text of server-sent events.
pub(crate) fn sse_messages(events: &str) -> Vec<Value> {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}
