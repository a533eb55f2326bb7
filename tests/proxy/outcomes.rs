//! One outcome for each request, of the right class.

use std::time::Duration;

use rollbackd::model::{Counts, Moment, UsualAnswers};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::fake_backend::{FakeMcpServer, fixed_response, json_answer, read_request, scripted};
use crate::http_client::{INITIALIZE, assert_error, open_request, open_session, post, tool_call};
use crate::{MEMORY_TEST_LOCK, RELEASE_A, proxy_to, proxy_with, wait_for_counts, wait_until};

fn ok(count: u64) -> Counts {
    Counts { ok: count, ..Counts::default() }
}

fn fault() -> Counts {
    Counts { server_fault: 1, ..Counts::default() }
}

#[tokio::test]
async fn responses_are_counted_by_outcome_and_call() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    for tool in ["echo", "echo", "fail", "wrong", "arguments", "stream"] {
        post(proxy.local_addr(), &tool_call("1", tool, "{}"), "").await;
    }
    post(proxy.local_addr(), INITIALIZE, "").await;
    post(proxy.local_addr(), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "").await;
    post(proxy.local_addr(), r#"{"jsonrpc":"2.0","id":4,"result":{}}"#, "").await;
    let want = Counts { ok: 4, server_fault: 1, tool_fault: 1, client_fault: 1, ..ok(0) };
    wait_for_counts(&proxy, RELEASE_A, want).await;
    let calls = proxy.counts_by_call(RELEASE_A);
    let of = |method: &str, tool: &str| calls[&(method.into(), tool.into())];
    let timed = |counts: Counts, with_latency| Counts { with_latency, ..counts };
    let (echo, fail) = (of("tools/call", "echo"), of("tools/call", "fail"));
    assert_eq!((echo, fail), (timed(ok(2), 2), timed(fault(), 1)));
    assert_eq!((of("initialize", ""), calls.len()), (timed(ok(1), 1), 6));
}

#[tokio::test]
async fn malformed_responses_are_faults_with_an_error_for_the_client() {
    let kind = "Content-Type: application/json\r\n";
    let half = r#"{"jsonrpc":"2.0","id":7,"result":{"a":"#;
    for answer in [
        "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx".to_owned(),
        json_answer(r#"{"jsonrpc":"2.0","id":8,"result":{}}"#),
        json_answer(r#"{"jsonrpc":"2.0","id":"7","result":{}}"#),
        json_answer("<html>no</html>"),
        json_answer(half),
        json_answer(""),
        format!("HTTP/1.1 200 OK\r\n{kind}Content-Length: 100\r\n\r\n{half}"),
        // The response was incomplete: the client never saw it.
        format!("HTTP/1.1 200 OK\r\n{kind}Content-Length: 100\r\n\r\n{half}1}}}}"),
        "garbage\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(),
        String::new(),
    ] {
        let proxy = proxy_to(fixed_response(answer.clone()).await);
        let reply = post(proxy.local_addr(), &tool_call("7", "echo", "{}"), "").await;
        assert_eq!(reply.status, 200, "{answer:?} {reply:?}");
        assert_error(&reply.json(), 7.into(), "upstream");
        wait_for_counts(&proxy, RELEASE_A, fault()).await;
    }
}

#[tokio::test]
async fn status_5xx_and_refused_connection_are_faults() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n";
    let proxy = proxy_to(fixed_response(answer).await);
    let reply = post(proxy.local_addr(), &tool_call("7", "echo", "{}"), "").await;
    assert_eq!((reply.status, reply.text().as_str()), (503, "no\n"));
    wait_for_counts(&proxy, RELEASE_A, fault()).await;

    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = proxy_to(gone);
    let reply = post(proxy.local_addr(), &tool_call(r#""\u0061\n""#, "echo", "{}"), "").await;
    assert_error(&reply.json(), "a\n".into(), "upstream");
    wait_for_counts(&proxy, RELEASE_A, fault()).await;
    let large = "x".repeat(3_000_000);
    let last = format!(r#"{{"method":"x","params":{{"x":"{large}"}},"jsonrpc":"2.0","id":8}}"#);
    assert_error(&post(proxy.local_addr(), &last, "").await.json(), 8.into(), "upstream");
    wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 2, ..ok(0) }).await;
}

#[tokio::test]
async fn startup_grace_lasts_until_the_first_connection() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = proxy_to(address);
    proxy.allow_startup(RELEASE_A, Duration::from_secs(10));
    let local = proxy.local_addr();
    let early = tokio::spawn(async move { post(local, &tool_call("7", "echo", "{}"), "").await });
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    // In this time the proxy connects several times, is refused, and answers nothing.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!early.is_finished(), "refused while it starts");
    let listener = TcpListener::bind(address).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await.unwrap();
    let answer = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    stream.write_all(json_answer(answer).as_bytes()).await.unwrap();
    assert_eq!(early.await.unwrap().text(), answer);
    // From then on a refused connection is a fault.
    drop((stream, listener));
    let reply = post(local, &tool_call("8", "echo", "{}"), "").await;
    assert_error(&reply.json(), 8.into(), "upstream");
}

#[tokio::test]
async fn lost_session_is_a_fault_only_if_known() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
    let mine = open_session(proxy.local_addr()).await;
    wait_for_counts(&proxy, RELEASE_A, ok(1)).await;
    // After a restart the new daemon does not know the session yet.
    let later =
        proxy_to(fixed_response("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await);
    assert_eq!(post(later.local_addr(), &tool_call("1", "echo", "{}"), &mine).await.status, 404);
    wait_for_counts(&later, RELEASE_A, Counts { client_fault: 1, ..ok(0) }).await;
    a.drop_sessions();
    // The client does not see it; it counts against the release all the same.
    assert_eq!(post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &mine).await.status, 200);
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 2, ..fault() }).await;
}

#[tokio::test]
async fn open_slow_and_overdue_requests_are_counted() {
    let proxy = proxy_with(FakeMcpServer::start("a").await.address, |service| {
        service.limits.slow_after = Duration::from_millis(200);
        service.limits.deadline = Duration::from_millis(600);
    });
    for tool in ["wait", "stream"] {
        let before = proxy.counts(RELEASE_A);
        let mut wire =
            open_request(proxy.local_addr(), &tool_call("1", tool, r#"{"ms":2500}"#), "").await;
        let slow =
            Counts { slow: before.slow + 1, with_latency: before.with_latency + 1, ..before };
        wait_for_counts(&proxy, RELEASE_A, slow).await;
        assert_eq!(proxy.load(RELEASE_A, Moment(0)).in_flight, 1);
        let overdue = Counts { server_fault: slow.server_fault + 1, ..slow };
        wait_for_counts(&proxy, RELEASE_A, overdue).await;
        assert_eq!(proxy.load(RELEASE_A, Moment(0)).in_flight, 1);
        assert!(wire.read_response().await.text().contains("\"release\":\"a\""));
        wait_for_counts(&proxy, RELEASE_A, overdue).await;
    }
    let before = proxy.counts(RELEASE_A);
    post(proxy.local_addr(), &tool_call("1", "echo", "{}"), "").await;
    wait_for_counts(
        &proxy,
        RELEASE_A,
        Counts { ok: before.ok + 1, with_latency: before.with_latency + 1, ..before },
    )
    .await;
}

#[tokio::test]
async fn client_disconnect_is_neutral() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    // In 2026-07-28 the end of the connection cancels the request. Before, the client may only have
    // closed its half, and a stream shows that it did not.
    let modern = "MCP-Protocol-Version: 2026-07-28\r\n";
    for (count, tool, version) in [(1, "wait", modern), (2, "stream", modern), (3, "stream", "")] {
        let call = tool_call("1", tool, r#"{"ms":60000}"#);
        let wire = open_request(proxy.local_addr(), &call, version).await;
        wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
        drop(wire);
        wait_for_counts(&proxy, RELEASE_A, Counts { neutral: count, ..ok(0) }).await;
        assert_eq!(proxy.load(RELEASE_A, Moment(0)).in_flight, 0);
    }
    // In the middle of a large body, which has reached the release in part already.
    let large = tool_call("1", "echo", &format!("\"{}\"", "x".repeat(300_000)));
    let text = crate::http_client::request(&large, "");
    let mut wire = crate::http_client::RawConnection::connect(proxy.local_addr()).await;
    wire.send(&text[..200_000]).await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    drop(wire);
    wait_until("gone", || proxy.load(RELEASE_A, Moment(0)).in_flight == 0, String::new).await;
    assert_eq!(proxy.counts(RELEASE_A).server_fault, 0, "{:?}", proxy.counts(RELEASE_A));
}

/// Some servers answer a cancelled request, with various codes, and some never do.
#[tokio::test]
async fn cancelled_request_is_neutral() {
    let proxy = proxy_with(FakeMcpServer::start("a").await.address, |service| {
        service.limits.deadline = Duration::from_millis(1500);
    });
    let mine = open_session(proxy.local_addr()).await;
    let mut open_now = Vec::new();
    for (id, tool) in [("1", "wait"), (r#""\u0062""#, "fail-late")] {
        let body = tool_call(id, tool, r#"{"ms":1000}"#);
        open_now.push(open_request(proxy.local_addr(), &body, &mine).await);
    }
    let mut silent =
        open_request(proxy.local_addr(), &tool_call("3", "wait", r#"{"ms":4000}"#), &mine).await;
    let mut hangs =
        open_request(proxy.local_addr(), &tool_call("4", "wait", r#"{"ms":4000}"#), &mine).await;
    for id in ["1", r#""b""#, "3"] {
        post(proxy.local_addr(), &cancel(id), &mine).await;
    }
    // A client that cancels just before the deadline waited in vain.
    tokio::time::sleep(Duration::from_millis(1400)).await;
    post(proxy.local_addr(), &cancel("4"), &mine).await;
    for wire in &mut open_now {
        wire.read_response().await;
    }
    // One was answered, one failed, one was not answered, and one hung.
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 2, neutral: 2, ..fault() }).await;
    let in_flight = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("nobody waits", || in_flight() == 0, || in_flight().to_string()).await;
    assert_eq!(
        (silent.read_response().await.status, hangs.read_response().await.status),
        (200, 200)
    );
}

/// A tool that hangs must not stay unseen because its clients are less patient than the deadline.
#[tokio::test]
async fn a_call_that_is_given_up_later_than_usual_counts_as_slower() {
    let proxy = proxy_with(FakeMcpServer::start("a").await.address, |service| {
        service.limits.deadline = Duration::from_secs(4);
    });
    let usual = |millis_max| UsualAnswers {
        bytes_min: 0,
        millis_max,
        answers: 100,
        small: 0,
        timed: 100,
        slower: 0,
    };
    let compare = |call: &str, millis_max| (("tools/call".into(), call.into()), usual(millis_max));
    proxy.compare_answers(RELEASE_A, &[compare("wait", 200), compare("stream", 2_000)]);
    let mine = open_session(proxy.local_addr()).await;
    let opened = proxy.counts(RELEASE_A);
    let call = |id, tool, ms| tool_call(id, tool, &format!(r#"{{"ms":{ms}}}"#));
    // Its client closes the connection, also one that may only have closed its half of it.
    let modern = "MCP-Protocol-Version: 2026-07-28\r\n";
    for (headers, call) in [
        (modern, call("1", "wait", 60_000)),
        (&*mine, call("2", "wait", 60_000)),
        (modern, call("3", "stream", 60_000)),
    ] {
        let wire = open_request(proxy.local_addr(), &call, headers).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(wire);
    }
    // It cancels the call, and waits for no answer.
    let _open = open_request(proxy.local_addr(), &call("4", "wait", 60_000), &mine).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    post(proxy.local_addr(), &cancel("4"), &mine).await;
    // One at once.
    let wire = open_request(proxy.local_addr(), &call("5", "wait", 60_000), modern).await;
    let open = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("open", || 0 < open(), String::new).await;
    drop(wire);
    let want = Counts { neutral: 5, slower: 3, given_up: 3, ..opened };
    wait_for_counts(&proxy, RELEASE_A, want).await;
}

/// Many clients wait as long as the deadline, or longer.
#[tokio::test]
async fn a_call_that_hangs_counts_as_slower_before_its_client_or_the_deadline_ends_it() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let usual = UsualAnswers {
        bytes_min: 0,
        millis_max: 200,
        answers: 100,
        small: 0,
        timed: 100,
        slower: 0,
    };
    proxy.compare_answers(RELEASE_A, &[(("tools/call".into(), "wait".into()), usual)]);
    let call = |id, ms| tool_call(id, "wait", &format!(r#"{{"ms":{ms}}}"#));
    let (modern, plain) = ("MCP-Protocol-Version: 2026-07-28\r\n", String::new());
    let mine = open_session(proxy.local_addr()).await;
    let mut overdue = proxy.counts(RELEASE_A);
    let other = Counts { slow: 1, with_latency: 1, small: 1, ..Counts::default() };
    for (id, headers) in [("1", modern), ("2", &mine), ("3", &plain)] {
        let mut waits = open_request(proxy.local_addr(), &call(id, 2_500), headers).await;
        overdue += Counts { slower: 1, given_up: 1, ..Counts::default() };
        wait_for_counts(&proxy, RELEASE_A, overdue).await;
        // It is one request, also after it is answered.
        assert_eq!(waits.read_response().await.status, 200);
        overdue += Counts { ok: 1, answered_late: 1, ..other };
        wait_for_counts(&proxy, RELEASE_A, overdue).await;
    }
    // A client that closed its connection may only have closed its half of it.
    for (id, headers) in [("4", &mine), ("5", &plain)] {
        let wire = open_request(proxy.local_addr(), &call(id, 60_000), headers).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(wire);
        overdue += Counts { slower: 1, given_up: 1, ..Counts::default() };
        wait_for_counts(&proxy, RELEASE_A, overdue).await;
    }
}

pub(crate) fn cancel(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"reason":"x","requestId":{id}}}}}"#
    )
}

#[tokio::test]
async fn client_disconnect_at_the_deadline_is_a_fault() {
    let proxy = proxy_with(FakeMcpServer::start("a").await.address, |service| {
        service.limits.deadline = Duration::from_millis(1500);
    });
    let wire =
        open_request(proxy.local_addr(), &tool_call("1", "wait", r#"{"ms":60000}"#), "").await;
    // Just before the deadline: this client waited in vain. A later moment proves it, too.
    tokio::time::sleep(Duration::from_millis(1400)).await;
    drop(wire);
    wait_for_counts(&proxy, RELEASE_A, fault()).await;
}

#[tokio::test]
async fn each_batch_request_has_its_own_outcome() {
    let answer = r#"[{"id":1,"result":{}},{"id":2,"error":{"code":-32602}},{"id":"c","error":{"code":-32603}}]"#;
    let proxy = proxy_to(fixed_response(json_answer(answer)).await);
    let ids = ["1", "2", r#""c""#].map(|id| tool_call(id, "echo", "{}")).join(",");
    let reply = post(proxy.local_addr(), &format!("[{ids}]"), "").await;
    assert_eq!(reply.text(), answer);
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, client_fault: 1, ..fault() }).await;

    // The first one was answered, but the client cannot have seen it.
    let half = json_answer(answer).replace("\"id\":\"c\",\"error\":{\"code\":-32603}}]", "");
    let proxy = proxy_to(fixed_response(half).await);
    let reply = post(proxy.local_addr(), &format!("[{ids}]"), "").await;
    let errors = reply.json();
    for (at, id) in [1.into(), 2.into(), "c".into()].into_iter().enumerate() {
        assert_error(&errors[at], id, "upstream");
    }
    wait_for_counts(&proxy, RELEASE_A, Counts { server_fault: 3, ..ok(0) }).await;

    let proxy = proxy_to(fixed_response("").await);
    let reply = post(proxy.local_addr(), &format!("[{}]", tool_call("5", "echo", "{}")), "").await;
    assert_error(&reply.json()[0], 5.into(), "upstream");
}

#[tokio::test]
async fn large_batches_and_deep_nesting_are_parsed_safely() {
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let one = tool_call("1", "echo", &deep);
    let batch = format!("[{}]", vec![one; 10 * 1024 * 1024 / 300].join(","));
    // The server knows no batches, and answers 202.
    let reply = post(proxy.local_addr(), &batch, "").await;
    assert_eq!(reply.status, 200);
    assert_error(&reply.json()[0], 1.into(), "upstream");

    let echo = scripted(|mut stream| async move {
        while let Some((_, body)) = read_request(&mut stream).await {
            let deep = "[".repeat(10_000) + &"]".repeat(10_000);
            let answer = format!(r#"{{"x":{deep},"id":5,"result":{{"size":{}}}}}"#, body.len());
            stream.write_all(json_answer(&answer).as_bytes()).await.unwrap();
        }
    })
    .await;
    let proxy = proxy_to(echo);
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let reply = post(proxy.local_addr(), &tool_call("5", "echo", &deep), "").await;
    assert!(reply.text().contains("\"size\":20"));
    wait_for_counts(&proxy, RELEASE_A, ok(1)).await;
}

#[tokio::test]
async fn slow_upload_is_not_counted_as_slow() {
    let proxy = proxy_with(FakeMcpServer::start("a").await.address, |service| {
        service.limits.slow_after = Duration::from_millis(400);
        service.limits.deadline = Duration::from_millis(800);
    });
    let large = tool_call("1", "echo", &format!("\"{}\"", "x".repeat(300_000)));
    let text = crate::http_client::request(&large, "");
    let mut wire = crate::http_client::RawConnection::connect(proxy.local_addr()).await;
    for part in text.as_bytes().chunks(100_000) {
        wire.send(part).await;
        // A slow client: in all it takes longer than the deadline.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(wire.read_response().await.json()["result"]["release"], "a");
    wait_for_counts(&proxy, RELEASE_A, Counts { with_latency: 1, ..ok(1) }).await;
}

#[tokio::test]
async fn connection_reset_is_a_fault() {
    let upstream = scripted(|mut stream| async move {
        read_request(&mut stream).await;
        let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{\"id\"";
        stream.write_all(half.as_bytes()).await.unwrap();
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    })
    .await;
    let proxy = proxy_to(upstream);
    let reply = post(proxy.local_addr(), &tool_call("7", "echo", "{}"), "").await;
    assert_error(&reply.json(), 7.into(), "upstream");
    wait_for_counts(&proxy, RELEASE_A, fault()).await;
}
