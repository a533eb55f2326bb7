//! Which requests are MCP: however the endpoint is spelled, and at other paths; and what is none.

use std::net::SocketAddr;
use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::model::{Counts, Moment, Unjudged};
use tokio::io::AsyncWriteExt as _;

use crate::fake_backend::{FakeMcpServer, fixed_response, read_request, scripted};
use crate::http_client::{HttpResponse, INITIALIZE, RawConnection, send_raw, tool_call};
use crate::{RELEASE_A, RELEASE_B, proxy_to, proxy_with, wait_for_counts, wait_until};

fn text(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         {headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn post_to(to: SocketAddr, path: &str, headers: &str, body: &str) -> HttpResponse {
    send_raw(to, &text("POST", path, headers, body)).await
}

/// Answers every request with a status, without a JSON-RPC message.
async fn status_server(status: &'static str) -> SocketAddr {
    scripted(move |mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn every_spelling_of_the_endpoint_is_judged_and_its_sessions_move() {
    for path in ["/mcp/", "//mcp", "/mcp//", "/MCP", "/%6Dcp", "/./mcp", "/elsewhere"] {
        let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
        let proxy = proxy_to(a.address);
        let to = proxy.local_addr();
        let opened = post_to(to, path, "", INITIALIZE).await;
        let mine = format!("Mcp-Session-Id: {}\r\n", opened.header("mcp-session-id").unwrap());
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        post_to(to, path, &mine, initialized).await;
        for tool in ["fail", "fail", "wrong", "echo"] {
            post_to(to, path, &mine, &tool_call("1", tool, "{}")).await;
        }
        let want = Counts { ok: 2, server_fault: 2, tool_fault: 1, ..Counts::default() };
        wait_for_counts(&proxy, RELEASE_A, want).await;
        // The release gets the path as the client wrote it.
        assert!(a.log.lock().unwrap().iter().all(|(head, ..)| head == &format!("POST {path}")));
        proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
        proxy.set_active(RELEASE_B);
        proxy.cut(RELEASE_A).await;
        let moved = post_to(to, path, &mine, &tool_call("9", "echo", "{}")).await;
        assert_eq!(moved.json()["result"]["release"], "b", "{path}");
    }
}

#[tokio::test]
async fn case_can_be_exact() {
    let proxy = proxy_with(status_server("404 Not Found").await, |service| {
        service.path_case_exact = true;
    });
    let reply = send_raw(proxy.local_addr(), &text("GET", "/MCP", "", "")).await;
    assert_eq!(reply.status, 404);
    assert_eq!(proxy.unjudged(RELEASE_A).not_mcp_4xx, 1);
    assert_eq!(proxy.counts(RELEASE_A).total(), 0);
}

#[tokio::test]
async fn what_is_no_mcp_passes_and_is_no_evidence() {
    for (status, want) in [
        ("200 OK", Unjudged { not_mcp: 6, ..Unjudged::default() }),
        ("404 Not Found", Unjudged { not_mcp: 6, not_mcp_4xx: 6, ..Unjudged::default() }),
        ("501 Unsupported", Unjudged { not_mcp: 6, not_mcp_5xx: 6, ..Unjudged::default() }),
    ] {
        let proxy = proxy_to(status_server(status).await);
        let to = proxy.local_addr();
        for request in [
            text("PROPFIND", "/", "", ""),
            text("GET", "/favicon.ico", "", ""),
            text("FOO", "/mcp", "", ""),
            text("PUT", "/x", "", &tool_call("1", "echo", "{}")),
            text("POST", "/card", "", r#"{"method":"visa","id":7,"params":{"name":"x"}}"#),
            text("POST", "/form", "", "method=x&jsonrpc=2.0"),
        ] {
            let reply = send_raw(to, &request).await;
            assert!(status.starts_with(&reply.status.to_string()), "{request} {reply:?}");
            assert_eq!(reply.text(), "no");
        }
        assert_eq!(proxy.unjudged(RELEASE_A), want);
        assert_eq!(proxy.counts(RELEASE_A), Counts::default());
        assert!(proxy.mcp_paths().is_empty());
    }
    let proxy = proxy_to(fixed_response("").await);
    let reply = send_raw(proxy.local_addr(), &text("GET", "/x", "", "")).await;
    assert_eq!(reply.status, 502);
    assert_eq!(proxy.unjudged(RELEASE_A).not_mcp_5xx, 1);
    assert_eq!(proxy.counts(RELEASE_A), Counts::default());
}

/// Anybody can send JSON-RPC to a path that serves something else, or nothing.
#[tokio::test]
async fn json_rpc_that_no_release_answers_is_shown_but_not_judged() {
    for (path, status) in [
        ("/messages?session_id=1", "202 Accepted"),
        ("/x", "500 Internal Server Error"),
        ("/MCP", "501 Unsupported"),
        ("/y", "404 Not Found"),
    ] {
        let proxy = proxy_to(status_server(status).await);
        for _ in 0..3 {
            let reply = post_to(proxy.local_addr(), path, "", &tool_call("1", "echo", "{}")).await;
            assert!(status.starts_with(&reply.status.to_string()), "{reply:?}");
        }
        let paths = proxy.mcp_paths();
        assert_eq!((paths[0].requests, paths[0].judged), (3, false), "{paths:?}");
        assert_eq!(proxy.unjudged(RELEASE_A).not_mcp, 3);
        assert_eq!(proxy.counts(RELEASE_A), Counts::default());
    }
}

/// Once a release has answered there, a path is an endpoint: its later failures count.
#[tokio::test]
async fn another_path_that_served_mcp_is_judged() {
    let mcp = FakeMcpServer::start("a").await;
    let proxy = proxy_to(mcp.address);
    let to = proxy.local_addr();
    post_to(to, "/alias", "", &tool_call("1", "echo", "{}")).await;
    proxy.add_release(RELEASE_B, &Address::Tcp(status_server("500 Broken").await));
    proxy.set_active(RELEASE_B);
    let large = format!("\"{}\"", "x".repeat(200_000));
    post_to(to, "/alias", "", &tool_call("1", "echo", &large)).await;
    wait_for_counts(&proxy, RELEASE_B, Counts { server_fault: 1, ..Counts::default() }).await;
}

#[tokio::test]
async fn a_long_poll_beside_the_endpoint_does_not_hold_up_a_drain() {
    let silent = scripted(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy_to(silent);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send(text("GET", "/events", "", "")).await;
    let drain = proxy.drain(RELEASE_A, Duration::from_secs(60));
    tokio::time::timeout(Duration::from_secs(10), drain).await.unwrap();
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).in_flight, 0);
}

#[tokio::test]
async fn a_body_that_is_no_json_rpc_streams() {
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let bytes = std::sync::Arc::clone(&seen);
    let upstream = scripted(move |mut stream| {
        let bytes = std::sync::Arc::clone(&bytes);
        async move {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
                bytes.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
            }
        }
    })
    .await;
    let proxy = proxy_to(upstream);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nstart")
        .await;
    // The release sees the start although the rest never comes.
    let got = || seen.load(std::sync::atomic::Ordering::Relaxed);
    wait_until("the start of the body", || got() > 0, || got().to_string()).await;
}
