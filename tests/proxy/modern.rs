//! What is particular to 2026-07-28: headers that repeat the body, hints how long to keep an answer,
//! and states that only the release which sealed them can open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rollbackd::config::Address;
use rollbackd::model::Counts;
use tokio::io::AsyncWriteExt as _;

use crate::client::{Reply, call, messages, post};
use crate::upstream::{EVENTS, asked, json_answer, says, scripted};
use crate::{A, B, before, counted};

const MODERN: &str = "MCP-Protocol-Version: 2026-07-28\r\n";
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;

async fn tell(to: SocketAddr, body: &str, headers: &str) -> Reply {
    post(to, body, &format!("{MODERN}{headers}")).await
}

/// A release that answers, and counts the requests that it got whole.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let got = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&got);
    let address = scripted(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            while asked(&mut stream).await.is_some() {
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
async fn a_request_whose_headers_say_something_else_goes_nowhere() {
    let (address, got) = counting().await;
    let proxy = before(address);
    let to = proxy.local_addr();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(300_000));
    let mut wrong = 0;
    for arguments in ["{}", &large] {
        let body = call("\"x\"", "pay", arguments);
        for headers in [
            "Mcp-Method: tools/list\r\n",
            "Mcp-Method: tools/call\r\nMcp-Name: look\r\n",
            "Mcp-Method: tools/call\r\nMcp-Name: =?base64?bG9vaw==?=\r\n",
            "Mcp-Method: tools/call\r\nMcp-Method: tools/list\r\n",
        ] {
            let reply = tell(to, &body, headers).await;
            assert_eq!(reply.status, 400, "{headers} {reply:?}");
            assert_eq!(reply.json()["id"], "x");
            assert_eq!(reply.json()["error"]["code"], -32020);
            wrong += 1;
        }
    }
    assert_eq!(got.load(Ordering::Relaxed), 0);
    counted(&proxy, A, Counts { client_fault: wrong, ..Counts::default() }).await;
}

#[tokio::test]
async fn a_request_whose_headers_fit_passes() {
    let (address, got) = counting().await;
    let to = before(address).local_addr();
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(300_000));
    for arguments in ["{}", &large] {
        let body = call("\"x\"", "pay", arguments);
        for headers in [
            "",
            "Mcp-Method: tools/call\r\nMcp-Name: pay\r\n",
            "Mcp-Method: tools/call\r\nMcp-Name: =?base64?cGF5?=\r\n",
        ] {
            assert_eq!(tell(to, &body, headers).await.status, 200, "{headers}");
        }
    }
    // In the handshake era these are headers like any other.
    let reply = post(to, &call("\"x\"", "pay", "{}"), "Mcp-Method: tools/list\r\n").await;
    assert_eq!(reply.status, 200);
    assert_eq!(got.load(Ordering::Relaxed), 7);
}

#[tokio::test]
async fn what_a_release_on_trial_lists_is_kept_for_a_short_time_only() {
    let list = r#"{"jsonrpc":"2.0","id":1, "result":{"tools":[],"ttlMs":3600000,"x":1.0}}"#;
    let events = format!("{EVENTS}id: 1\ndata: {list}\n\n");
    for answer in [json_answer(list), events] {
        let proxy = before(says(answer).await);
        let to = proxy.local_addr();
        let whole = tell(to, LIST, "").await.text();
        assert!(whole.contains(list), "{whole}");
        proxy.on_trial(Some(A));
        let short = whole.replace("3600000", "5000");
        assert_eq!(tell(to, LIST, "").await.text(), short);
        // No hint, but a part of what a tool says.
        assert_eq!(tell(to, &call("1", "a", "{}"), "").await.text(), whole);
        proxy.on_trial(Some(B));
        assert_eq!(tell(to, LIST, "").await.text(), whole);
    }
}

#[tokio::test]
async fn a_state_goes_back_to_the_release_that_sealed_it() {
    // Longer than what is picked out of a message, and found in both kinds of answers.
    let state = "s".repeat(5000);
    let more = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{}},"requestState":"{state}"}}}}"#
    );
    let done = json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete"}}"#);
    for answer in [json_answer(&more), format!("{EVENTS}data: {more}\n\n")] {
        let proxy = before(says(answer).await);
        let to = proxy.local_addr();
        let of = |reply: Reply| {
            let text = reply.text();
            let json = messages(&text).pop().unwrap_or_else(|| reply.json());
            (
                json["result"]["resultType"].clone(),
                json["error"]["code"].clone(),
                json["id"].clone(),
            )
        };
        let body = call("1", "book", "{}");
        let again = body.replace(
            r#""arguments""#,
            &format!(r#""inputResponses":{{}},"requestState":"{state}","arguments""#),
        );
        assert_eq!(of(tell(to, &body, "").await).0, "input_required");
        proxy.add(B, &Address::Tcp(says(done.clone()).await));
        proxy.route(B);
        assert_eq!(of(tell(to, &body, "").await).0, "complete");
        assert_eq!(of(tell(to, &again, "").await).0, "input_required");
        let unknown = again.replace(&state, "another");
        assert_eq!(of(tell(to, &unknown, "").await).0, "complete");
        proxy.cut(A).await;
        let (_, code, id) = of(tell(to, &again, "").await);
        assert_eq!((code.as_i64(), id.as_i64()), (Some(-32602), Some(1)));
    }
}
