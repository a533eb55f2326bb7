//! Clients and releases that mean harm, or know no better.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rollbackd::model::Moment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Wire, assert_error, call, open, post, request, say};
use crate::upstream::{Mcp, asked, scripted};
use crate::{A, before, eventually, with};

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_served() {
    let proxy = before(Mcp::start("a").await.address);
    let mut wire = Wire::to(proxy.local_addr()).await;
    for byte in request(&call("1", "echo", "{}"), "").bytes() {
        wire.send([byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(wire.reply().await.json()["result"]["release"], "a");
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused() {
    let a = Mcp::start("a").await;
    let proxy = with(a.address, |service| service.limits.body = 200_000);
    let fits = call("1", "echo", &format!("\"{}\"", "x".repeat(150_000)));
    assert_eq!(post(proxy.local_addr(), &fits, "").await.status, 200);

    // Told in advance: refused before a byte of it came.
    for path in ["/mcp", "/other"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n"
        );
        assert_eq!(say(proxy.local_addr(), &head).await.status, 413, "{path}");
    }
    // Not told: refused when it is too much, whether or not the release has a part of it.
    for size in [40_000, 300_000] {
        let proxy = with(a.address, |service| service.limits.body = (size / 2) as u64);
        let mut wire = Wire::to(proxy.local_addr()).await;
        wire.send("POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        wire.send(format!("{size:x}\r\n{}\r\n", "x".repeat(size))).await;
        assert_eq!(wire.reply().await.status, 413, "{size}");
        assert_eq!(proxy.counts(A).server_fault, 0);
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_closed() {
    let a = Mcp::start("a").await;
    let proxy = before(a.address);
    let good = request(&call("1", "echo", "{}"), "");
    let smuggled = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!";
    for garbage in
        ["\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", "GET\r\n\r\n", "nonsense\n\n", smuggled]
    {
        let mut wire = Wire::to(proxy.local_addr()).await;
        println!("{garbage:?}");
        wire.send(garbage).await;
        assert_eq!(wire.head().await.0, 400, "{garbage:?}");
        assert!(wire.closes().await, "{garbage:?}");

        let mut wire = Wire::to(proxy.local_addr()).await;
        wire.send(format!("{good}{garbage}{good}")).await;
        assert_eq!(wire.reply().await.status, 200);
        assert_eq!(wire.head().await.0, 400, "{garbage:?}");
        assert!(wire.closes().await, "{garbage:?}");
    }
    assert_eq!(a.asked(), 4);
}

#[tokio::test]
async fn endless_headers_of_a_client_are_refused() {
    let proxy = before(Mcp::start("a").await.address);
    for line in ["X: y\r\n".to_owned(), format!("X-Long: {}\r\n", "y".repeat(4000))] {
        let mut wire = Wire::to(proxy.local_addr()).await;
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
    assert_eq!(post(proxy.local_addr(), &call("1", "echo", "{}"), "").await.status, 200);
}

#[tokio::test]
async fn endless_headers_of_a_release_fail_the_request() {
    for line in ["X: y\r\n".to_owned(), format!("X-Long: {}\r\n", "y".repeat(4000))] {
        let upstream = scripted(move |mut stream| {
            let line = line.clone();
            async move {
                asked(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(line.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let proxy = before(upstream);
        let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), "").await;
        assert_error(&reply.json(), 1.into(), "upstream");
        assert_eq!(proxy.counts(A).server_fault, 1);
    }
}

#[tokio::test]
async fn an_endless_body_is_streamed_and_ends_when_the_client_leaves() {
    let open_now = Arc::new(AtomicUsize::new(0));
    let gauge = Arc::clone(&open_now);
    let upstream = scripted(move |mut stream| {
        let gauge = Arc::clone(&gauge);
        async move {
            asked(&mut stream).await;
            gauge.fetch_add(1, Ordering::Relaxed);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b' '; 10_000]).await.is_ok() {}
            gauge.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await;
    let proxy = before(upstream);
    let mut wire = open(proxy.local_addr(), &call("1", "echo", "{}"), "").await;
    assert_eq!(wire.head().await.0, 200);
    let mut block = vec![0; 4_000_000];
    wire.0.read_exact(&mut block).await.unwrap();
    assert_eq!(open_now.load(Ordering::Relaxed), 1);
    drop(wire);
    eventually("closed", || open_now.load(Ordering::Relaxed) == 0, String::new).await;
    eventually("none open", || proxy.load(A, Moment(0)).in_flight == 0, String::new).await;
    assert_eq!(proxy.counts(A).neutral, 1);
}

#[tokio::test]
async fn only_allowed_hosts_and_origins_reach_a_release() {
    let a = Mcp::start("a").await;
    let proxy = before(a.address);
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
        assert_eq!(say(proxy.local_addr(), &text).await.status, want, "{lines:?}");
    }
    let absolute = "GET http://evil.example/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(say(proxy.local_addr(), absolute).await.status, 403);
    let connect = "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(say(proxy.local_addr(), connect).await.status, 405);
    assert_eq!(a.asked(), 0);
    let fine = "Origin: http://localhost:3000\r\n";
    assert_eq!(post(proxy.local_addr(), &call("1", "echo", "{}"), fine).await.status, 200);
}

#[tokio::test]
async fn ids_that_are_no_json_are_never_repeated() {
    let proxy = before(crate::upstream::says("").await);
    for bad in ["abc", "-x", "\"a\u{1}b\"", r#""\q""#] {
        let reply = post(proxy.local_addr(), &call(bad, "echo", "{}"), "").await;
        assert_eq!(reply.status, 502, "{bad} {reply:?}");
    }
}

#[tokio::test]
async fn connections_that_never_say_anything_are_closed() {
    let proxy = before(Mcp::start("a").await.address);
    let closed = |hello: &'static str| {
        let address = proxy.local_addr();
        async move {
            let mut wire = Wire::to(address).await;
            wire.send(hello).await;
            let mut rest = Vec::new();
            let closed = wire.0.read_to_end(&mut rest);
            tokio::time::timeout(Duration::from_secs(90), closed).await.unwrap().unwrap();
        }
    };
    // A minute each, at the same time.
    tokio::join!(closed(""), closed("PRI * HTTP/2.0\r\n"), closed("POST /mcp HTTP/1.1\r\n"));
}
