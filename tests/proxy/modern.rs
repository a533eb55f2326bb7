//! Features of 2026-07-28: headers that repeat the body, cache hints, and request states that only
//! the release which created them can read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rollbackd::config::Address;
use rollbackd::model::Counts;
use tokio::io::AsyncWriteExt as _;

use crate::fake_backend::{SSE_HEAD, fixed_response, json_answer, read_request, scripted};
use crate::http_client::{HttpResponse, post, sse_messages, tool_call};
use crate::{RELEASE_A, RELEASE_B, proxy_to, wait_for_counts};

const MODERN_HEADERS: &str = "MCP-Protocol-Version: 2026-07-28\r\n";
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;

async fn send_modern(to: SocketAddr, body: &str, headers: &str) -> HttpResponse {
    post(to, body, &format!("{MODERN_HEADERS}{headers}")).await
}

/// A release that answers, and counts the requests that it got whole.
async fn counting_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let got = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&got);
    let address = scripted(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            while read_request(&mut stream).await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
                let answer = json_answer(r#"{"jsonrpc":"2.0","id":"x","result":{}}"#);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    (address, got)
}

#[tokio::test]
async fn request_with_mismatched_headers_is_rejected() {
    let (address, got) = counting_server().await;
    let proxy = proxy_to(address);
    let to = proxy.local_addr();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(300_000));
    let mut wrong = 0;
    for arguments in ["{}", &large] {
        let body = tool_call("\"x\"", "pay", arguments);
        for headers in [
            "Mcp-Method: tools/list\r\n",
            "Mcp-Method: tools/call\r\nMcp-Name: look\r\n",
            "Mcp-Method: tools/call\r\nMcp-Name: =?base64?bG9vaw==?=\r\n",
            "Mcp-Method: tools/call\r\nMcp-Method: tools/list\r\n",
        ] {
            let reply = send_modern(to, &body, headers).await;
            assert_eq!(reply.status, 400, "{headers} {reply:?}");
            assert_eq!(reply.json()["id"], "x");
            assert_eq!(reply.json()["error"]["code"], -32020);
            wrong += 1;
        }
    }
    assert_eq!(got.load(Ordering::Relaxed), 0);
    wait_for_counts(&proxy, RELEASE_A, Counts { client_fault: wrong, ..Counts::default() }).await;
}

#[tokio::test]
async fn request_with_matching_headers_is_forwarded() {
    let (address, got) = counting_server().await;
    let to = proxy_to(address).local_addr();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(300_000));
    for arguments in ["{}", &large] {
        let body = tool_call("\"x\"", "pay", arguments);
        for headers in [
            "",
            "Mcp-Method: tools/call\r\nMcp-Name: pay\r\n",
            "Mcp-Method: tools/call\r\nMcp-Name: =?base64?cGF5?=\r\n",
        ] {
            assert_eq!(send_modern(to, &body, headers).await.status, 200, "{headers}");
        }
    }
    assert_eq!(got.load(Ordering::Relaxed), 6);
}

/// A gateway may authorize by these headers whatever the version, and readers of JSON differ.
#[tokio::test]
async fn body_that_readers_take_differently_is_rejected() {
    let (address, got) = counting_server().await;
    let to = proxy_to(address).local_addr();
    let call = |params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{params}}}"#)
    };
    let padding = format!(r#""arguments":{{"x":"{}"}}"#, "x".repeat(300_000));
    let safe = call(r#"{"name":"safe"}"#);
    let bodies = [
        call(r#"{"name":"wipe","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#),
        call(r#"{"name":"wipe","uri":"safe"}"#),
        call(r#"{"name":"safe","name":"wipe"}"#),
        call(r#"{"name":"safe","n\u0061me":"wipe"}"#),
        call(r#"{"name":"safe","NAME":"wipe"}"#),
        call(&format!(r#"{{"name":"safe",{padding},"name":"wipe"}}"#)),
        call(&format!(r#"{{{padding}}}"#)),
        format!("{safe}{}", call(r#"{"name":"wipe"}"#)),
        format!("[{safe}]"),
        format!("{safe}\0"),
        safe.replace("\"id\"", "\"a\":+1,\"id\""),
        String::new(),
    ];
    let headers = "Mcp-Method: tools/call\r\nMcp-Name: safe\r\n";
    for body in &bodies {
        let start: String = body.chars().take(120).collect();
        for version in ["", "MCP-Protocol-Version: 2026-07-28\r\n"] {
            let reply = post(to, body, &format!("{version}{headers}")).await;
            assert_eq!(reply.status, 400, "{start}: {reply:?}");
            let text = reply.text();
            // Without an id there is no JSON-RPC error to send.
            assert!(
                text.contains("-32020") || text.starts_with("Header mismatch"),
                "{start}: {text}"
            );
        }
    }
    assert_eq!(got.load(Ordering::Relaxed), 0);
    assert_eq!(post(to, &safe, headers).await.status, 200);
    assert_eq!(got.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn list_ttl_is_clamped_during_a_trial() {
    let list = r#"{"jsonrpc":"2.0","id":1, "result":{"tools":[],"ttlMs":3600000,"x":1.0}}"#;
    let events = format!("{SSE_HEAD}id: 1\ndata: {list}\n\n");
    for answer in [json_answer(list), events] {
        let proxy = proxy_to(fixed_response(answer).await);
        let to = proxy.local_addr();
        let whole = send_modern(to, LIST, "").await.text();
        assert!(whole.contains(list), "{whole}");
        proxy.set_trial(Some(RELEASE_A));
        let short = whole.replace("3600000", "5000");
        assert_eq!(send_modern(to, LIST, "").await.text(), short);
        // No hint, but a part of what a tool says.
        assert_eq!(send_modern(to, &tool_call("1", "a", "{}"), "").await.text(), whole);
        proxy.set_trial(Some(RELEASE_B));
        assert_eq!(send_modern(to, LIST, "").await.text(), whole);
    }
}

#[tokio::test]
async fn request_state_returns_to_its_release() {
    // Longer than what is picked out of a message, and found in both kinds of answers.
    let state = "s".repeat(5000);
    let more = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{}},"requestState":"{state}"}}}}"#
    );
    let done = json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete"}}"#);
    for answer in [json_answer(&more), format!("{SSE_HEAD}data: {more}\n\n")] {
        let proxy = proxy_to(fixed_response(answer).await);
        let to = proxy.local_addr();
        let of = |reply: HttpResponse| {
            let text = reply.text();
            let json = sse_messages(&text).pop().unwrap_or_else(|| reply.json());
            (
                json["result"]["resultType"].clone(),
                json["error"]["code"].clone(),
                json["id"].clone(),
            )
        };
        let body = tool_call("1", "book", "{}");
        let again = body.replace(
            r#""arguments""#,
            &format!(r#""inputResponses":{{}},"requestState":"{state}","arguments""#),
        );
        assert_eq!(of(send_modern(to, &body, "").await).0, "input_required");
        proxy.add_release(RELEASE_B, &Address::Tcp(fixed_response(done.clone()).await));
        proxy.set_active(RELEASE_B);
        assert_eq!(of(send_modern(to, &body, "").await).0, "complete");
        assert_eq!(of(send_modern(to, &again, "").await).0, "input_required");
        let unknown = again.replace(&state, "another");
        assert_eq!(of(send_modern(to, &unknown, "").await).0, "complete");
        proxy.cut(RELEASE_A).await;
        let (_, code, id) = of(send_modern(to, &again, "").await);
        assert_eq!((code.as_i64(), id.as_i64()), (Some(-32602), Some(1)));
    }
}
