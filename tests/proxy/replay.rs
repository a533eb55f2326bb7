//! Requests that are in flight when their release is cut off: the proxy replays those that change
//! nothing on the other release, and fails the rest.

use rollbackd::config::Address;
use rollbackd::model::Moment;
use serde_json::json;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{assert_error, open_request, sse_messages, tool_call};
use crate::migration::{open_session, proxy_with_session};
use crate::{RELEASE_A, RELEASE_B, wait_until};

#[tokio::test]
async fn cut_replays_idempotent_requests_and_fails_the_rest() {
    let (a, b, proxy, mine) = proxy_with_session().await;
    let slow = |id: &str, method: &str, name: &str| {
        tool_call(id, name, r#"{"ms":60000}"#).replace("tools/call", method)
    };
    let mut safe = Vec::new();
    for name in ["wait", "stream"] {
        for session in [mine.as_str(), ""] {
            let body = slow("7", "tools/list", name);
            safe.push((name, open_request(proxy.local_addr(), &body, session).await));
        }
    }
    let mut unsafe_one =
        open_request(proxy.local_addr(), &slow("8", "tools/call", "wait"), &mine).await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 5, String::new).await;
    a.wait_for_requests(7).await;
    for (_, wire) in safe.iter_mut().filter(|(name, _)| *name == "stream") {
        wire.wait_for_response().await;
    }
    proxy.set_active(RELEASE_B);
    let cost = {
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.cut(RELEASE_A).await })
    };
    assert_error(&unsafe_one.read_response().await.json(), 8.into(), "rollback");
    // The others are open for a minute: the cut did not wait for them.
    let cost = cost.await.unwrap();
    assert_eq!((cost.error_responses, cost.requests_replayed), (1, 4), "{cost:?}");
    wait_until(
        "asked again",
        || b.methods().iter().filter(|it| *it == "tools/list").count() == 4,
        String::new,
    )
    .await;
    // They hang on the other release, too; a second cut answers them.
    proxy.cut(RELEASE_B).await;
    for (name, mut wire) in safe {
        let reply = wire.read_response().await;
        let answer = match name {
            "stream" => sse_messages(&reply.text()).pop().unwrap(),
            _ => reply.json(),
        };
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));
    }
}

#[tokio::test]
async fn replayed_response_is_transparent() {
    let (_a, _b, proxy, mine) = proxy_with_session().await;
    let slow =
        |name: &str| tool_call("7", name, r#"{"ms":700}"#).replace("tools/call", "tools/list");
    let mut wires = Vec::new();
    for name in ["wait", "stream"] {
        wires.push((name, open_request(proxy.local_addr(), &slow(name), &mine).await));
    }
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 2, String::new).await;
    wires[1].1.wait_for_response().await;
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    for (name, mut wire) in wires {
        let reply = wire.read_response().await;
        assert_eq!(reply.status, 200);
        let told = match name {
            "stream" => sse_messages(&reply.text()),
            _ => vec![reply.json()],
        };
        let answers: Vec<_> = told.iter().filter(|it| it["id"] == 7).collect();
        assert_eq!(answers.len(), 1, "{told:?}");
        assert_eq!(answers[0]["result"]["release"], "b");
    }
}

#[tokio::test]
async fn read_only_tool_is_replayed() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = crate::proxy_with(a.address, |service| {
        service.limits.repeatable_tools = ["stream".to_owned()].into();
    });
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mine = open_session(&proxy).await;
    let body = tool_call("7", "stream", r#"{"ms":500}"#);
    let mut wire = open_request(proxy.local_addr(), &body, &mine).await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    wire.wait_for_response().await;
    proxy.set_active(RELEASE_B);
    assert_eq!(proxy.cut(RELEASE_A).await.requests_replayed, 1);
    let told = sse_messages(&wire.read_response().await.text());
    assert_eq!(told.last().unwrap()["result"]["release"], "b");
}
