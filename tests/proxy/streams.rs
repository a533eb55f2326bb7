//! Server-sent events: passed at once, and never ended without an answer.

use rollbackd::model::Counts;
use tokio::io::AsyncWriteExt;

use crate::client::{Wire, assert_error, call, messages, open, post, say, session};
use crate::upstream::{EVENTS, asked, json_answer, says, scripted};
use crate::{A, before, counted};

const RESULT: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";

#[tokio::test]
async fn events_pass_one_by_one_and_byte_for_byte() {
    let (tell, told) = tokio::sync::mpsc::channel::<String>(1);
    let told = std::sync::Arc::new(tokio::sync::Mutex::new(told));
    let upstream = scripted(move |mut stream| {
        let told = std::sync::Arc::clone(&told);
        async move {
            asked(&mut stream).await;
            stream.write_all(EVENTS.as_bytes()).await.unwrap();
            while let Some(text) = told.lock().await.recv().await {
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let proxy = before(upstream);
    let mut wire = open(proxy.local_addr(), &call("1", "stream", "{}"), "").await;
    assert_eq!(wire.head().await.0, 200);
    // The next one is sent only after this one was seen.
    for event in [": hi\n\n", "data: {\"met", "hod\":\"x\"}\r\n\r\n", "id: 4\rdata:\r\r", RESULT] {
        tell.send(event.to_owned()).await.unwrap();
        assert_eq!(wire.until(event).await, event);
    }
    drop(tell);
    assert_eq!(wire.rest().await, "");
    counted(&proxy, A, Counts { ok: 1, ..Counts::default() }).await;
}

#[tokio::test]
async fn a_stream_without_its_answer_gets_one() {
    let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    for (events, whole) in
        [("", 0), (progress, 1), ("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"resu", 0)]
    {
        for length in [String::new(), format!("Content-Length: {}\r\n", events.len())] {
            let head = EVENTS.replacen("\r\n\r\n", &format!("\r\n{length}\r\n"), 1);
            let proxy = before(says(format!("{head}{events}")).await);
            let reply = post(proxy.local_addr(), &call(r#""k-1""#, "stream", "{}"), "").await;
            let found = messages(&reply.text());
            assert_eq!(found.len(), whole + 1, "{reply:?}");
            assert_error(&found[whole], "k-1".into(), "upstream");
            counted(&proxy, A, Counts { server_fault: 1, ..Counts::default() }).await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_can_be_resumed_may_end_early_but_not_break() {
    let priming = "id: 0\ndata:\n\nretry: 300\n\n";
    let proxy = before(says(format!("{EVENTS}{priming}")).await);
    let reply = post(proxy.local_addr(), &call("1", "stream", "{}"), "").await;
    assert_eq!(reply.text(), priming);
    counted(&proxy, A, Counts { neutral: 1, ..Counts::default() }).await;

    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let broken = format!("{head}{:x}\r\n{priming}\r\n", priming.len());
    let proxy = before(says(broken).await);
    let reply = post(proxy.local_addr(), &call("1", "stream", "{}"), "").await;
    assert_error(&messages(&reply.text())[0], 1.into(), "upstream");
    counted(&proxy, A, Counts { server_fault: 1, ..Counts::default() }).await;
}

#[tokio::test]
async fn the_end_after_the_answer_is_what_the_release_made_it() {
    for end in ["", "data: {\"half", ": bye\n\n"] {
        let proxy = before(says(format!("{EVENTS}{RESULT}{end}")).await);
        let reply = post(proxy.local_addr(), &call("1", "stream", "{}"), "").await;
        assert_eq!(reply.text(), format!("{RESULT}{end}"));
        counted(&proxy, A, Counts { ok: 1, ..Counts::default() }).await;
    }
}

#[tokio::test]
async fn a_get_stream_that_breaks_ends_properly_for_the_client() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let proxy = before(says(format!("{head}5\r\n: hi\n\r\n")).await);
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(say(proxy.local_addr(), get).await.text(), ": hi\n");
}

/// As the example server of the conformance suite does: no events, and JSON line by line.
#[tokio::test]
async fn lines_of_json_pass_though_they_are_neither_one_message_nor_events() {
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#;
    let lines = format!("{progress}\n{}\n", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let proxy = before(says(json_answer(&lines)).await);
    let reply = post(proxy.local_addr(), &call("1", "x", "{}"), "").await;
    assert_eq!((reply.status, reply.text()), (200, lines));
    counted(&proxy, A, Counts { ok: 1, ..Counts::default() }).await;

    let acknowledged = r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged"}"#;
    let upstream = scripted(move |mut stream| async move {
        asked(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        stream.write_all(format!("{head}{acknowledged}\n").as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = before(upstream);
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#;
    let mut wire = open(proxy.local_addr(), listen, "").await;
    assert_eq!(wire.head().await.0, 200);
    wire.until(acknowledged).await;
}

/// 2025-11-25 lets a release end the stream of a call; the client takes it up again with a GET.
#[tokio::test]
async fn a_call_that_waits_on_a_get_is_answered_when_the_release_is_left() {
    let upstream = scripted(|mut stream| async move {
        let (head, body) = asked(&mut stream).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        let session = EVENTS.replacen("\r\n\r\n", "\r\nMcp-Session-Id: s\r\n\r\n", 1);
        let text = match () {
            () if body.contains("initialize") => format!("{session}{}", RESULT.replace('1', "0")),
            () if head.starts_with("POST") => format!("{EVENTS}id: 0\ndata:\n\n"),
            () => format!("{EVENTS}{RESULT}"),
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        if head.starts_with("GET") {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxy = before(upstream);
    let to = proxy.local_addr();
    let mine = session(to).await;
    for id in ["1", "2", r#""c""#] {
        post(to, &call(id, "stream", "{}"), &mine).await;
    }
    let get = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}Last-Event-ID: 0\r\n\r\n");
    let mut wire = Wire::to(to).await;
    wire.send(get).await;
    wire.head().await;
    wire.until(RESULT).await;
    assert_eq!(proxy.cut(A).await.answered, 2);
    let told = messages(&wire.rest().await);
    assert_error(&told[0], 2.into(), "rollback");
    assert_error(&told[1], "c".into(), "rollback");
    assert_eq!((told.len(), &told[2]["method"]), (4, &"notifications/message".into()));
    // Its opening could not be read, so it could not be moved.
    assert_eq!(told[3]["params"]["reason"], "opening unknown");
}

#[tokio::test]
async fn streams_that_only_listen_are_counted_and_so_are_those_that_break() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#;
    let listen = crate::client::request(listen, "");
    for (asked, said, broken) in [
        (&get, format!("{head}{}0\r\n\r\n", chunk(": hi\n\n")), 0),
        (&get, format!("{head}{}", chunk(": hi\n\n")), 1),
        (&listen, format!("{head}{}0\r\n\r\n", chunk(RESULT)), 0),
        (&listen, format!("{head}{}0\r\n\r\n", chunk(": hi\n\n")), 1),
        (&listen, format!("{head}{}", chunk(": hi\n\n")), 1),
    ] {
        let proxy = before(says(said).await);
        say(proxy.local_addr(), asked).await;
        counted(&proxy, A, Counts { ok: 1, streams: 1, broken, ..Counts::default() }).await;
    }
    // The client leaves; and a release without such a stream has none that could end.
    let proxy = before(crate::upstream::Mcp::start("a").await.address);
    let mut wire = Wire::to(proxy.local_addr()).await;
    wire.send(&get).await;
    wire.head().await;
    drop(wire);
    counted(&proxy, A, Counts { ok: 1, streams: 1, ..Counts::default() }).await;
    let proxy = before(says("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n").await);
    say(proxy.local_addr(), &get).await;
    counted(&proxy, A, Counts { neutral: 1, ..Counts::default() }).await;
}
