//! Connections of clients: half-closed, idle, silent, and opened again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake_backend::{FakeMcpServer, SSE_HEAD, json_answer, read_request, scripted};
use crate::http_client::{
    RawConnection, header, open_request, open_session, post, request, tool_call,
};
use crate::migration::proxy_with_session;
use crate::{RELEASE_A, RELEASE_B, proxy_to, proxy_with, wait_until};

const GET: &str = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";

#[tokio::test]
async fn a_client_that_closes_its_half_gets_its_response() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    for (tool, pause) in [("echo", 0), ("echo", 300), ("stream", 300)] {
        let before = server.request_count();
        let mut client = TcpStream::connect(proxy.local_addr()).await.unwrap();
        let call = tool_call("1", tool, &format!(r#"{{"ms":{pause}}}"#));
        client.write_all(request(&call, "").as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(r#""release":"a""#), "{tool} {pause}: {answer}");
        assert_eq!(server.request_count() - before, 1);
    }
}

#[tokio::test]
async fn an_incomplete_body_is_not_waited_for_after_its_end() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let mut client = TcpStream::connect(proxy.local_addr()).await.unwrap();
    let text = request(&tool_call("1", "echo", "{}"), "");
    client.write_all(&text.as_bytes()[..text.len() - 5]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answer));
    assert!(read.await.is_ok(), "the proxy waits for bytes that never come");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_limit_of_a_head() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_with(server.address, |service| {
        service.limits.header_timeout = Duration::from_millis(200);
        service.limits.client_idle = Duration::from_mins(1);
    });
    let mut idle = RawConnection::connect(proxy.local_addr()).await;
    idle.send(request(&tool_call("1", "echo", "{}"), "")).await;
    assert_eq!(idle.read_response().await.status, 200);
    // A head that has begun, also after a request, must be complete in time.
    let mut slow = RawConnection::connect(proxy.local_addr()).await;
    slow.send(request(&tool_call("1", "echo", "{}"), "")).await;
    assert_eq!(slow.read_response().await.status, 200);
    slow.send("POST /mcp HTTP/1.1\r\nHost:").await;
    assert!(slow.is_closed().await);
    idle.send(request(&tool_call("2", "echo", "{}"), "")).await;
    assert_eq!(idle.read_response().await.status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_with(server.address, |service| {
        service.limits.client_idle = Duration::from_millis(300);
    });
    let mut idle = RawConnection::connect(proxy.local_addr()).await;
    idle.send(request(&tool_call("1", "echo", "{}"), "")).await;
    assert_eq!(idle.read_response().await.status, 200);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn a_silent_stream_gets_comments_between_its_events() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_with(server.address, |service| {
        service.limits.sse_ping = Some(Duration::from_millis(50));
    });
    let session = open_session(proxy.local_addr()).await;
    let mut stream = RawConnection::connect(proxy.local_addr()).await;
    stream.send(format!("{GET}{session}\r\n")).await;
    assert_eq!(stream.read_head().await.0, 200);
    stream.read_until(": ping\n\n: ping\n\n").await;
    server.notify_streams("data: {\"half\":").await;
    server.notify_streams("1}\n\n").await;
    let events = stream.read_until("1}\n\n").await;
    assert!(events.contains("data: {\"half\":1}\n\n"), "a comment inside an event: {events:?}");
    stream.read_until(": ping\n\n").await;
}

/// A release that allows one GET stream for a session, as the TypeScript SDK does.
async fn one_stream_for_a_session() -> std::net::SocketAddr {
    let open: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    scripted(move |mut stream| {
        let open = Arc::clone(&open);
        async move {
            while let Some((head, _)) = read_request(&mut stream).await {
                let id = header(&head, "mcp-session-id").unwrap_or_default().to_owned();
                let answer = if !head.starts_with("GET") {
                    let result = r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#;
                    let body = format!(r#"{{"jsonrpc":"2.0","id":0,"result":{result}}}"#);
                    json_answer(&body).replacen("Content", "Mcp-Session-Id: s\r\nContent", 1)
                } else if open.lock().unwrap().insert(id.clone()) {
                    let _ = stream.write_all(SSE_HEAD.as_bytes()).await;
                    let _ = stream.read(&mut [0]).await;
                    open.lock().unwrap().remove(&id);
                    return;
                } else {
                    "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n".to_owned()
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_comes_back_replaces_its_stale_stream() {
    let proxy = proxy_to(one_stream_for_a_session().await);
    let session = open_session(proxy.local_addr()).await;
    let mut stale = RawConnection::connect(proxy.local_addr()).await;
    stale.send(format!("{GET}{session}\r\n")).await;
    assert_eq!(stale.read_head().await.0, 200);
    let mut again = RawConnection::connect(proxy.local_addr()).await;
    again.send(format!("{GET}{session}\r\n")).await;
    assert_eq!(again.read_head().await.0, 200);
    stale.read_to_end().await;
    let streams = || proxy.load(RELEASE_A, rollbackd::model::Moment(0)).in_flight;
    wait_until("no request is open", || streams() == 0, || streams().to_string()).await;
}

/// A client may have several streams in a session, which all come back when their release is left.
#[tokio::test]
async fn streams_of_one_session_do_not_end_each_other_after_a_move() {
    let (_a, b, proxy, session) = proxy_with_session().await;
    b.set_behaviour(|it| it.one_stream = true);
    let open = async |more: &str| {
        let mut stream = RawConnection::connect(proxy.local_addr()).await;
        stream.send(format!("{GET}{session}{more}\r\n")).await;
        assert_eq!(stream.read_head().await.0, 200);
        stream
    };
    let mut first = open("").await;
    proxy.set_active(RELEASE_B);
    proxy.migrate_sessions_from(Some(RELEASE_A));
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &session).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    let streams = || b.streams.lock().unwrap().len();
    wait_until("the stream moves", || streams() == 1, || streams().to_string()).await;
    let mut others = [open("Last-Event-ID: e1\r\n").await, open("Last-Event-ID: e2\r\n").await];
    b.notify_streams("data: {\"method\":\"x\"}\n\n").await;
    first.read_until(r#""method":"x""#).await;
    let gets = b.methods().iter().filter(|it| it.starts_with("GET")).count();
    assert_eq!(gets, 3, "{:?}", b.methods());
    // They come back once the first one has ended.
    drop(first);
    for other in &mut others {
        assert!(other.read_to_end().await.contains("retry:"));
    }
}

/// A client that holds a connection without need does not keep others out; one with a request does.
#[tokio::test]
async fn where_all_places_are_taken_the_longest_idle_connection_closes() {
    let proxy = proxy_with(FakeMcpServer::start("a").await.address, |service| {
        service.limits.connections_max = 2;
    });
    let to = proxy.local_addr();
    let mut busy = open_request(to, &tool_call("1", "wait", r#"{"ms":3000}"#), "").await;
    let mut idle = RawConnection::connect(to).await;
    idle.send(request(&tool_call("2", "echo", "{}"), "")).await;
    assert_eq!(idle.read_response().await.status, 200);
    let reply = post(to, &tool_call("3", "echo", "{}"), "").await;
    assert_eq!(reply.json()["result"]["release"], "a");
    assert!(idle.is_closed().await);
    assert_eq!(busy.read_response().await.json()["id"], 1);
}

/// The limit of a head is longer than other clients can wait.
#[tokio::test]
async fn where_all_places_are_taken_a_connection_whose_head_is_incomplete_closes() {
    let proxy = proxy_with(FakeMcpServer::start("a").await.address, |service| {
        service.limits.connections_max = 1;
        service.limits.header_timeout = Duration::from_hours(1);
    });
    let to = proxy.local_addr();
    for begun in ["", "PO", "POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let mut slow = RawConnection::connect(to).await;
        slow.send(begun).await;
        let reply = post(to, &tool_call("1", "echo", "{}"), "").await;
        assert_eq!(reply.json()["result"]["release"], "a", "{begun:?}");
        assert!(slow.is_closed().await, "{begun:?}");
    }
    let mut second = RawConnection::connect(to).await;
    second.send(request(&tool_call("1", "echo", "{}"), "")).await;
    assert_eq!(second.read_response().await.status, 200);
    second.send("POST /mcp HTTP/1.1\r\nHost:").await;
    let reply = post(to, &tool_call("2", "echo", "{}"), "").await;
    assert_eq!(reply.json()["result"]["release"], "a");
    assert!(second.is_closed().await);
}
