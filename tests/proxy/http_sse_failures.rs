//! POSTs of the HTTP+SSE transport (2024-11-05) that fail: each request gets its answer on the stream,
//! and only what the release did counts.

use std::net::SocketAddr;
use std::time::Duration;

use rollbackd::model::{Counts, Moment};
use rollbackd::proxy::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake_backend::{SSE_HEAD, scripted};
use crate::http_client::{INITIALIZE, RawConnection, assert_error, sse_messages, tool_call};
use crate::http_sse::{Client, chunk, get_stream, relative, sse_server};
use crate::{RELEASE_A, proxy_to, proxy_with, wait_for_counts, wait_until};

/// Larger than what the proxy reads of a body before it sends it, and than all buffers on the way.
const LARGE: usize = 4 * 1024 * 1024;

/// A server that serves streams, and closes the connection of each POST after its head.
async fn closes_posts() -> SocketAddr {
    scripted(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        if head.starts_with(b"GET") {
            let head = SSE_HEAD.replacen("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", 1);
            let event = chunk("event: endpoint\ndata: /messages?session=1\n\n");
            let _ = stream.write_all(format!("{head}{event}").as_bytes()).await;
            let _ = stream.read_u8().await;
        }
    })
    .await
}

fn in_flight(proxy: &Proxy) -> u64 {
    proxy.load(RELEASE_A, Moment(0)).in_flight
}

#[tokio::test]
async fn a_large_request_that_the_release_does_not_take_gets_its_error() {
    let proxy = proxy_to(closes_posts().await);
    let mut client = Client::open(proxy.local_addr()).await;
    // Many clients write the id last.
    let params = format!(r#"{{"name":"echo","arguments":{{"text":"{}"}}}}"#, "x".repeat(LARGE));
    let body = format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{params},"id":7}}"#);
    assert_eq!(client.post(&body).await.status, 202);
    let event = client.stream.read_until("\n\n").await;
    assert_error(&sse_messages(&event)[0], 7.into(), "upstream");
    wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 1, ..Counts::default() }).await;
    // What has no id has no answer on the stream: the status tells.
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(client.post(note).await.status, 502);
    wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 2, ..Counts::default() }).await;
}

#[tokio::test]
async fn a_client_whose_body_is_too_large_learns_it_and_the_release_is_not_blamed() {
    let release = sse_server("a", relative).await;
    let proxy = proxy_with(release, |it| it.limits.body_max = 100_000);
    let client = Client::open(proxy.local_addr()).await;
    let mut post = RawConnection::connect(proxy.local_addr()).await;
    let head = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n", client.endpoint);
    let start = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"text":""#;
    let chunks = format!("{}{}", chunk(start), chunk(&"x".repeat(60_000)).repeat(3));
    post.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    assert_eq!(post.read_head().await.0, 413);
    wait_until("no call waits", || in_flight(&proxy) == 0, || in_flight(&proxy).to_string()).await;
    assert_eq!(proxy.counts(RELEASE_A).server_fault, 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_release_took_its_post_blames_no_one() {
    let proxy = proxy_to(sse_server("a", relative).await);
    let mut client = Client::open(proxy.local_addr()).await;
    let mut post = RawConnection::connect(proxy.local_addr()).await;
    post.send(client.post_text(&tool_call("1", "hang", "{}"))).await;
    wait_until("it is sent", || in_flight(&proxy) == 1, || in_flight(&proxy).to_string()).await;
    drop(post);
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 1, ..Counts::default() }).await;
    wait_until("no call waits", || in_flight(&proxy) == 0, || in_flight(&proxy).to_string()).await;
    assert_eq!(client.call("2", "echo").await["id"], 2);
}

#[tokio::test]
async fn a_call_past_its_deadline_counts_once_and_no_longer_waits() {
    let release = sse_server("a", relative).await;
    let proxy = proxy_with(release, |it| it.limits.deadline = Duration::from_millis(200));
    let client = Client::open(proxy.local_addr()).await;
    assert_eq!(client.post(&tool_call("1", "silent", "{}")).await.status, 202);
    wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 1, ..Counts::default() }).await;
    wait_until("no call waits", || in_flight(&proxy) == 0, || in_flight(&proxy).to_string()).await;
    let failed: Vec<_> = proxy.failed_calls().into_iter().map(|(_, it)| it.message).collect();
    assert_eq!(failed, ["no answer within 200 ms"]);
    // Its session lives.
    assert_eq!(client.post(&tool_call("2", "echo", "{}")).await.status, 202);
}

#[tokio::test]
async fn an_address_opens_a_limited_number_of_streams_a_minute() {
    let release = sse_server("a", relative).await;
    let proxy = proxy_with(release, |it| it.limits.address_sessions_max = 2);
    let to = proxy.local_addr();
    let open = async |client: u8| {
        let mut stream = RawConnection::connect(to).await;
        stream.send(get_stream(&format!("X-Forwarded-For: 192.0.2.{client}\r\n"))).await;
        let status = stream.read_head().await.0;
        let endpoint = match status {
            200 => stream.read_until("\n\n").await,
            _ => String::new(),
        };
        (status, endpoint, stream)
    };
    let opened = [open(1).await, open(1).await];
    assert_eq!(opened.each_ref().map(|it| it.0), [200, 200]);
    assert_eq!(open(1).await.0, 429);
    assert_eq!(open(2).await.0, 200);
    // The session of an open stream is paid for.
    let endpoint = opened[1].1.split("data: ").nth(1).unwrap().trim();
    let head = format!("POST {endpoint} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1");
    let length = INITIALIZE.len();
    let mut post = RawConnection::connect(to).await;
    post.send(format!("{head}\r\nContent-Length: {length}\r\n\r\n{INITIALIZE}")).await;
    assert_eq!(post.read_head().await.0, 202);
}
