//! Hostile and broken clients and releases.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rollbackd::model::Moment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fake_backend::{FakeMcpServer, read_request, scripted};
use crate::http_client::{
    RawConnection, assert_error, open_request, post, request, send_raw, tool_call,
};
use crate::{RELEASE_A, proxy_to, proxy_with, wait_until};

#[tokio::test]
async fn body_sent_byte_by_byte_is_served() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    for byte in request(&tool_call("1", "echo", "{}"), "").bytes() {
        wire.send([byte]).await;
        // A segment of its own for each byte.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(wire.read_response().await.json()["result"]["release"], "a");
}

#[tokio::test]
async fn oversized_body_is_rejected() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_with(a.address, |service| service.limits.body_max = 200_000);
    let fits = tool_call("1", "echo", &format!("\"{}\"", "x".repeat(150_000)));
    assert_eq!(post(proxy.local_addr(), &fits, "").await.status, 200);

    // Announced by Content-Length: rejected before the first byte of the body.
    for path in ["/mcp", "/other"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n"
        );
        assert_eq!(send_raw(proxy.local_addr(), &head).await.status, 413, "{path}");
    }
    // Not announced: rejected at the limit, whether or not the release received a part of it.
    for size in [40_000, 300_000] {
        let proxy = proxy_with(a.address, |service| service.limits.body_max = (size / 2) as u64);
        let mut wire = RawConnection::connect(proxy.local_addr()).await;
        wire.send("POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        wire.send(format!("{size:x}\r\n{}\r\n", "x".repeat(size))).await;
        assert_eq!(wire.read_response().await.status, 413, "{size}");
        assert_eq!(proxy.counts(RELEASE_A).server_fault, 0);
    }
}

#[tokio::test]
async fn malformed_http_is_rejected_and_closed() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
    let good = request(&tool_call("1", "echo", "{}"), "");
    let smuggled = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!";
    for garbage in
        ["\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "GET\r\n\r\n", "nonsense\n\n", smuggled]
    {
        let mut wire = RawConnection::connect(proxy.local_addr()).await;
        println!("{garbage:?}");
        wire.send(garbage).await;
        assert_eq!(wire.read_head().await.0, 400, "{garbage:?}");
        assert!(wire.is_closed().await, "{garbage:?}");

        let mut wire = RawConnection::connect(proxy.local_addr()).await;
        wire.send(format!("{good}{garbage}{good}")).await;
        assert_eq!(wire.read_response().await.status, 200);
        assert_eq!(wire.read_head().await.0, 400, "{garbage:?}");
        assert!(wire.is_closed().await, "{garbage:?}");
    }
    assert_eq!(a.request_count(), 4);
}

#[tokio::test]
async fn endless_client_headers_are_rejected() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    for line in ["X: y\r\n".to_owned(), format!("X-Long: {}\r\n", "y".repeat(4000))] {
        let mut wire = RawConnection::connect(proxy.local_addr()).await;
        wire.send("GET /mcp HTTP/1.1\r\nHost: localhost\r\n").await;
        let mut sent = 0;
        while sent < 4_000_000 && wire.0.get_mut().write_all(line.as_bytes()).await.is_ok() {
            sent += line.len();
        }
        let mut answer = Vec::new();
        // It may be reset, as the proxy reads no further.
        let _ = tokio::time::timeout(Duration::from_secs(10), wire.0.read_to_end(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        assert!(sent < 4_000_000);
    }
    assert_eq!(post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await.status, 200);
}

#[tokio::test]
async fn endless_release_headers_fail_the_request() {
    for line in ["X: y\r\n".to_owned(), format!("X-Long: {}\r\n", "y".repeat(4000))] {
        let upstream = scripted(move |mut stream| {
            let line = line.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(line.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let proxy = proxy_to(upstream);
        let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
        assert_error(&reply.json(), 1.into(), "upstream");
        assert_eq!(proxy.counts(RELEASE_A).server_fault, 1);
    }
}

#[tokio::test]
async fn endless_response_ends_when_the_client_disconnects() {
    let open_now = Arc::new(AtomicUsize::new(0));
    let gauge = Arc::clone(&open_now);
    let upstream = scripted(move |mut stream| {
        let gauge = Arc::clone(&gauge);
        async move {
            read_request(&mut stream).await;
            gauge.fetch_add(1, Ordering::Relaxed);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b' '; 10_000]).await.is_ok() {}
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await;
    let proxy = proxy_to(upstream);
    let mut wire = open_request(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    assert_eq!(wire.read_head().await.0, 200);
    let mut block = vec![0; 4_000_000];
    wire.0.read_exact(&mut block).await.unwrap();
    assert_eq!(open_now.load(Ordering::Relaxed), 1);
    drop(wire);
    wait_until("closed", || open_now.load(Ordering::Relaxed) == 0, String::new).await;
    wait_until("none open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 0, String::new).await;
    assert_eq!(proxy.counts(RELEASE_A).neutral, 1);
}

#[tokio::test]
async fn only_allowed_hosts_and_origins_are_forwarded() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
    for (lines, want) in [
        ("Host: evil.example\r\n", 403),
        ("Host: localhost.evil.example\r\n", 403),
        ("", 400),
        ("Host: localhost\r\nHost: localhost\r\n", 400),
        ("Host: localhost\r\nHost: evil.example\r\n", 400),
        ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://localhost\r\n", 403),
    ] {
        let text = format!("GET /mcp HTTP/1.1\r\n{lines}\r\n");
        assert_eq!(send_raw(proxy.local_addr(), &text).await.status, want, "{lines:?}");
    }
    let absolute = "GET http://evil.example/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(send_raw(proxy.local_addr(), absolute).await.status, 403);
    let connect = "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(send_raw(proxy.local_addr(), connect).await.status, 405);
    assert_eq!(a.request_count(), 0);
    let fine = "Origin: http://localhost:3000\r\n";
    assert_eq!(post(proxy.local_addr(), &tool_call("1", "echo", "{}"), fine).await.status, 200);
}

#[tokio::test]
async fn malformed_ids_are_never_echoed() {
    let proxy = proxy_to(crate::fake_backend::fixed_response("").await);
    for bad in ["abc", "-x", "\"a\u{1}b\"", r#""\q""#] {
        let reply = post(proxy.local_addr(), &tool_call(bad, "echo", "{}"), "").await;
        assert_eq!(reply.status, 502, "{bad} {reply:?}");
    }
}

#[tokio::test]
async fn silent_connections_are_closed() {
    assert_eq!(crate::test_service("test").limits.header_timeout, Duration::from_secs(60));
    let a = FakeMcpServer::start("a").await;
    let proxy =
        proxy_with(a.address, |service| service.limits.header_timeout = Duration::from_millis(300));
    for head in ["", "PRI * HTTP/2.0\r\n", "POST /mcp HTTP/1.1\r\n"] {
        let mut wire = RawConnection::connect(proxy.local_addr()).await;
        wire.send(head).await;
        assert!(wire.is_closed().await, "{head:?}");
    }
}
