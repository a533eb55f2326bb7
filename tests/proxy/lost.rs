//! A restarted release lost its sessions. Other 404 responses, and errors about sessions, mean no
//! lost session.

use rollbackd::model::{Counts, Moment};
use rollbackd::proxy::Proxy;
use serde_json::json;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{HttpResponse, RawConnection, open_session, post, send_raw, tool_call};
use crate::{RELEASE_A, proxy_to, wait_for_counts};

/// What real servers answer for a session from before their restart.
const UNKNOWN: &[(u16, &str)] = &[
    (404, ""),
    (404, r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#),
    (
        400,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
    ),
    (
        400,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Mcp-Session-Id header is required"},"id":null}"#,
    ),
    (
        400,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
    ),
    (
        404,
        r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}"#,
    ),
    (
        400,
        r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request: Missing session ID"}}"#,
    ),
    (400, "Bad Request: No valid session ID provided"),
    (400, "Invalid session ID\n"),
    (401, "Unauthorized: Session not found"),
    (404, "session not found\n"),
];

async fn echo(proxy: &Proxy, mine: &str) -> HttpResponse {
    post(proxy.local_addr(), &tool_call("1", "echo", "{}"), mine).await
}

fn opened(release: &FakeMcpServer) -> usize {
    release.methods().iter().filter(|it| *it == "initialize").count()
}

fn get(mine: &str) -> String {
    format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}\r\n")
}

#[tokio::test]
async fn a_session_survives_a_restart_of_its_release_however_that_says_it() {
    for &(status, body) in UNKNOWN {
        let a = FakeMcpServer::start("a").await;
        a.set_behaviour(|it| it.unknown = (status, body));
        let proxy = proxy_to(a.address);
        let mine = open_session(proxy.local_addr()).await;
        assert_eq!(echo(&proxy, &mine).await.status, 200);
        a.drop_sessions();
        let reply = echo(&proxy, &mine).await;
        assert_eq!(
            (reply.status, &reply.json()["result"]["release"]),
            (200, &json!("a")),
            "{body}"
        );
        assert_eq!(
            (opened(&a), proxy.load(RELEASE_A, Moment(0)).sessions),
            (2, 1),
            "{status} {body}"
        );
        // The client does not see it; it counts against the release all the same.
        let want = Counts { ok: 3, server_fault: 1, ..Counts::default() };
        wait_for_counts(&proxy, RELEASE_A, want).await;
    }
}

#[tokio::test]
async fn a_client_that_listens_again_after_a_restart_opens_its_session_anew() {
    // The status alone does not end a stream.
    for &(status, body) in UNKNOWN.iter().filter(|(_, body)| !body.is_empty()) {
        let a = FakeMcpServer::start("a").await;
        a.set_behaviour(|it| it.unknown = (status, body));
        let proxy = proxy_to(a.address);
        let mine = open_session(proxy.local_addr()).await;
        a.drop_sessions();
        let mut wire = RawConnection::connect(proxy.local_addr()).await;
        wire.send(get(&mine)).await;
        assert_eq!((wire.read_head().await.0, opened(&a)), (200, 2), "{status} {body}");
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
        assert_eq!(opened(&a), 2);
    }
}

#[tokio::test]
async fn a_release_without_streams_and_without_an_end_of_sessions_loses_none() {
    for (status, body) in [(404, "Cannot GET /mcp"), (404, r#"{"detail":"Not Found"}"#), (405, "")]
    {
        let a = FakeMcpServer::start("a").await;
        a.set_behaviour(|it| it.beside_post = Some((status, body)));
        let proxy = proxy_to(a.address);
        let mine = open_session(proxy.local_addr()).await;
        let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}\r\n");
        for text in [get(&mine), delete] {
            let reply = send_raw(proxy.local_addr(), &text).await;
            assert_eq!((reply.status, reply.text().as_str()), (status, body), "{text}");
            assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 1, "{text}");
            assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
            assert_eq!(a.log.lock().unwrap().last().unwrap().1, "a-0");
        }
        assert_eq!(opened(&a), 1);
        // It offers no stream: no fault.
        let want = Counts { ok: 3, neutral: 1, client_fault: 1, ..Counts::default() };
        wait_for_counts(&proxy, RELEASE_A, want).await;
    }
}

#[tokio::test]
async fn errors_of_tools_that_speak_of_sessions_are_passed_on() {
    for (status, code, message) in [
        (200, -32000, "Session not found"),
        (200, -32603, "the session of the database was lost"),
        (400, -32000, "the browser session was closed: session not found"),
        (400, -32600, "session not found in the database"),
        (400, -32602, "Session ID is required"),
        (404, -32602, "unknown session"),
        (404, -32601, "Method not found"),
    ] {
        let a = FakeMcpServer::start("a").await;
        let proxy = proxy_to(a.address);
        let mine = open_session(proxy.local_addr()).await;
        let arguments = json!({"status": status, "code": code, "message": message}).to_string();
        let reply = post(proxy.local_addr(), &tool_call("7", "refuse", &arguments), &mine).await;
        assert_eq!((reply.status, &reply.json()["error"]["message"]), (status, &json!(message)));
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
        assert_eq!((opened(&a), proxy.load(RELEASE_A, Moment(0)).sessions), (1, 1), "{message}");
        let calls = a.methods().iter().filter(|it| *it == "tools/call").count();
        assert_eq!(calls, 2, "nothing was asked twice: {message}");
    }
}
