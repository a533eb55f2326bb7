//! What fails and is not the release's doing: the client's mistakes, the time that it owes, a response
//! that arrived before the request was read, and what cannot be read.

use std::collections::BTreeSet;
use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::model::{Contract, Counts, Moment};
use tokio::io::AsyncWriteExt as _;

use crate::fake_backend::{
    FakeMcpServer, SSE_HEAD, fixed_response, json_answer, read_request, scripted,
};
use crate::http_client::{
    INITIALIZE, RawConnection, open_request, open_session, post, request, tool_call,
};
use crate::{RELEASE_A, RELEASE_B, proxy_to, proxy_with, wait_for_counts, wait_until};

const NONE: Counts = Counts {
    ok: 0,
    server_fault: 0,
    tool_fault: 0,
    client_fault: 0,
    neutral: 0,
    slow: 0,
    with_latency: 0,
    repeatable: 0,
    repeatable_failed: 0,
    streams_ended: 0,
    streams_broken: 0,
    small: 0,
    slower: 0,
    given_up: 0,
    answered_late: 0,
};

fn client_fault() -> Counts {
    Counts { client_fault: 1, ..NONE }
}

fn contract_with(tool: &str) -> Contract {
    Contract { tools: BTreeSet::from([tool.to_owned()]), ..Contract::default() }
}

fn call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

/// The official Python SDK answers such bodies with 500, -32603 and an id of its own.
const SERVER_ERROR: &str = r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32603,"message":"Error handling POST request"}}"#;

#[tokio::test]
async fn mistakes_of_a_client_are_its_own_whatever_the_server_answers() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let large = "x".repeat(100_000);
    let bodies = [
        call("tools/call", &format!(r#"{{"name":"a","arguments":{{"a":{}}}}}"#, "9".repeat(5_000))),
        call("tools/call", &format!(r#"{{"name":"a","arguments":{{"a":{deep}}}}}"#)),
        call("tools/call", r#"{"name":"a","arguments":{"a":"\ud800"}}"#),
        call("tools/call", r#"{"arguments":{}}"#),
        call("logging/setLevel", r#"{"level":"nosuch"}"#),
        call("no/such", "{}"),
        call("resources/read", "{}"),
        call("tools/call", &format!(r#"{{"x":"{large}","name":"a","arguments":{deep}}}"#)),
        call("tools/call", &format!(r#"{{"x":"{large}","name":"a","y":{}}}"#, "9".repeat(5_000))),
        r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}"#.to_owned(),
    ];
    let status = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let events = format!(
        "{SSE_HEAD}data: {}\n\n",
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}"#
    );
    for answer in [status("500 X", SERVER_ERROR), status("501 X", ""), events, String::new()] {
        for body in &bodies {
            let proxy = proxy_to(fixed_response(answer.clone()).await);
            post(proxy.local_addr(), body, "").await;
            wait_until(
                "the outcome",
                || proxy.counts(RELEASE_A).total() == 1,
                || format!("{:.100} {answer} {:?}", body, proxy.counts(RELEASE_A)),
            )
            .await;
            let counts = proxy.counts(RELEASE_A);
            assert_eq!(counts.client_fault, 1, "{body:.100} {answer} {counts:?}");
        }
    }
    // Bytes that are no UTF-8.
    let proxy = proxy_to(fixed_response(status("500 X", SERVER_ERROR)).await);
    let text = tool_call("1", "a", r#"{"a":"?"}"#);
    let bytes: Vec<u8> =
        request(&text, "").bytes().map(|it| if it == b'?' { 0xFF } else { it }).collect();
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send(bytes).await;
    assert_eq!(wire.read_response().await.status, 500);
    wait_for_counts(&proxy, RELEASE_A, client_fault()).await;
}

/// The Python SDK takes a request with such an id for none, and answers 202.
#[tokio::test]
async fn the_response_to_an_odd_id_passes() {
    let accepted = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
    let proxy = proxy_to(fixed_response(accepted).await);
    let body = r#"{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}"#;
    assert_eq!(post(proxy.local_addr(), body, "").await.status, 202);
    wait_for_counts(&proxy, RELEASE_A, client_fault()).await;
}

#[tokio::test]
async fn codes_of_a_client_fault_count_with_every_status() {
    for code in [-32700, -32600, -32601, -32602] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"x"}}}}"#);
        let answer = format!("HTTP/1.1 501 X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let proxy = proxy_to(fixed_response(answer).await);
        post(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
        wait_for_counts(&proxy, RELEASE_A, client_fault()).await;
    }
}

#[tokio::test]
async fn a_tool_that_the_release_does_not_list_is_a_fault_of_the_client() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let to = proxy.local_addr();
    proxy.set_listed(RELEASE_A, &contract_with("fail"));
    for tool in ["wrong", "fail"] {
        post(to, &tool_call("1", tool, "{}"), "").await;
    }
    let want = Counts { client_fault: 1, server_fault: 1, ..NONE };
    wait_for_counts(&proxy, RELEASE_A, want).await;
}

/// The official Python SDK answers it with the code 0.
#[tokio::test]
async fn a_prompt_that_the_release_does_not_list_is_a_fault_of_the_client() {
    let answer = r#"{"jsonrpc":"2.0","id":1,"error":{"code":0,"message":"Unknown prompt: x"}}"#;
    let proxy = proxy_to(fixed_response(json_answer(answer)).await);
    let prompts = [("known".to_owned(), BTreeSet::new())];
    proxy.set_listed(RELEASE_A, &Contract { prompts: prompts.into(), ..Contract::default() });
    for name in ["x", "known"] {
        post(proxy.local_addr(), &call("prompts/get", &format!(r#"{{"name":"{name}"}}"#)), "")
            .await;
    }
    // It may be repeated, so that the one that counts is counted there, too.
    let want =
        Counts { client_fault: 1, server_fault: 1, repeatable: 1, repeatable_failed: 1, ..NONE };
    wait_for_counts(&proxy, RELEASE_A, want).await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_is_shown() {
    let answer = SSE_HEAD.replacen("\r\n", "\r\nContent-Encoding: exi\r\n", 1);
    let proxy = proxy_to(fixed_response(answer).await);
    let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send(get).await;
    assert_eq!(wire.read_head().await.0, 200);
    assert_eq!(proxy.unjudged(RELEASE_A).unread, 1);
}

/// A list of tools may depend on credentials, which the probe that read it did not have.
#[tokio::test]
async fn a_tool_that_one_release_served_is_known_to_the_other() {
    let proxy = proxy_to(FakeMcpServer::start("a").await.address);
    let to = proxy.local_addr();
    for release in [RELEASE_A, RELEASE_B] {
        proxy.set_listed(release, &contract_with("other"));
    }
    post(to, &tool_call("1", "secret", "{}"), "").await;
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, ..NONE }).await;
    let broken = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}"#;
    proxy.add_release(RELEASE_B, &Address::Tcp(fixed_response(json_answer(broken)).await));
    proxy.set_active(RELEASE_B);
    for tool in ["secret", "guessed"] {
        post(to, &tool_call("1", tool, "{}"), "").await;
    }
    let want = Counts { client_fault: 1, server_fault: 1, ..NONE };
    wait_for_counts(&proxy, RELEASE_B, want).await;
}

#[tokio::test]
async fn a_rate_limit_counts_by_itself() {
    let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let proxy = proxy_to(fixed_response(answer).await);
    for _ in 0..3 {
        let reply = post(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    }
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 3, ..NONE }).await;
    assert_eq!(proxy.unjudged(RELEASE_A).rate_limited, 3);
}

/// A login begins so: the release refuses a large request before it has read it, and closes.
#[tokio::test]
async fn a_response_before_the_request_was_read_reaches_the_client() {
    for status in ["401 Unauthorized", "413 Too Large", "431 Too Large", "408 Timeout"] {
        let early = scripted(move |mut stream| async move {
            let mut start = [0; 1_000];
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut start).await;
            let answer = format!(
                "HTTP/1.1 {status}\r\nWWW-Authenticate: Bearer\r\nContent-Length: 2\r\n\
                 Connection: close\r\n\r\nno"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let proxy = proxy_to(early);
        let large = tool_call("1", "a", &format!("{{\"a\":\"{}\"}}", "x".repeat(5_000_000)));
        for _ in 0..5 {
            let mut wire = RawConnection::connect(proxy.local_addr()).await;
            // The proxy may stop reading once it has answered.
            let _ = wire.0.get_mut().write_all(request(&large, "").as_bytes()).await;
            let reply = wire.read_response().await;
            assert!(status.starts_with(&reply.status.to_string()), "{status} {reply:?}");
        }
        assert_eq!(proxy.counts(RELEASE_A).server_fault, 0);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_owes_the_time() {
    let answer = json_answer(&format!(
        r#"{{"jsonrpc":"2.0","x":"{}","id":1,"result":{{}}}}"#,
        "x".repeat(32_000_000)
    ));
    let proxy = proxy_with(fixed_response(answer).await, |service| {
        service.limits.slow_after = Duration::from_millis(300);
        service.limits.deadline = Duration::from_millis(600);
    });
    let wire = open_request(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    // Longer than the deadline: the client could have read the response.
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(wire);
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 1, ..NONE }).await;
}

#[tokio::test]
async fn a_question_to_the_client_stops_the_clock() {
    let release = FakeMcpServer::start("a").await;
    let proxy = proxy_with(release.address, |service| {
        service.limits.slow_after = Duration::from_millis(400);
        service.limits.deadline = Duration::from_millis(800);
    });
    let to = proxy.local_addr();
    let mine = open_session(to).await;
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    post(to, initialized, &mine).await;
    let mut wire = open_request(to, &tool_call("7", "elicit", "{}"), &mine).await;
    wire.read_head().await;
    wire.read_until("elicitation/create").await;
    // The person thinks for longer than the deadline.
    tokio::time::sleep(Duration::from_secs(2)).await;
    post(to, r#"{"jsonrpc":"2.0","id":0,"result":{"action":"accept"}}"#, &mine).await;
    wire.read_until("\"release\":\"a\"").await;
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 2, ..NONE }).await;
}

/// Also where the server has no sessions, so that the reply cannot be seen.
#[tokio::test]
async fn a_client_that_leaves_while_it_owes_an_answer_is_neutral() {
    let asking = scripted(|mut stream| async move {
        read_request(&mut stream).await;
        let question = r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage"}"#;
        let _ = stream.write_all(format!("{SSE_HEAD}data: {question}\n\n").as_bytes()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy_with(asking, |service| {
        service.limits.slow_after = Duration::from_millis(300);
        service.limits.deadline = Duration::from_millis(600);
    });
    let mut wire = open_request(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
    wire.read_head().await;
    wire.read_until("createMessage").await;
    // The model behind the client takes longer than the deadline.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(wire);
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 1, ..NONE }).await;
}

#[tokio::test]
async fn a_response_that_cannot_be_read_is_never_counted_as_good() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                  Content-Encoding: exi\r\nContent-Length: 4\r\n\r\nabcd";
    let proxy = proxy_to(fixed_response(answer).await);
    let reply = post(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "abcd"));
    wait_for_counts(&proxy, RELEASE_A, Counts { neutral: 1, ..NONE }).await;
    assert_eq!(proxy.unjudged(RELEASE_A).unread, 1);
}

/// Servers on .NET write a byte order mark, those in Python NaN.
#[tokio::test]
async fn a_byte_order_mark_and_nan_are_read() {
    let message = r#"{"x":NaN,"jsonrpc":"2.0","id":1,"result":{"y":-Infinity}}"#;
    let events = format!("{SSE_HEAD}\u{feff}data: {message}\n\n");
    for answer in [json_answer(&format!("\u{feff}{message}")), events] {
        let proxy = proxy_to(fixed_response(answer).await);
        let reply = post(proxy.local_addr(), &tool_call("1", "a", "{}"), "").await;
        assert!(reply.text().contains("Infinity") && !reply.text().contains("error"), "{reply:?}");
        wait_for_counts(&proxy, RELEASE_A, Counts { ok: 1, ..NONE }).await;
    }
}

/// The proxy reads the response to `initialize` itself, to open the session elsewhere.
#[tokio::test]
async fn a_session_whose_opening_has_a_byte_order_mark_moves() {
    let result = r#"{"protocolVersion":"2025-06-18","capabilities":{},"x":NaN}"#;
    let opening = format!("\u{feff}{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{result}}}");
    let old = scripted(move |mut stream| {
        let answer = json_answer(&opening).replacen("\r\n", "\r\nMcp-Session-Id: s\r\n", 1);
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let proxy = proxy_to(old);
    let to = proxy.local_addr();
    let mine = open_session(to).await;
    let new = FakeMcpServer::start("b").await;
    proxy.add_release(RELEASE_B, &Address::Tcp(new.address));
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    let reply = post(to, &tool_call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
}

#[tokio::test]
async fn a_version_that_only_a_client_names_counts_for_nothing() {
    let release = FakeMcpServer::start("a").await;
    let proxy = proxy_to(release.address);
    let to = proxy.local_addr();
    let mine = open_session(to).await;
    let claimed = format!("{mine}MCP-Protocol-Version: 1999-01-01\r\n");
    post(to, &tool_call("1", "echo", "{}"), &claimed).await;
    assert_eq!(proxy.protocol_versions(RELEASE_A), BTreeSet::from(["2025-06-18".to_owned()]));
    // A server that grants whatever the client asks for.
    release.set_behaviour(|it| it.protocol = "1999-01-01");
    post(to, INITIALIZE, "").await;
    assert_eq!(proxy.protocol_versions(RELEASE_A), BTreeSet::from(["2025-06-18".to_owned()]));
}
