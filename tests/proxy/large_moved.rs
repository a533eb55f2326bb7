//! Large messages of sessions that have moved.

use rollbackd::model::MigrationRefused;
use serde_json::json;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{open_request, post, sse_messages, tool_call};
use crate::migration::proxy_with_session;
use crate::{RELEASE_A, RELEASE_B};

#[tokio::test]
async fn a_large_response_to_a_request_of_the_server_reaches_it() {
    let (_a, b, proxy, mine): (_, FakeMcpServer, _, _) = proxy_with_session().await;
    let to = proxy.local_addr();
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    let mut call = open_request(to, &tool_call("5", "elicit", "{}"), &mine).await;
    assert_eq!(call.read_head().await.0, 200);
    let asked = sse_messages(&call.read_until("elicitation/create").await);
    let id = asked.iter().find(|it| it["method"] == "elicitation/create").unwrap()["id"].clone();
    assert_ne!(id, 0, "the id of the server, before the move");
    // Many clients write the id last.
    let large = json!({ "content": "x".repeat(300_000) });
    let body = format!(r#"{{"result":{large},"jsonrpc":"2.0","id":{id}}}"#);
    assert_eq!(post(to, &body, &mine).await.status, 202);
    assert_eq!(b.client_replies.lock().unwrap()[0]["id"], 0);
    assert!(call.read_to_end().await.contains(r#""release":"b""#));
}

#[tokio::test]
async fn a_session_with_a_large_initialize_response_moves() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    for server in [&a, &b] {
        let experimental = json!({"x": {"text": "x".repeat(200_000)}});
        server.set_behaviour(|it| {
            it.capabilities = json!({"tools": {}, "experimental": experimental});
        });
    }
    let proxy = crate::proxy_to(a.address);
    proxy.add_release(RELEASE_B, &rollbackd::config::Address::Tcp(b.address));
    let mine = crate::migration::open_session(&proxy).await;
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
}

fn subscribe(uri: &str) -> String {
    let params = json!({ "uri": uri });
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{params}}}"#)
}

#[tokio::test]
async fn hundreds_of_subscriptions_move_and_too_many_keep_the_session() {
    for (uri_length, count, moves) in [(100, 300, true), (400, 200, false), (600, 1, false)] {
        let (_a, b, proxy, mine) = proxy_with_session().await;
        let to = proxy.local_addr();
        for number in 0..count {
            let uri = format!("x://{number}/{}", "x".repeat(uri_length));
            assert_eq!(post(to, &subscribe(&uri), &mine).await.status, 200);
        }
        proxy.set_active(RELEASE_B);
        let cost = proxy.cut(RELEASE_A).await;
        let reason = MigrationRefused::StateNotRestorable;
        assert_eq!(cost.sessions_not_migrated.contains_key(&reason), !moves, "{cost:?}");
        if moves {
            post(to, &tool_call("1", "echo", "{}"), &mine).await;
            let methods = b.methods();
            let again = methods.iter().filter(|it| *it == "resources/subscribe").count();
            assert_eq!(again, count, "{methods:?}");
        }
    }
}
