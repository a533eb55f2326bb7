//! Heads and small messages through the proxy.

use std::sync::{Arc, Mutex};

use rollbackd::config::Address;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use crate::fake_backend::{FakeMcpServer, fixed_response, json_answer, read_request, scripted};
use crate::http_client::{RawConnection, header, post, request, send_raw, tool_call};
use crate::{RELEASE_A, proxy_to, start, test_service};

const OK_BODY: &str = r#"{ "jsonrpc":"2.0", "id":1, "result":{ "text":"\u00e9 – ünï" } }"#;

#[tokio::test]
async fn json_response_is_forwarded_byte_for_byte() {
    let proxy = proxy_to(fixed_response(json_answer(OK_BODY)).await);
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, OK_BODY));
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn chunked_http10_and_close_delimited_responses_are_forwarded() {
    let kind = "Content-Type: application/json\r\n";
    let middle = OK_BODY.len() / 2;
    for answer in [
        format!("HTTP/1.0 200 OK\r\n{kind}\r\n{OK_BODY}"),
        format!("HTTP/1.1 200 OK\r\n{kind}\r\n{OK_BODY}"),
        format!(
            "HTTP/1.1 200 OK\r\n{kind}Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &OK_BODY[..1],
            OK_BODY.len() - 1,
            &OK_BODY[1..]
        ),
        format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{}", json_answer(OK_BODY)),
    ] {
        let proxy = proxy_to(fixed_response(answer.clone()).await);
        let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, OK_BODY), "{middle} {answer}");
        assert!(reply.head.starts_with("HTTP/1.1 "), "{}", reply.head);
    }
}

/// Returns what a release receives for a text.
async fn received_by_release(text: &str) -> (String, String) {
    let log = Arc::new(Mutex::new(None));
    let written = Arc::clone(&log);
    let upstream = scripted(move |mut stream| {
        let log = Arc::clone(&written);
        async move {
            *log.lock().unwrap() = read_request(&mut stream).await;
            stream.write_all(json_answer(OK_BODY).as_bytes()).await.unwrap();
        }
    })
    .await;
    let reply = send_raw(proxy_to(upstream).local_addr(), text).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let (head, body) = log.lock().unwrap().take().unwrap();
    (format!("{head}\r\n[upstream {upstream}]"), String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn forwarded_headers_are_set_and_hop_by_hop_headers_removed() {
    let headers = "Connection: keep-alive, X-Mine, TE\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\n\
        X-Other: 2\r\nProxy-Authorization: Basic x\r\nUpgrade: websocket\r\nTE: trailers\r\n\
        Accept-Encoding: gzip\r\nAuthorization: Bearer t\r\nX-Forwarded-For: 192.0.2.1\r\n";
    let (head, body) = received_by_release(&request(&tool_call("1", "echo", "{}"), headers)).await;
    assert_eq!(body, tool_call("1", "echo", "{}"));
    for gone in ["keep-alive", "x-mine", "proxy-authorization", "upgrade", "accept-encoding"] {
        assert_eq!(header(&head, gone), None, "{gone}: {head}");
    }
    for (name, value) in [
        ("x-other", "2"),
        ("te", "trailers"),
        ("authorization", "Bearer t"),
        ("x-forwarded-host", "localhost"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "192.0.2.1, 127.0.0.1"),
    ] {
        assert_eq!(header(&head, name), Some(value), "{name}: {head}");
    }
    assert!(head.contains(&format!("[upstream {}]", header(&head, "host").unwrap())), "{head}");
}

#[tokio::test]
async fn proxy_handles_chunked_bodies_and_expect_itself() {
    let body = tool_call("1", "echo", "{}");
    let chunked = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         1\r\n{}\r\n{:x};x=y\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
        &body[..1],
        body.len() - 1,
        &body[1..]
    );
    assert_eq!(received_by_release(&chunked).await.1, body);

    let log: Arc<Mutex<String>> = Arc::default();
    let written = Arc::clone(&log);
    let upstream = scripted(move |mut stream| {
        let log = Arc::clone(&written);
        async move {
            *log.lock().unwrap() = read_request(&mut stream).await.unwrap().0;
            stream.write_all(json_answer(OK_BODY).as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut wire = RawConnection::connect(proxy_to(upstream).local_addr()).await;
    let text = request(&body, "Expect: 100-continue\r\n");
    let (head, rest) = text.split_once("\r\n\r\n").unwrap();
    wire.send(format!("{head}\r\n\r\n")).await;
    assert_eq!(wire.read_head().await.0, 100);
    wire.send(rest).await;
    assert_eq!(wire.read_response().await.text(), OK_BODY);
    assert_eq!(header(&log.lock().unwrap(), "expect"), None);
}

#[tokio::test]
async fn response_hop_by_hop_headers_are_removed() {
    let answer = json_answer(OK_BODY).replacen(
        "\r\n",
        "\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-End: 1\r\n",
        1,
    );
    let proxy = proxy_to(fixed_response(answer).await);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    for _ in 0..2 {
        wire.send(request(&tool_call("1", "echo", "{}"), "")).await;
        let reply = wire.read_response().await;
        assert_eq!((reply.header("x-hop"), reply.header("keep-alive")), (None, None));
        assert_eq!((reply.header("connection"), reply.header("x-end")), (None, Some("1")));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mcp = FakeMcpServer::start("a").await;
    let proxy = proxy_to(mcp.address);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    let ask = |n: u32| {
        let pause = if n.is_multiple_of(2) { 60 } else { 0 };
        request(&tool_call(&n.to_string(), "wait", &format!(r#"{{"ms":{pause}}}"#)), "")
    };
    wire.send((0..6).map(ask).collect::<String>()).await;
    for n in 0..6 {
        assert_eq!(wire.read_response().await.json()["id"], n);
    }
}

#[tokio::test]
async fn head_options_and_empty_responses_are_forwarded() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1234\r\n\r\n";
    let mut wire = RawConnection::connect(proxy_to(fixed_response(head).await).local_addr()).await;
    wire.send("HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (status, head) = wire.read_head().await;
    assert_eq!((status, header(&head, "content-length")), (200, Some("1234")));
    assert_eq!(header(&head, "transfer-encoding"), None);

    let allow = "HTTP/1.1 204 No Content\r\nAllow: POST\r\n\r\n";
    let options = "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let reply = send_raw(proxy_to(fixed_response(allow).await).local_addr(), options).await;
    assert_eq!((reply.status, reply.header("allow")), (204, Some("POST")));

    let same = "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n";
    let get = "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut wire = RawConnection::connect(proxy_to(fixed_response(same).await).local_addr()).await;
    for _ in 0..2 {
        wire.send(get).await;
        let reply = wire.read_response().await;
        assert_eq!((reply.status, reply.header("etag")), (304, Some("\"1\"")));
    }
}

#[tokio::test]
async fn unix_socket_release_is_reachable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("release.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(json_answer(OK_BODY).as_bytes()).await.unwrap();
            std::mem::forget(stream);
        }
    });
    let proxy = start(&test_service("test"));
    proxy.add_release(RELEASE_A, &Address::Unix(path));
    proxy.set_active(RELEASE_A);
    assert_eq!(post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await.text(), OK_BODY);
}

#[tokio::test]
async fn idle_connections_closed_by_the_release_fail_no_request() {
    let upstream = scripted(|mut stream| async move {
        // Three requests each, then the connection ends without a word before.
        for _ in 0..3 {
            if read_request(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(json_answer(OK_BODY).as_bytes()).await.unwrap();
        }
    })
    .await;
    let proxy = proxy_to(upstream);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    for _ in 0..60 {
        wire.send(request(&tool_call("1", "echo", "{}"), "")).await;
        assert_eq!(wire.read_response().await.text(), OK_BODY);
        // A client that pauses, so that the release closes idle connections.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    assert_eq!(proxy.counts(RELEASE_A).ok, 60);
}
