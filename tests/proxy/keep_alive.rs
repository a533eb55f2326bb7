//! Connections that are kept: closed by the release as a request leaves, refused, or given up in time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::fake_backend::{json_answer, read_request, scripted};
use crate::http_client::{assert_error, post, send_raw, tool_call};
use crate::{RELEASE_A, proxy_to, wait_until};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// A release that answers the first request of each connection. To the second one it sends `second`
/// and closes. Returns its address, and the requests with their number on their connection.
async fn answers_once(second: &'static str) -> (SocketAddr, Arc<Mutex<Vec<(usize, String)>>>) {
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let written = Arc::clone(&seen);
    let address = scripted(move |mut stream| {
        let seen = Arc::clone(&written);
        async move {
            for number in 1..=2 {
                let Some((head, body)) = read_request(&mut stream).await else { return };
                let text = format!("{head}\n{}", String::from_utf8_lossy(&body));
                seen.lock().unwrap().push((number, text));
                let answer = json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
                let answer = if number == 1 { answer } else { second.to_owned() };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    (address, seen)
}

const TIMED_OUT: &str = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\
                         Content-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_safe_request_that_met_a_close_is_sent_again() {
    for second in ["", TIMED_OUT] {
        let (address, seen) = answers_once(second).await;
        let proxy = proxy_to(address);
        let to = proxy.local_addr();
        for _ in 0..4 {
            assert!(post(to, PING, "").await.text().contains("result"));
        }
        let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(send_raw(to, get).await.status, 200);
        assert_eq!(send_raw(to, get).await.status, 200);
        let seconds = seen.lock().unwrap().iter().filter(|(number, _)| *number == 2).count();
        assert!(seconds > 0, "no request met a close: {seen:?}");
        let counts = proxy.counts(RELEASE_A);
        assert_eq!(counts.server_fault, 0, "{counts:?}");
    }
}

#[tokio::test]
async fn a_call_that_met_a_close_is_not_sent_again() {
    let (address, seen) = answers_once("").await;
    let proxy = proxy_to(address);
    post(proxy.local_addr(), PING, "").await;
    let reply = post(proxy.local_addr(), &tool_call("1", "pay", "{}"), "").await;
    assert_error(&reply.json(), 1.into(), "upstream");
    assert_eq!(reply.json()["error"]["data"]["retryable"], false);
    let calls = seen.lock().unwrap().iter().filter(|(_, text)| text.contains("pay")).count();
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn a_request_that_breaks_a_new_connection_is_not_sent_again() {
    let seen = Arc::new(Mutex::new(0));
    let written = Arc::clone(&seen);
    let address = scripted(move |mut stream| {
        let seen = Arc::clone(&written);
        async move {
            read_request(&mut stream).await;
            *seen.lock().unwrap() += 1;
        }
    })
    .await;
    let proxy = proxy_to(address);
    assert_error(&post(proxy.local_addr(), PING, "").await.json(), 1.into(), "upstream");
    assert_eq!(*seen.lock().unwrap(), 1);
}

#[tokio::test]
async fn the_limit_that_a_release_announces_is_kept() {
    const REQUESTS: usize = 20;
    for (limit, all_new) in [("Keep-Alive: timeout=0\r\n", true), ("", false)] {
        let opened = Arc::new(Mutex::new(0));
        let written = Arc::clone(&opened);
        let address = scripted(move |mut stream: TcpStream| {
            *written.lock().unwrap() += 1;
            async move {
                while read_request(&mut stream).await.is_some() {
                    let answer = json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
                    let answer =
                        answer.replacen("Content-Type", &format!("{limit}Content-Type"), 1);
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        })
        .await;
        let proxy = proxy_to(address);
        for _ in 0..REQUESTS {
            assert_eq!(post(proxy.local_addr(), PING, "").await.status, 200);
        }
        let opened = *opened.lock().unwrap();
        assert_eq!(opened == REQUESTS, all_new, "{limit:?}: {opened} connections");
    }
}

#[tokio::test]
async fn a_refused_request_may_be_sent_again() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = proxy_to(gone);
    let reply = post(proxy.local_addr(), &tool_call("1", "pay", "{}"), "").await;
    assert_error(&reply.json(), 1.into(), "upstream");
    assert_eq!(reply.json()["error"]["data"]["retryable"], true);
}

#[tokio::test]
async fn a_call_waits_for_a_release_behind_a_port_forwarder() {
    // The forwarder accepts from the start, and closes until the release listens.
    let listens = Arc::new(Mutex::new(false));
    let (seen, asked) = (Arc::clone(&listens), Arc::new(Mutex::new(0)));
    let counted = Arc::clone(&asked);
    let address = scripted(move |mut stream| {
        let (listens, asked) = (*seen.lock().unwrap(), Arc::clone(&counted));
        *asked.lock().unwrap() += 1;
        async move {
            while listens && read_request(&mut stream).await.is_some() {
                let answer = json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let proxy = proxy_to(address);
    proxy.allow_startup(RELEASE_A, Duration::from_secs(10));
    let to = proxy.local_addr();
    let call = tokio::spawn(async move { post(to, &tool_call("1", "pay", "{}"), "").await });
    wait_until("asked twice", || *asked.lock().unwrap() >= 2, String::new).await;
    *listens.lock().unwrap() = true;
    assert!(call.await.unwrap().text().contains("result"));
}
