//! A release that compresses its responses although no request asks for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_compression::tokio::write::{
    BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder,
};
use rollbackd::config::Address;
use rollbackd::model::Counts;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fake_backend::{fixed_response, read_request, scripted};
use crate::http_client::{
    RawConnection, assert_error, header, open_request, open_session, post, send_raw, sse_messages,
    tool_call,
};
use crate::{RELEASE_A, RELEASE_B, proxy_to, wait_for_counts, wait_until};

/// The codings, and how a server names them. Some send deflate without its header.
const CODINGS: [(&str, &str); 5] = [
    ("gzip", "gzip"),
    ("zlib", "deflate"),
    ("bare deflate", "deflate"),
    ("br", "br"),
    ("zstd", "zstd"),
];

type Writer = Box<dyn AsyncWrite + Send + Unpin>;

fn encoder(coding: &str, stream: TcpStream) -> Writer {
    match coding {
        "gzip" => Box::new(GzipEncoder::new(stream)),
        "zlib" => Box::new(ZlibEncoder::new(stream)),
        "bare deflate" => Box::new(DeflateEncoder::new(stream)),
        "br" => Box::new(BrotliEncoder::new(stream)),
        _ => Box::new(ZstdEncoder::new(stream)),
    }
}

/// A release that answers one request on a connection. It records the heads of the requests.
async fn compressing_release(
    name: &'static str,
    (coding, label): (&'static str, &'static str),
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&heads);
    let address = scripted(move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            let Some((head, body)) = read_request(&mut stream).await else { return };
            log.lock().unwrap().push(head.clone());
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            let is_stream = head.starts_with("GET /mcp") || message["params"]["name"] == "stream";
            let kind = if is_stream { "text/event-stream" } else { "application/json" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {label}\r\n\
                 ETag: \"1\"\r\nMcp-Session-Id: {name}-1\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut writer = encoder(coding, stream);
            respond(&mut writer, name, &message, is_stream).await;
            let _ = writer.shutdown().await;
        }
    })
    .await;
    (address, heads)
}

async fn respond(writer: &mut Writer, name: &str, message: &Value, is_stream: bool) {
    let id = &message["id"];
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}),
        _ => json!({"release": name, "text": "x".repeat(100)}),
    };
    let answer = match message["params"]["name"].as_str() {
        Some("fail") => json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32603}}),
        _ => json!({"jsonrpc": "2.0", "id": id, "result": result}),
    };
    if !is_stream {
        return writer.write_all(answer.to_string().as_bytes()).await.unwrap();
    }
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress"});
    writer.write_all(format!("data: {progress}\n\n").as_bytes()).await.unwrap();
    writer.flush().await.unwrap();
    if id.is_null() {
        return std::future::pending().await;
    }
    // Only an event that passes as soon as it was flushed reaches the client before this one.
    tokio::time::sleep(Duration::from_millis(300)).await;
    writer.write_all(format!("data: {answer}\n\n").as_bytes()).await.unwrap();
}

#[tokio::test]
async fn its_outcomes_are_known_and_the_client_gets_it_decoded() {
    for coding in CODINGS {
        let proxy = proxy_to(compressing_release("a", coding).await.0);
        let to = proxy.local_addr();
        let reply = post(to, &tool_call("1", "ok", "{}"), "Accept-Encoding: gzip, br\r\n").await;
        assert_eq!(reply.json()["result"]["release"], "a");
        assert_eq!(reply.header("content-encoding"), None);
        assert_eq!(reply.header("etag"), Some("W/\"1\""));
        let reply = post(to, &tool_call("2", "fail", "{}"), "").await;
        assert_eq!(reply.json()["error"]["code"], -32603);
        let want = Counts { ok: 1, server_fault: 1, ..Counts::default() };
        wait_for_counts(&proxy, RELEASE_A, want).await;
        assert_eq!(proxy.unjudged(RELEASE_A).unread, 0);
    }
}

#[tokio::test]
async fn each_event_passes_when_the_release_flushes_it() {
    for coding in CODINGS {
        let proxy = proxy_to(compressing_release("a", coding).await.0);
        let mut wire = open_request(proxy.local_addr(), &tool_call("1", "stream", "{}"), "").await;
        let (_, head) = wire.read_head().await;
        assert_eq!(header(&head, "content-encoding"), None);
        let first = wire.read_until("\n\n").await;
        assert_eq!(sse_messages(&first).len(), 1, "{coding:?} {first}");
        let rest = wire.read_to_end().await;
        assert_eq!(sse_messages(&rest)[0]["result"]["release"], "a");
        wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, ..Counts::default() }).await;
    }
}

#[tokio::test]
async fn its_sessions_and_their_streams_move() {
    for coding in CODINGS {
        let (a, _) = compressing_release("a", coding).await;
        let (b, at_b) = compressing_release("b", coding).await;
        let proxy = proxy_to(a);
        let to = proxy.local_addr();
        proxy.add_release(RELEASE_B, &Address::Tcp(b));
        let mine = open_session(to).await;
        post(to, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, &mine).await;
        let mut stream = RawConnection::connect(to).await;
        let get = format!(
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}\r\n"
        );
        stream.send(&get).await;
        assert_eq!(stream.read_head().await.0, 200);
        stream.read_until("notifications/progress").await;
        proxy.set_active(RELEASE_B);
        proxy.cut(RELEASE_A).await;
        let reply = post(to, &tool_call("2", "ok", "{}"), &mine).await;
        assert_eq!(reply.json()["result"]["release"], "b", "{coding:?}");
        stream.read_until("notifications/progress").await;
        let heads = at_b.lock().unwrap().clone();
        assert!(heads.iter().any(|head| head.starts_with("GET")), "{heads:?}");
        let asked = heads.iter().find(|head| header(head, "accept-encoding").is_some());
        assert_eq!(asked, None);
    }
}

#[tokio::test]
async fn a_broken_coding_is_a_fault_of_the_release_and_gets_an_answer() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                  Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd";
    let proxy = proxy_to(fixed_response(answer).await);
    let reply = post(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
    assert_error(&reply.json(), json!(1), "upstream");
    wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 1, ..Counts::default() }).await;
}

/// A few bytes that become many megabytes.
#[tokio::test]
async fn what_would_grow_without_end_is_cut_and_no_evidence() {
    let _guard = crate::MEMORY_TEST_LOCK.lock().await;
    let mut encoder = BrotliEncoder::new(Vec::new());
    let start = r#"{"jsonrpc":"2.0","id":1,"x":""#;
    encoder.write_all(start.as_bytes()).await.unwrap();
    for _ in 0..40 {
        encoder.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    }
    encoder.write_all(br#"","result":{}}"#).await.unwrap();
    encoder.shutdown().await.unwrap();
    let body = encoder.into_inner();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: br\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let proxy = proxy_to(fixed_response([head.into_bytes(), body].concat()).await);
    let mut wire = open_request(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
    wire.read_head().await;
    assert!(wire.is_closed().await);
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 1, ..Counts::default() }).await;
    assert_eq!(proxy.unjudged(RELEASE_A).unread, 1);
}

/// A page, or what a client asked to be compressed, is none of the proxy's business.
#[tokio::test]
async fn what_is_no_mcp_stays_compressed() {
    let (release, heads) = compressing_release("a", ("gzip", "gzip")).await;
    let proxy = proxy_to(release);
    for request in ["PUT /data", "HEAD /mcp", "DELETE /mcp"] {
        let text = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        let mut wire = RawConnection::connect(proxy.local_addr()).await;
        wire.send(&text).await;
        let (_, head) = wire.read_head().await;
        assert_eq!(header(&head, "content-encoding"), Some("gzip"), "{request}");
        assert_eq!(header(&head, "etag"), Some("\"1\""), "{request}");
    }
    let asked = heads.lock().unwrap().first().cloned().unwrap();
    assert_eq!(header(&asked, "accept-encoding"), Some("gzip"));
}

#[tokio::test]
async fn metadata_that_is_compressed_names_the_public_url() {
    let (release, _) = compressing_release("a", ("gzip", "gzip")).await;
    let proxy = proxy_to(release);
    let get = "GET /.well-known/oauth-protected-resource HTTP/1.1\r\nHost: localhost\r\n\
               Accept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let reply = send_raw(proxy.local_addr(), get).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, None));
    wait_until("it to end", || proxy.unjudged(RELEASE_A).not_mcp == 1, String::new).await;
}
