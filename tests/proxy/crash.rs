//! A release that crashes outside a deploy: what its clients notice until it, or another one, serves.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rollbackd::model::Moment;
use rollbackd::proxy::Proxy;
use tokio::io::AsyncWriteExt as _;

use crate::fake_backend::{FakeMcpServer, json_answer, read_request, scripted};
use crate::http_client::{
    RawConnection, header, open_request, open_session, post, send_raw, tool_call,
};
use crate::migration::proxy_with_session;
use crate::{RELEASE_A, RELEASE_B, proxy_to, wait_until};

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const EVENT: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n";

/// The GET stream of a session.
async fn open_stream(proxy: &Proxy, session: &str) -> RawConnection {
    post(proxy.local_addr(), INITIALIZED, session).await;
    let mut stream = RawConnection::connect(proxy.local_addr()).await;
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";
    stream.send(format!("{get}{session}\r\n")).await;
    assert_eq!(stream.read_head().await.0, 200);
    stream.read_until(": open\n\n").await;
    stream
}

async fn wait_for_stream(server: &FakeMcpServer) {
    let count = || server.streams.lock().unwrap().len();
    wait_until("the stream is open again", || count() == 1, || count().to_string()).await;
}

#[tokio::test]
async fn an_open_stream_outlives_a_crash_of_its_release() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    let session = open_session(proxy.local_addr()).await;
    let mut stream = open_stream(&proxy, &session).await;
    for _ in 0..2 {
        server.crash().await;
        let broken = || proxy.counts(RELEASE_A).streams_broken;
        wait_until("the proxy notices", || broken() > 0, || broken().to_string()).await;
        server.restart().await;
        wait_for_stream(&server).await;
        server.notify_streams(EVENT).await;
        stream.read_until(r#""method":"x""#).await;
    }
    // The client did nothing, and its session is the same.
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &session).await;
    assert_eq!(reply.json()["result"]["release"], "a");
}

/// Clients do not open a subscription again by themselves.
#[tokio::test]
async fn a_subscription_outlives_a_crash_of_its_release() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    let listen = r#"{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;
    let mut stream = open_request(proxy.local_addr(), listen, "").await;
    assert_eq!(stream.read_head().await.0, 200);
    stream.read_until("acknowledged").await;
    for crash in 1..=2 {
        server.crash().await;
        let broken = || proxy.counts(RELEASE_A).streams_broken;
        wait_until("the proxy notices", || broken() == crash, || broken().to_string()).await;
        server.restart().await;
        // What it missed may have changed the list.
        let seen = stream.read_until("tools/list_changed").await;
        assert!(!seen.contains("acknowledged"), "{seen}");
    }
    // It still ends with its result.
    proxy.cut(RELEASE_A).await;
    let end = stream.read_to_end().await;
    assert!(end.contains(r#""id":"l-1","result""#), "{end}");
}

#[tokio::test]
async fn a_client_can_end_a_session_that_its_release_lost() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    let session = open_session(proxy.local_addr()).await;
    server.drop_sessions();
    server.set_behaviour(|it| it.unknown = (404, "Session not found"));
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{session}\r\n");
    assert_eq!(send_raw(proxy.local_addr(), &delete).await.status, 200);
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 0);
}

#[tokio::test]
async fn an_open_stream_outlives_a_release_that_ends_it_and_stops() {
    let (a, b, proxy, session) = proxy_with_session().await;
    let mut stream = open_stream(&proxy, &session).await;
    a.stop().await;
    let ended = || proxy.counts(RELEASE_A).streams_ended;
    wait_until("the proxy notices", || ended() > 0, || ended().to_string()).await;
    assert_eq!(proxy.counts(RELEASE_A).streams_broken, 0);
    proxy.set_active(RELEASE_B);
    proxy.migrate_sessions_from(Some(RELEASE_A));
    wait_for_stream(&b).await;
    b.notify_streams(EVENT).await;
    stream.read_until(r#""method":"x""#).await;
}

#[tokio::test]
async fn a_stream_ends_where_its_release_goes_on_without_it() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    let session = open_session(proxy.local_addr()).await;
    let mut stream = open_stream(&proxy, &session).await;
    server.notify_streams(EVENT).await;
    server.streams.lock().unwrap().clear();
    assert!(stream.read_to_end().await.ends_with(EVENT));
    assert_eq!(server.methods().iter().filter(|it| it.starts_with("GET")).count(), 1);
    let counts = || (proxy.counts(RELEASE_A).streams_ended, proxy.counts(RELEASE_A).streams_broken);
    wait_until("it counts", || counts() == (1, 0), || format!("{:?}", counts())).await;
}

#[tokio::test]
async fn an_open_stream_continues_at_the_release_that_takes_over() {
    let (a, b, proxy, session) = proxy_with_session().await;
    let mut stream = open_stream(&proxy, &session).await;
    proxy.set_active(RELEASE_B);
    a.crash().await;
    proxy.migrate_sessions_from(Some(RELEASE_A));
    wait_for_stream(&b).await;
    b.notify_streams(EVENT).await;
    stream.read_until(r#""method":"x""#).await;
    let sessions = [RELEASE_A, RELEASE_B].map(|it| proxy.load(it, Moment(0)).sessions);
    assert_eq!(sessions, [0, 1]);
    // Its events are rewritten now: of one that the next crash cuts in two, the client gets nothing.
    b.notify_streams(&format!("{EVENT}event: message\ndata: {{\"half")).await;
    stream.read_until(r#""method":"x""#).await;
    b.crash().await;
    b.restart().await;
    wait_for_stream(&b).await;
    b.notify_streams(EVENT).await;
    let events = stream.read_until(r#""method":"x""#).await;
    assert!(!events.contains("half"), "{events}");
}

#[tokio::test]
async fn a_stream_whose_credentials_no_longer_count_ends_at_once() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    let session = open_session(proxy.local_addr()).await;
    let mut stream = open_stream(&proxy, &session).await;
    server.crash().await;
    server.set_behaviour(|it| it.unknown = (401, "invalid_token"));
    server.restart().await;
    assert!(stream.read_to_end().await.contains("retry:"));
}

#[tokio::test]
async fn requests_wait_for_a_release_that_restarts() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    let to = proxy.local_addr();
    let session = open_session(to).await;
    server.crash().await;
    let waiting = tokio::spawn(async move {
        let call = tool_call("1", "echo", "{}");
        post(to, &call, &session).await
    });
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    server.restart().await;
    assert_eq!(waiting.await.unwrap().json()["result"]["release"], "a");
}

/// A release that keeps its session. Each GET gets the next of these texts, and its connection breaks;
/// after the last text it stays. Also the heads of the GETs.
async fn breaks_streams(texts: &'static [&'static str]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    let address = scripted(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some((head, _)) = read_request(&mut stream).await {
                let is_stream = head.starts_with("GET");
                let answer = if is_stream {
                    let number = seen.lock().unwrap().len();
                    seen.lock().unwrap().push(head);
                    let text = format!(": open\n\n{}", texts.get(number).unwrap_or(&""));
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
                    format!(
                        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n",
                        text.len()
                    )
                } else {
                    let result = r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#;
                    let body = format!(r#"{{"jsonrpc":"2.0","id":0,"result":{result}}}"#);
                    json_answer(&body).replacen("Content", "Mcp-Session-Id: s\r\nContent", 1)
                };
                let _ = stream.write_all(answer.as_bytes()).await;
                if is_stream && seen.lock().unwrap().len() < texts.len() {
                    return;
                }
            }
        }
    })
    .await;
    (address, heads)
}

#[tokio::test]
async fn a_release_that_kept_the_session_gets_the_id_of_the_last_whole_event() {
    let (address, heads) = breaks_streams(&[
        "",
        "id: e1\ndata: {}\n\nid: e2\ndata: {\"half",
        "",
        "id: e2\ndata: {\"method\":\"x\"}\n\n",
    ])
    .await;
    let proxy = proxy_to(address);
    let session = open_session(proxy.local_addr()).await;
    let mut stream = RawConnection::connect(proxy.local_addr()).await;
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";
    stream.send(format!("{get}Last-Event-ID: c7\r\n{session}\r\n")).await;
    assert_eq!(stream.read_head().await.0, 200);
    stream.read_until(r#""method":"x""#).await;
    let heads = heads.lock().unwrap();
    let ids: Vec<_> = heads.iter().map(|head| header(head, "last-event-id")).collect();
    // The client's own, until there was an event; then the last whole one, also where none came since.
    assert_eq!(ids, [Some("c7"), Some("c7"), Some("e1"), Some("e1")]);
}
