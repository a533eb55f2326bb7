//! A release is cut: everything that is open gets its answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rollbackd::config::Address;
use rollbackd::model::{Counts, Moment};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{assert_error, call, messages, open, post};
use crate::upstream::{EVENTS, Mcp, asked, scripted};
use crate::{A, B, QUIET, before, counted, eventually};

fn ids() -> [(&'static str, Value); 4] {
    [
        ("17", json!(17)),
        (r#""text""#, json!("text")),
        (r#""a\"\\\u00e9\n""#, json!("a\"\\é\n")),
        ("-3", json!(-3)),
    ]
}

#[tokio::test]
async fn a_cut_answers_every_open_request_for_its_own_id() {
    let proxy = before(Mcp::start("a").await.address);
    let mut open_now = Vec::new();
    for tool in ["wait", "stream"] {
        for (text, id) in ids() {
            let body = call(text, tool, r#"{"ms":60000}"#);
            open_now.push((tool, id, open(proxy.local_addr(), &body, "").await));
        }
    }
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 8, String::new).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let toll = proxy.cut(A).await;
    assert_eq!((toll.answered, toll.streams, toll.ended), (8, 0, 0));
    for (tool, id, mut wire) in open_now {
        let reply = wire.reply().await;
        assert_eq!(reply.status, 200);
        let answer = match tool {
            "wait" => reply.json(),
            _ => messages(&reply.text()).pop().unwrap(),
        };
        assert_error(&answer, id, "rollback");
    }
    counted(&proxy, A, Counts { neutral: 8, ..Counts::default() }).await;
}

#[tokio::test]
async fn http_2_clients_are_served_and_cut_alike() {
    let proxy = before(Mcp::start("a").await.address);
    let stream = TcpStream::connect(proxy.local_addr()).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{}/mcp", proxy.local_addr());
    let mut post = |body: String| {
        let request = http::Request::post(&uri).header("content-type", "application/json");
        client.send_request(request.body(Full::new(Bytes::from(body))).unwrap())
    };
    let reply = post(call("1", "echo", "{}")).await.unwrap();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["result"]["release"], "a");
    let mut calls = Vec::new();
    for tool in ["wait", "stream"] {
        for (text, id) in ids() {
            calls.push((tool, id, tokio::spawn(post(call(text, tool, r#"{"ms":60000}"#)))));
        }
    }
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 8, String::new).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(proxy.cut(A).await.answered, 8);
    for (tool, id, call) in calls {
        let reply = call.await.unwrap().unwrap();
        assert_eq!(reply.status(), 200);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let answer = match tool {
            "wait" => serde_json::from_slice(&body).unwrap(),
            _ => messages(&String::from_utf8_lossy(&body)).pop().unwrap(),
        };
        assert_error(&answer, id, "rollback");
    }
}

#[tokio::test]
async fn a_listen_stream_ends_gracefully_and_counts_as_a_session() {
    let proxy = before(Mcp::start("a").await.address);
    let listen = r#"{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{}}"#;
    let headers = "MCP-Protocol-Version: 2026-07-28\r\n";
    let mut wire = open(proxy.local_addr(), listen, headers).await;
    wire.head().await;
    wire.until("acknowledged").await;
    let load = proxy.load(A, Moment(0));
    assert_eq!((load.sessions, load.in_flight), (1, 0));
    let toll = proxy.cut(A).await;
    assert_eq!((toll.answered, toll.streams, toll.ended), (0, 1, 1));
    let result = messages(&wire.rest().await).remove(0);
    assert_eq!(result["id"], "l-1");
    assert_eq!(result["result"]["resultType"], "complete");
    assert_eq!(result["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l-1");
    counted(&proxy, A, Counts { neutral: 1, streams: 1, ..Counts::default() }).await;
}

#[tokio::test]
async fn a_listen_stream_that_its_release_ends_is_over_for_the_client_too() {
    let text = format!("{EVENTS}data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{}}}}\n\n");
    let proxy = before(crate::upstream::says(text.clone()).await);
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#;
    let reply = post(proxy.local_addr(), listen, "").await;
    assert!(text.ends_with(&reply.text()) && !reply.body.is_empty(), "{reply:?}");
}

#[tokio::test]
async fn a_listen_stream_goes_on_at_the_other_release_and_hears_that_lists_changed() {
    for drain in [true, false] {
        let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
        let proxy = before(a.address);
        proxy.add(B, &Address::Tcp(b.address));
        let listen = r#"{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;
        let headers = "MCP-Protocol-Version: 2026-07-28\r\n";
        let mut wire = open(proxy.local_addr(), listen, headers).await;
        wire.head().await;
        wire.until("acknowledged").await;
        proxy.route(B);
        let toll = match drain {
            true => proxy.drain(A, Duration::from_secs(20)).await,
            false => proxy.cut(A).await,
        };
        assert_eq!((toll.answered, toll.streams, toll.ended, toll.moved), (0, 0, 0, 1));
        let told = messages(&wire.until("notifications/tools/list_changed").await).remove(0);
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l-1");
        assert_eq!(proxy.load(B, Moment(0)).sessions, 1);
        // A second acknowledgement would tell of a second subscription.
        proxy.cut(B).await;
        let rest = wire.rest().await;
        assert!(!rest.contains("acknowledged"), "{rest}");
        assert_eq!(messages(&rest)[0]["result"]["resultType"], "complete");
    }
}

#[tokio::test]
async fn a_json_answer_cut_in_the_middle_still_becomes_an_answer() {
    let upstream = scripted(|mut stream| async move {
        asked(&mut stream).await;
        let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"id\":1,";
        stream.write_all(half.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = before(upstream);
    let mut wire = open(proxy.local_addr(), &call("1", "echo", "{}"), "").await;
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 1, String::new).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(proxy.cut(A).await.answered, 1);
    assert_error(&wire.reply().await.json(), 1.into(), "rollback");
}

#[tokio::test]
async fn the_next_request_after_a_switch_meets_the_new_release() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let mut wire = crate::client::Wire::to(proxy.local_addr()).await;
    for round in 0..20 {
        let (to, name) = if round % 2 == 0 { (B, "b") } else { (A, "a") };
        proxy.route(to);
        wire.send(crate::client::request(&call("1", "echo", "{}"), "")).await;
        assert_eq!(wire.reply().await.json()["result"]["release"], name);
    }
}

#[tokio::test]
async fn a_release_that_was_cut_can_be_added_again_and_without_one_there_is_an_answer() {
    let a = Mcp::start("a").await;
    let proxy = before(a.address);
    proxy.cut(A).await;
    let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), "").await;
    assert_error(&reply.json(), 1.into(), "rollback");
    proxy.add(A, &Address::Tcp(a.address));
    proxy.route(A);
    let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), "").await;
    assert_eq!(reply.json()["result"]["release"], "a");
    proxy.remove(A).await;
    let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), "").await;
    assert_error(&reply.json(), 1.into(), "no_release");
}

#[tokio::test]
async fn clients_that_never_read_hold_up_no_cut_and_cost_little() {
    let _quiet = QUIET.lock().await;
    let upstream = scripted(|mut stream| async move {
        asked(&mut stream).await;
        let _ = stream.write_all(EVENTS.as_bytes()).await;
        let event = format!("data: {}\n\n", "x".repeat(60_000));
        while stream.write_all(event.as_bytes()).await.is_ok() {}
    })
    .await;
    let proxy = before(upstream);
    let before = crate::bodies::resident();
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(open(proxy.local_addr(), &call("1", "stream", "{}"), "").await);
    }
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 4, String::new).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let most = crate::bodies::resident();
    assert!(most < before + 32 * 1024 * 1024, "{before} {most}");
    let cut = proxy.cut(A);
    let toll = tokio::time::timeout(Duration::from_secs(5), cut).await.unwrap();
    assert_eq!(toll.streams, 0);
    drop(readers);
    eventually("gone", || proxy.load(A, Moment(0)).in_flight == 0, String::new).await;
}

#[tokio::test]
async fn an_endless_json_answer_does_not_outlive_a_cut() {
    let upstream = scripted(|mut stream| async move {
        asked(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[";
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(&[b' '; 60_000]).await.is_ok() {}
    })
    .await;
    let proxy = before(upstream);
    let mut wire = open(proxy.local_addr(), &call("1", "echo", "{}"), "").await;
    wire.head().await;
    let reading = tokio::spawn(async move { wire.closes().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.cut(A).await;
    assert!(reading.await.unwrap());
    eventually("gone", || proxy.load(A, Moment(0)).in_flight == 0, String::new).await;
}

#[tokio::test]
async fn a_drain_out_of_patience_and_a_stop_answer_what_is_open() {
    for stop in [false, true] {
        let proxy = before(Mcp::start("a").await.address);
        let mut waiting = Vec::new();
        for tool in ["wait", "stream"] {
            let body = call("1", tool, r#"{"ms":60000}"#);
            waiting.push(open(proxy.local_addr(), &body, "").await);
        }
        eventually("open", || proxy.load(A, Moment(0)).in_flight == 2, String::new).await;
        waiting[1].head().await;
        if stop {
            proxy.stop().await;
            assert!(TcpStream::connect(proxy.local_addr()).await.is_err());
        } else {
            let toll = proxy.drain(A, Duration::from_millis(200)).await;
            assert_eq!((toll.answered, toll.streams, toll.ended), (2, 0, 0));
        }
        assert_error(&waiting[0].reply().await.json(), 1.into(), "rollback");
        let events = waiting[1].rest().await;
        assert_error(&messages(&events).pop().unwrap(), 1.into(), "rollback");
    }
}

#[tokio::test]
async fn a_request_that_is_still_coming_is_answered_by_a_cut() {
    let proxy = before(Mcp::start("a").await.address);
    let large = call("1", "echo", &format!("\"{}\"", "x".repeat(300_000)));
    let text = crate::client::request(&large, "");
    let mut wire = crate::client::Wire::to(proxy.local_addr()).await;
    wire.send(&text[..200_000]).await;
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 1, String::new).await;
    let cut = tokio::spawn(async move { proxy.cut(A).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The id may well stand at the end.
    wire.send(&text[200_000..]).await;
    assert_error(&wire.reply().await.json(), 1.into(), "rollback");
    assert_eq!(cut.await.unwrap().answered, 1);
}

#[tokio::test]
async fn a_stream_cut_within_an_event_gets_its_answer_as_an_event_of_its_own() {
    for half in
        ["data: {\"method\":\"x\"}\n", "data: {\"jsonr", "event: mess", ": comm", "data: {}\r"]
    {
        let upstream = scripted(move |mut stream| async move {
            asked(&mut stream).await;
            let _ = stream.write_all(format!("{EVENTS}{half}").as_bytes()).await;
            std::future::pending::<()>().await;
        })
        .await;
        let proxy = before(upstream);
        let mut wire = open(proxy.local_addr(), &call("1", "stream", "{}"), "").await;
        wire.head().await;
        let mut events = wire.until(half).await;
        proxy.cut(A).await;
        events.push_str(&wire.rest().await);
        let events = events.replace('\r', "\n");
        let last = events.trim_end().rsplit("\n\n").next().unwrap();
        assert_error(&messages(last)[0], 1.into(), "rollback");
    }
}
