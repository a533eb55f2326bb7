//! A release is cut off: every open request receives a response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rollbackd::config::Address;
use rollbackd::model::{Counts, Moment};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::fake_backend::{FakeMcpServer, SSE_HEAD, read_request, scripted};
use crate::http_client::{assert_error, open_request, open_session, post, sse_messages, tool_call};
use crate::{MEMORY_TEST_LOCK, RELEASE_A, RELEASE_B, begin, proxy_to, wait_for_counts, wait_until};

fn sample_ids() -> [(&'static str, Value); 4] {
    [
        ("17", json!(17)),
        (r#""text""#, json!("text")),
        (r#""a\"\\\u00e9\n""#, json!("a\"\\é\n")),
        ("-3", json!(-3)),
    ]
}

#[tokio::test]
async fn cut_answers_every_open_request_with_its_id() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
    let mut open_now = Vec::new();
    for tool in ["wait", "stream"] {
        for (text, id) in sample_ids() {
            let body = tool_call(text, tool, r#"{"ms":60000}"#);
            open_now.push((tool, id, open_request(proxy.local_addr(), &body, "").await));
        }
    }
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 8, String::new).await;
    a.wait_for_requests(8).await;
    for (_, _, wire) in open_now.iter_mut().filter(|(tool, ..)| *tool == "stream") {
        wire.wait_for_response().await;
    }
    let cost = proxy.cut(RELEASE_A).await;
    assert_eq!((cost.error_responses, cost.streams_closed, cost.sessions_ended), (8, 0, 0));
    for (tool, id, mut wire) in open_now {
        let reply = wire.read_response().await;
        assert_eq!(reply.status, 200);
        let answer = match tool {
            "wait" => reply.json(),
            _ => sse_messages(&reply.text()).pop().unwrap(),
        };
        assert_error(&answer, id, "rollback");
    }
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 8, ..Counts::default() }).await;
}

#[tokio::test]
async fn http2_requests_are_served_and_cut() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
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
    let reply = post(tool_call("1", "echo", "{}")).await.unwrap();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["result"]["release"], "a");
    let (mut waiting, mut streaming) = (Vec::new(), Vec::new());
    for (text, id) in sample_ids() {
        let mut call = |tool| tokio::spawn(post(tool_call(text, tool, r#"{"ms":60000}"#)));
        waiting.push((id.clone(), call("wait")));
        streaming.push((id, call("stream").await.unwrap().unwrap()));
    }
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 8, String::new).await;
    a.wait_for_requests(1 + 8).await;
    assert_eq!(proxy.cut(RELEASE_A).await.error_responses, 8);
    for (id, call) in waiting {
        let reply = call.await.unwrap().unwrap();
        assert_eq!(reply.status(), 200);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        assert_error(&serde_json::from_slice(&body).unwrap(), id, "rollback");
    }
    for (id, reply) in streaming {
        assert_eq!(reply.status(), 200);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let messages = sse_messages(&String::from_utf8_lossy(&body));
        assert_error(messages.last().unwrap(), id, "rollback");
    }
}

#[tokio::test]
async fn subscription_ends_gracefully_and_counts_as_a_session() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let listen = r#"{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{}}"#;
    let headers = "MCP-Protocol-Version: 2026-07-28\r\n";
    let mut wire = open_request(proxy.local_addr(), listen, headers).await;
    wire.read_head().await;
    wire.read_until("acknowledged").await;
    let load = proxy.load(RELEASE_A, Moment(0));
    assert_eq!((load.sessions, load.in_flight), (1, 0));
    let cost = proxy.cut(RELEASE_A).await;
    assert_eq!((cost.error_responses, cost.streams_closed, cost.sessions_ended), (0, 1, 1));
    let result = sse_messages(&wire.read_to_end().await).remove(0);
    assert_eq!(result["id"], "l-1");
    assert_eq!(result["result"]["resultType"], "complete");
    assert_eq!(result["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l-1");
    wait_for_counts(
        &proxy,
        RELEASE_A,
        Counts { neutral: 1, streams_ended: 1, ..Counts::default() },
    )
    .await;
}

#[tokio::test]
async fn subscription_ended_by_the_release_ends_for_the_client() {
    let text = format!("{SSE_HEAD}data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{}}}}\n\n");
    let proxy = proxy_to(crate::fake_backend::fixed_response(text.clone()).await);
    let listen = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}"#;
    let reply = post(proxy.local_addr(), listen, "").await;
    assert!(text.ends_with(&reply.text()) && !reply.body.is_empty(), "{reply:?}");
}

#[tokio::test]
async fn subscription_moves_to_the_new_release_with_list_changed() {
    for drain in [true, false] {
        let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
        let proxy = proxy_to(a.address);
        proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
        let listen = r#"{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;
        let headers = "MCP-Protocol-Version: 2026-07-28\r\n";
        let mut wire = open_request(proxy.local_addr(), listen, headers).await;
        wire.read_head().await;
        wire.read_until("acknowledged").await;
        proxy.set_active(RELEASE_B);
        let cost = match drain {
            true => proxy.drain(RELEASE_A, Duration::from_secs(20)).await,
            false => proxy.cut(RELEASE_A).await,
        };
        assert_eq!(
            (
                cost.error_responses,
                cost.streams_closed,
                cost.sessions_ended,
                cost.sessions_migrated
            ),
            (0, 0, 0, 1)
        );
        let told =
            sse_messages(&wire.read_until("notifications/tools/list_changed").await).remove(0);
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l-1");
        assert_eq!(proxy.load(RELEASE_B, Moment(0)).sessions, 1);
        // A second acknowledgement would announce a second subscription.
        proxy.cut(RELEASE_B).await;
        let rest = wire.read_to_end().await;
        assert!(!rest.contains("acknowledged"), "{rest}");
        assert_eq!(sse_messages(&rest)[0]["result"]["resultType"], "complete");
    }
}

#[tokio::test]
async fn partial_json_response_becomes_an_error_on_cut() {
    let written = Arc::new(Notify::new());
    let writes = Arc::clone(&written);
    let upstream = scripted(move |mut stream| {
        let writes = Arc::clone(&writes);
        async move {
            read_request(&mut stream).await;
            let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"id\":1,";
            stream.write_all(half.as_bytes()).await.unwrap();
            writes.notify_one();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let proxy = proxy_to(upstream);
    let mut wire = open_request(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    written.notified().await;
    assert_eq!(proxy.cut(RELEASE_A).await.error_responses, 1);
    assert_error(&wire.read_response().await.json(), 1.into(), "rollback");
}

#[tokio::test]
async fn request_after_a_switch_reaches_the_new_release() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mut wire = crate::http_client::RawConnection::connect(proxy.local_addr()).await;
    for round in 0..20 {
        let (to, name) = if round % 2 == 0 { (RELEASE_B, "b") } else { (RELEASE_A, "a") };
        proxy.set_active(to);
        wire.send(crate::http_client::request(&tool_call("1", "echo", "{}"), "")).await;
        assert_eq!(wire.read_response().await.json()["result"]["release"], name);
    }
}

#[tokio::test]
async fn cut_release_can_be_added_again_and_no_release_is_an_error() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
    proxy.cut(RELEASE_A).await;
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    assert_error(&reply.json(), 1.into(), "rollback");
    proxy.add_release(RELEASE_A, &Address::Tcp(a.address));
    proxy.set_active(RELEASE_A);
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    assert_eq!(reply.json()["result"]["release"], "a");
    proxy.remove_release(RELEASE_A).await;
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    assert_error(&reply.json(), 1.into(), "no_release");
}

#[tokio::test]
async fn clients_that_never_read_do_not_block_a_cut() {
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    let upstream = scripted(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(SSE_HEAD.as_bytes()).await;
        let event = format!("data: {}\n\n", "x".repeat(60_000));
        while stream.write_all(event.as_bytes()).await.is_ok() {}
    })
    .await;
    let proxy = proxy_to(upstream);
    let before = crate::large_bodies::resident_bytes();
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(open_request(proxy.local_addr(), &tool_call("1", "stream", "{}"), "").await);
    }
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 4, String::new).await;
    // In this time the release would fill the memory, if anything were read ahead without a limit.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let most = crate::large_bodies::resident_bytes();
    assert!(most < before + 32 * 1024 * 1024, "{before} {most}");
    let cut = proxy.cut(RELEASE_A);
    let cost = tokio::time::timeout(Duration::from_secs(5), cut).await.unwrap();
    assert_eq!(cost.streams_closed, 0);
    drop(readers);
    wait_until("gone", || proxy.load(RELEASE_A, Moment(0)).in_flight == 0, String::new).await;
}

#[tokio::test]
async fn endless_json_response_ends_on_cut() {
    let upstream = scripted(|mut stream| async move {
        read_request(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[";
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(&[b' '; 60_000]).await.is_ok() {}
    })
    .await;
    let proxy = proxy_to(upstream);
    let mut wire = open_request(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    wire.read_head().await;
    let mut some = vec![0; 500_000];
    wire.0.read_exact(&mut some).await.unwrap();
    let reading = tokio::spawn(async move { wire.is_closed().await });
    proxy.cut(RELEASE_A).await;
    assert!(reading.await.unwrap());
    wait_until("gone", || proxy.load(RELEASE_A, Moment(0)).in_flight == 0, String::new).await;
}

#[tokio::test]
async fn drain_timeout_and_stop_answer_open_requests() {
    for stop in [false, true] {
        let proxy = proxy_to(FakeMcpServer::start("a").await.address);
        let mut waiting = Vec::new();
        for tool in ["wait", "stream"] {
            let body = tool_call("1", tool, r#"{"ms":60000}"#);
            waiting.push(open_request(proxy.local_addr(), &body, "").await);
        }
        wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 2, String::new).await;
        waiting[1].read_head().await;
        if stop {
            proxy.shut_down().await;
            assert!(TcpStream::connect(proxy.local_addr()).await.is_err());
        } else {
            let cost = proxy.drain(RELEASE_A, Duration::from_millis(200)).await;
            assert_eq!((cost.error_responses, cost.streams_closed, cost.sessions_ended), (2, 0, 0));
        }
        assert_error(&waiting[0].read_response().await.json(), 1.into(), "rollback");
        let events = waiting[1].read_to_end().await;
        assert_error(&sse_messages(&events).pop().unwrap(), 1.into(), "rollback");
    }
}

#[tokio::test]
async fn cut_answers_a_request_still_uploading() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let large = tool_call("1", "echo", &format!("\"{}\"", "x".repeat(300_000)));
    let text = crate::http_client::request(&large, "");
    let mut wire = crate::http_client::RawConnection::connect(proxy.local_addr()).await;
    wire.send(&text[..200_000]).await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    let cut = tokio::spawn(begin(async move { proxy.cut(RELEASE_A).await }));
    // The id may well stand at the end.
    wire.send(&text[200_000..]).await;
    assert_error(&wire.read_response().await.json(), 1.into(), "rollback");
    assert_eq!(cut.await.unwrap().error_responses, 1);
}

#[tokio::test]
async fn stream_cut_inside_an_event_ends_with_a_complete_event() {
    for half in
        ["data: {\"method\":\"x\"}\n", "data: {\"jsonr", "event: mess", ": comm", "data: {}\r"]
    {
        let upstream = scripted(move |mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(format!("{SSE_HEAD}{half}").as_bytes()).await;
            std::future::pending::<()>().await;
        })
        .await;
        let proxy = proxy_to(upstream);
        let mut wire = open_request(proxy.local_addr(), &tool_call("1", "stream", "{}"), "").await;
        wire.read_head().await;
        let mut events = wire.read_until(half).await;
        proxy.cut(RELEASE_A).await;
        events.push_str(&wire.read_to_end().await);
        let events = events.replace('\r', "\n");
        let last = events.trim_end().rsplit("\n\n").next().unwrap();
        assert_error(&sse_messages(last)[0], 1.into(), "rollback");
    }
}

/// Some servers never answer a cancelled call: with it, the session is not busy.
#[tokio::test]
async fn session_with_a_cancelled_call_leaves_a_release_that_drains() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    let to = proxy.local_addr();
    let session = open_session(to).await;
    post(to, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, &session).await;
    let mut cancelled = Vec::new();
    for (id, tool) in [("7", "wait"), ("9", "stream")] {
        let call = tool_call(id, tool, r#"{"ms":60000}"#);
        cancelled.push(open_request(to, &call, &session).await);
    }
    let in_flight = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("they are open", || in_flight() == 2, || in_flight().to_string()).await;
    for id in ["7", "9"] {
        post(to, &crate::outcomes::cancel(id), &session).await;
    }
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    proxy.set_active(RELEASE_B);
    let draining = proxy.clone();
    let drain =
        tokio::spawn(async move { draining.drain(RELEASE_A, Duration::from_secs(50)).await });
    wait_until("nothing waits for them", || in_flight() == 0, || in_flight().to_string()).await;
    let reply = post(to, &tool_call("8", "echo", "{}"), &session).await;
    assert_eq!(reply.json()["result"]["release"], "b", "{}", reply.text());
    let cost = drain.await.unwrap();
    assert_eq!((cost.error_responses, cost.sessions_migrated), (0, 1), "{cost:?}");
}
