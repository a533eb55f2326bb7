//! Server-sent events: forwarded at once; no stream ends without a response.

use rollbackd::model::Counts;
use tokio::io::AsyncWriteExt;

use crate::fake_backend::{SSE_HEAD, fixed_response, json_answer, read_request, scripted};
use crate::http_client::{
    RawConnection, assert_error, open_request, open_session, post, send_raw, sse_messages,
    tool_call,
};
use crate::{RELEASE_A, proxy_to, wait_for_counts};

const RESULT: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";

#[tokio::test]
async fn sse_events_are_forwarded_individually_and_unchanged() {
    let (tell, told) = tokio::sync::mpsc::channel::<String>(1);
    let told = std::sync::Arc::new(tokio::sync::Mutex::new(told));
    let upstream = scripted(move |mut stream| {
        let told = std::sync::Arc::clone(&told);
        async move {
            read_request(&mut stream).await;
            stream.write_all(SSE_HEAD.as_bytes()).await.unwrap();
            while let Some(text) = told.lock().await.recv().await {
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let proxy = proxy_to(upstream);
    let mut wire = open_request(proxy.local_addr(), &tool_call("1", "stream", "{}"), "").await;
    assert_eq!(wire.read_head().await.0, 200);
    // The next one is sent only after this one was seen.
    for event in [": hi\n\n", "data: {\"met", "hod\":\"x\"}\r\n\r\n", "id: 4\rdata:\r\r", RESULT] {
        tell.send(event.to_owned()).await.unwrap();
        assert_eq!(wire.read_until(event).await, event);
    }
    drop(tell);
    assert_eq!(wire.read_to_end().await, "");
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, ..Counts::default() }).await;
}

#[tokio::test]
async fn stream_without_a_response_gets_an_error() {
    let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    for (events, whole) in
        [("", 0), (progress, 1), ("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"resu", 0)]
    {
        for length in [String::new(), format!("Content-Length: {}\r\n", events.len())] {
            let head = SSE_HEAD.replacen("\r\n\r\n", &format!("\r\n{length}\r\n"), 1);
            let proxy = proxy_to(fixed_response(format!("{head}{events}")).await);
            let reply = post(proxy.local_addr(), &tool_call(r#""k-1""#, "stream", "{}"), "").await;
            let found = sse_messages(&reply.text());
            assert_eq!(found.len(), whole + 1, "{reply:?}");
            assert_error(&found[whole], "k-1".into(), "upstream");
            wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 1, ..Counts::default() })
                .await;
        }
    }
}

#[tokio::test]
async fn resumable_stream_may_end_early_but_not_break() {
    let priming = "id: 0\ndata:\n\nretry: 300\n\n";
    let proxy = proxy_to(fixed_response(format!("{SSE_HEAD}{priming}")).await);
    let reply = post(proxy.local_addr(), &tool_call("1", "stream", "{}"), "").await;
    assert_eq!(reply.text(), priming);
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 1, ..Counts::default() }).await;

    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let broken = format!("{head}{:x}\r\n{priming}\r\n", priming.len());
    let proxy = proxy_to(fixed_response(broken).await);
    let reply = post(proxy.local_addr(), &tool_call("1", "stream", "{}"), "").await;
    assert_error(&sse_messages(&reply.text())[0], 1.into(), "upstream");
    wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 1, ..Counts::default() }).await;
}

#[tokio::test]
async fn stream_end_after_the_response_is_preserved() {
    for end in ["", "data: {\"half", ": bye\n\n"] {
        let proxy = proxy_to(fixed_response(format!("{SSE_HEAD}{RESULT}{end}")).await);
        let reply = post(proxy.local_addr(), &tool_call("1", "stream", "{}"), "").await;
        assert_eq!(reply.text(), format!("{RESULT}{end}"));
        wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, ..Counts::default() }).await;
    }
}

#[tokio::test]
async fn broken_get_stream_ends_cleanly_for_the_client() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let proxy = proxy_to(fixed_response(format!("{head}5\r\n: hi\n\r\n")).await);
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(send_raw(proxy.local_addr(), get).await.text(), ": hi\n");
}

/// As the example server of the conformance suite does: no events, and JSON line by line.
#[tokio::test]
async fn json_lines_are_forwarded() {
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#;
    let lines = format!("{progress}\n{}\n", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let proxy = proxy_to(fixed_response(json_answer(&lines)).await);
    let reply = post(proxy.local_addr(), &tool_call("1", "x", "{}"), "").await;
    assert_eq!((reply.status, reply.text()), (200, lines));
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, ..Counts::default() }).await;

    let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}"#;
    let upstream = scripted(move |mut stream| async move {
        read_request(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        stream.write_all(format!("{head}{acknowledged}\n").as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy_to(upstream);
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#;
    let mut wire = open_request(proxy.local_addr(), listen, "").await;
    assert_eq!(wire.read_head().await.0, 200);
    wire.read_until(acknowledged).await;
}

/// 2025-11-25 lets a release end the stream of a call; the client takes it up again with a GET.
#[tokio::test]
async fn detached_call_is_answered_on_release_switch() {
    let upstream = scripted(|mut stream| async move {
        let (head, body) = read_request(&mut stream).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        let session = SSE_HEAD.replacen("\r\n\r\n", "\r\nMcp-Session-Id: s\r\n\r\n", 1);
        let text = match () {
            () if body.contains("initialize") => format!("{session}{}", RESULT.replace('1', "0")),
            () if head.starts_with("POST") => format!("{SSE_HEAD}id: 0\ndata:\n\n"),
            () => format!("{SSE_HEAD}{RESULT}"),
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        if head.starts_with("GET") {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxy = proxy_to(upstream);
    let to = proxy.local_addr();
    let mine = open_session(to).await;
    for id in ["1", "2", r#""c""#] {
        post(to, &tool_call(id, "stream", "{}"), &mine).await;
    }
    let get = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}Last-Event-ID: 0\r\n\r\n");
    let mut wire = RawConnection::connect(to).await;
    wire.send(get).await;
    wire.read_head().await;
    wire.read_until(RESULT).await;
    assert_eq!(proxy.cut(RELEASE_A).await.error_responses, 2);
    let told = sse_messages(&wire.read_to_end().await);
    assert_error(&told[0], 2.into(), "rollback");
    assert_error(&told[1], "c".into(), "rollback");
    assert_eq!((told.len(), &told[2]["method"]), (4, &"notifications/message".into()));
    // The proxy could not read its initialize, so it cannot migrate.
    assert_eq!(told[3]["params"]["reason"], "opening unknown");
}

#[tokio::test]
async fn listening_and_broken_streams_are_counted() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#;
    let listen = crate::http_client::request(listen, "");
    for (asked, said, streams_broken) in [
        (&get, format!("{head}{}0\r\n\r\n", chunk(": hi\n\n")), 0),
        (&get, format!("{head}{}", chunk(": hi\n\n")), 1),
        (&listen, format!("{head}{}0\r\n\r\n", chunk(RESULT)), 0),
        (&listen, format!("{head}{}0\r\n\r\n", chunk(": hi\n\n")), 1),
    ] {
        let proxy = proxy_to(fixed_response(said).await);
        send_raw(proxy.local_addr(), asked).await;
        wait_for_counts(
            &proxy,
            RELEASE_A,
            Counts { ok: 1, streams_ended: 1, streams_broken, ..Counts::default() },
        )
        .await;
    }
    // The client leaves; and a release without such a stream has none that could end.
    let proxy = proxy_to(crate::fake_backend::FakeMcpServer::start("a").await.address);
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send(&get).await;
    wire.read_head().await;
    drop(wire);
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, streams_ended: 1, ..Counts::default() })
        .await;
    let proxy = proxy_to(fixed_response("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n").await);
    send_raw(proxy.local_addr(), &get).await;
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 1, ..Counts::default() }).await;
}
