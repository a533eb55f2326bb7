//! A release is drained: its sessions migrate to another one, and keep the client's id.

use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::model::{DrainCost, MigrationRefused, Moment};
use rollbackd::proxy::Proxy;
use serde_json::json;

use crate::closing_front::closing_front;
use crate::fake_backend::FakeMcpServer;
use crate::http_client::{
    INITIALIZE, RawConnection, assert_error, header, open_request, post, send_raw, sse_messages,
    tool_call,
};
use crate::{RELEASE_A, RELEASE_B, begin, proxy_to, wait_until};

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const TOOLS_LIST: &str = r#"{"jsonrpc":"2.0","id":"l","method":"tools/list"}"#;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Two releases, the first one active, with an initialized session.
pub(crate) async fn proxy_with_session() -> (FakeMcpServer, FakeMcpServer, Proxy, String) {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mine = open_session(&proxy).await;
    (a, b, proxy, mine)
}

pub(crate) async fn open_session(proxy: &Proxy) -> String {
    let mine = crate::http_client::open_session(proxy.local_addr()).await;
    assert_eq!(post(proxy.local_addr(), INITIALIZED, &mine).await.status, 202);
    mine
}

async fn open_get_stream(proxy: &Proxy, mine: &str, more: &str) -> RawConnection {
    let get = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}{more}\r\n"
    );
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send(&get).await;
    assert_eq!(wire.read_head().await.0, 200);
    wire
}

async fn serving_release(proxy: &Proxy, mine: &str) -> String {
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), mine).await;
    let answer = reply.json();
    answer["result"]["release"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn a_client_of_a_release_without_session_ids_can_go_back_to_one_with_ids() {
    let (a, b, proxy, _) = proxy_with_session().await;
    b.set_behaviour(|it| it.stateless = true);
    proxy.set_active(RELEASE_B);
    let mine = open_session(&proxy).await;
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    assert!(b.log.lock().unwrap().iter().all(|(_, id, _)| id.is_empty()), "no id of the proxy");
    proxy.set_active(RELEASE_A);
    let cost = proxy.drain(RELEASE_B, DRAIN_TIMEOUT).await;
    assert_eq!(cost.sessions_to_migrate, 1);
    assert_eq!(serving_release(&proxy, &mine).await, "a");
    let replayed = ["initialize", "notifications/initialized", "tools/call"];
    let methods = a.methods();
    assert!(methods.ends_with(&replayed.map(ToOwned::to_owned)), "{methods:?}");
}

#[tokio::test]
async fn a_release_without_session_ids_gives_none_where_no_other_has_them() {
    let b = FakeMcpServer::start("b").await;
    b.set_behaviour(|it| it.stateless = true);
    let proxy = proxy_to(b.address);
    let reply = post(proxy.local_addr(), INITIALIZE, "").await;
    assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None));
}

#[tokio::test]
async fn migration_replays_initialize_with_current_credentials() {
    let (a, b, proxy, mine) = proxy_with_session().await;
    let to = proxy.local_addr();
    let level =
        r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"error"}}"#;
    let want =
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"x://1"}}"#;
    for body in
        [level, want, &want.replace("x://1", "x://2"), &want.replace("subscribe", "unsubscribe")]
    {
        assert_eq!(post(to, body, &mine).await.status, 200);
    }
    proxy.set_active(RELEASE_B);
    assert_eq!(serving_release(&proxy, &mine).await, "a", "sessions stay on a switch forward");
    let cost = proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert_eq!(
        cost,
        DrainCost { sessions_to_migrate: 1, server_state_at_risk: true, ..DrainCost::default() }
    );
    assert!(cost.to_string().contains("state in the server"), "{cost}");
    assert_eq!(b.request_count(), 0, "nothing before its next request");
    let headers = format!("{mine}Authorization: Bearer 1\r\nMCP-Protocol-Version: 2025-06-18\r\n");
    let reply = post(to, &tool_call("3", "echo", "{}"), &headers).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    let id = header(&mine, "mcp-session-id").unwrap();
    assert_eq!(reply.header("mcp-session-id").unwrap_or(id), id);
    let said =
        ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"];
    assert_eq!(b.methods(), [&said[..], &["tools/call"]].concat());
    let log = b.log.lock().unwrap().clone();
    let params: serde_json::Value = serde_json::from_str(&log[0].2).unwrap();
    let first: serde_json::Value = serde_json::from_str(INITIALIZE).unwrap();
    assert_eq!(params["params"], first["params"]);
    assert!(log[2].2.contains("error") && log[3].2.contains("x://2"), "{log:?}");
    assert_eq!(log[0].1, "");
    assert!(log[1..].iter().all(|(_, id, _)| id == "b-0"), "{log:?}");
    wait_until(
        "the old session to be deleted",
        || a.methods().contains(&"DELETE /mcp".to_owned()),
        String::new,
    )
    .await;
    // No later request replays these messages.
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    assert_eq!(b.request_count(), 6);
    assert_eq!(proxy.load(RELEASE_B, Moment(0)).sessions, 1);
}

#[tokio::test]
async fn migration_survives_connections_that_the_target_closes_meanwhile() {
    let (_a, b, proxy, mine) = proxy_with_session().await;
    let front = closing_front(b.address).await;
    proxy.remove_release(RELEASE_B).await;
    proxy.add_release(RELEASE_B, &Address::Tcp(front));
    proxy.set_active(RELEASE_B);
    let _ = proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    let reply = post(proxy.local_addr(), TOOLS_LIST, &mine).await;
    assert_eq!((reply.status, b.methods().last().map(String::as_str)), (200, Some("tools/list")));
}

#[tokio::test]
async fn busy_session_migrates_after_its_call_and_idle_one_immediately() {
    let (_a, _b, proxy, mine) = proxy_with_session().await;
    let idle = open_session(&proxy).await;
    let mut wire =
        open_request(proxy.local_addr(), &tool_call("1", "wait", r#"{"ms":500}"#), &mine).await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    proxy.set_active(RELEASE_B);
    let draining = {
        let proxy = proxy.clone();
        tokio::spawn(begin(async move { proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await }))
    };
    assert_eq!(serving_release(&proxy, &idle).await, "b");
    assert_eq!(serving_release(&proxy, &mine).await, "a");
    assert_eq!(wire.read_response().await.json()["result"]["release"], "a");
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    let cost = draining.await.unwrap();
    assert_eq!(
        (cost.sessions_ended, cost.sessions_migrated + cost.sessions_to_migrate),
        (0, 2),
        "{cost:?}"
    );
}

#[tokio::test]
async fn requests_during_migration_wait_and_open_no_second_session() {
    let (_a, b, proxy, mine) = proxy_with_session().await;
    b.set_behaviour(|it| it.initialize_delay = Duration::from_millis(300));
    proxy.set_active(RELEASE_B);
    proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    let mut wires = Vec::new();
    for n in 0..10 {
        wires.push(
            open_request(proxy.local_addr(), &tool_call(&n.to_string(), "echo", "{}"), &mine).await,
        );
    }
    for (n, wire) in wires.iter_mut().enumerate() {
        let answer = wire.read_response().await.json();
        assert_eq!(
            (answer["id"].as_u64(), &answer["result"]["release"]),
            (Some(n as u64), &json!("b"))
        );
    }
    assert_eq!(b.methods().iter().filter(|it| *it == "initialize").count(), 1);
}

#[tokio::test]
async fn client_disconnect_during_migration_is_harmless() {
    let (_a, b, proxy, mine) = proxy_with_session().await;
    b.set_behaviour(|it| it.initialize_delay = Duration::from_millis(300));
    proxy.set_active(RELEASE_B);
    proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    let leaver = open_request(proxy.local_addr(), &tool_call("1", "echo", "{}"), &mine).await;
    wait_until("asked", || b.methods().iter().any(|it| it == "initialize"), String::new).await;
    drop(leaver);
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    assert_eq!(b.methods().iter().filter(|it| *it == "initialize").count(), 1);
}

#[tokio::test]
async fn get_stream_survives_migration_and_reports_list_changes() {
    let (a, b, proxy, mine) = proxy_with_session().await;
    let mut stream = open_get_stream(&proxy, &mine, "").await;
    stream.read_until(": open\n\n").await;
    a.notify_streams("id: 5\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n").await;
    assert!(stream.read_until("notifications/x").await.starts_with("id: 5\n"));
    proxy.set_active(RELEASE_B);
    let cost = proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert_eq!((cost.streams_closed, cost.sessions_ended, cost.sessions_to_migrate), (0, 0, 1));
    // The notification comes at once, so that the client sends a request.
    let told = stream.read_until("notifications/resources/list_changed").await;
    assert_eq!(
        sse_messages(&told)[0],
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    );
    assert!(!told.contains("prompts"), "the server has none: {told}");
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    // The move itself has nothing new to report.
    let opened = stream.read_until(": open\n\n").await;
    assert!(!opened.contains("list_changed"), "{opened}");
    b.notify_streams("id: 5\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/y\"}\n\n").await;
    assert!(stream.read_until("notifications/y").await.starts_with("id: rollbackd~1~5\n"));
    assert_eq!(b.streams.lock().unwrap()[0].0, "b-0");

    // And back again, by a cut.
    proxy.add_release(RELEASE_A, &Address::Tcp(a.address));
    let again = proxy.set_active(RELEASE_A);
    assert!(again);
    proxy.cut(RELEASE_B).await;
    assert_eq!(serving_release(&proxy, &mine).await, "a");
    stream.read_until("notifications/resources/list_changed").await;
}

#[tokio::test]
async fn stream_resumed_with_a_foreign_event_id_starts_fresh() {
    let (_a, b, proxy, mine) = proxy_with_session().await;
    proxy.set_active(RELEASE_B);
    proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    for last in ["5", "rollbackd~7~5"] {
        let mut stream =
            open_get_stream(&proxy, &mine, &format!("Last-Event-ID: {last}\r\n")).await;
        stream.read_until(": open\n\n").await;
    }
    // A GET moves its session, too.
    assert_eq!(b.streams.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn notifications_are_added_to_the_next_sse_response_without_a_get_stream() {
    let (_a, _b, proxy, mine) = proxy_with_session().await;
    proxy.set_active(RELEASE_B);
    proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    for news in [2, 0] {
        let reply = post(proxy.local_addr(), &tool_call("2", "stream", "{}"), &mine).await;
        let told = sse_messages(&reply.text());
        let changed = |it: &&serde_json::Value| {
            it["method"].as_str().is_some_and(|it| it.ends_with("list_changed"))
        };
        assert_eq!(told.iter().filter(changed).count(), news, "{told:?}");
        assert_eq!(told.last().unwrap()["result"]["release"], "b");
    }
}

#[tokio::test]
async fn client_replies_reach_only_the_server_that_asked() {
    let (a, b, proxy, mine) = proxy_with_session().await;
    let mut asking = open_request(proxy.local_addr(), &tool_call("1", "elicit", "{}"), &mine).await;
    asking.read_head().await;
    asking.read_until("elicitation/create").await;
    proxy.set_active(RELEASE_B);
    let cost = proxy.cut(RELEASE_A).await;
    assert_eq!(
        (cost.error_responses, cost.sessions_not_migrated.get(&MigrationRefused::PendingRequest)),
        (1, Some(&1))
    );
    assert_error(&sse_messages(&asking.read_to_end().await)[0], 1.into(), "rollback");
    let late = r#"{"jsonrpc":"2.0","id":0,"result":{}}"#;
    assert_eq!(post(proxy.local_addr(), late, &mine).await.status, 202);
    let mut asking = open_request(proxy.local_addr(), &tool_call("2", "elicit", "{}"), &mine).await;
    asking.read_head().await;
    let asked = asking.read_until("elicitation/create").await;
    let asked = sse_messages(&asked).pop().unwrap();
    assert_eq!(asked["id"], "rollbackd~1~0");
    assert_eq!(post(proxy.local_addr(), late, &mine).await.status, 202);
    assert!(
        a.client_replies.lock().unwrap().is_empty() && b.client_replies.lock().unwrap().is_empty()
    );
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}});
    assert_eq!(post(proxy.local_addr(), &answer.to_string(), &mine).await.status, 202);
    assert_eq!(sse_messages(&asking.read_to_end().await)[0]["result"]["release"], "b");
    assert_eq!(b.client_replies.lock().unwrap()[0]["id"], 0);
}

#[tokio::test]
async fn session_without_a_server_id_migrates_both_ways() {
    let (a, b, proxy, mine) = proxy_with_session().await;
    b.set_behaviour(|it| it.stateless = true);
    proxy.set_active(RELEASE_B);
    proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    assert_eq!(b.log.lock().unwrap().last().unwrap().1, "");
    proxy.add_release(RELEASE_A, &Address::Tcp(a.address));
    proxy.set_active(RELEASE_A);
    proxy.drain(RELEASE_B, DRAIN_TIMEOUT).await;
    assert_eq!(serving_release(&proxy, &mine).await, "a");
}

#[tokio::test]
async fn session_delete_needs_no_migration() {
    let (a, b, proxy, mine) = proxy_with_session().await;
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}\r\n");
    assert_eq!(send_raw(proxy.local_addr(), &delete).await.status, 200);
    let reply = post(proxy.local_addr(), TOOLS_LIST, &mine).await;
    assert_eq!((reply.status, reply.json()["id"].as_str()), (404, Some("l")));
    assert_eq!((b.request_count(), a.methods().contains(&"DELETE /mcp".to_owned())), (0, false));
}

#[tokio::test]
async fn session_waits_when_no_release_is_routed() {
    let (_a, _b, proxy, mine) = proxy_with_session().await;
    proxy.cut(RELEASE_A).await;
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &mine).await;
    assert_error(&reply.json(), 1.into(), "no_release");
    assert_eq!(reply.json()["error"]["data"]["retryable"], true);
    proxy.set_active(RELEASE_B);
    assert_eq!(serving_release(&proxy, &mine).await, "b");
}

#[tokio::test]
async fn initialize_result_advertises_list_changed() {
    let (_a, _b, proxy, _) = proxy_with_session().await;
    let reply = post(proxy.local_addr(), INITIALIZE, "").await;
    let capabilities = &reply.json()["result"]["capabilities"];
    assert_eq!(capabilities["tools"]["listChanged"], true);
    assert_eq!(capabilities["resources"], json!({"subscribe": true, "listChanged": true}));
    assert_eq!(capabilities.get("prompts"), None);
}

#[tokio::test]
async fn sessions_migrate_forward_when_configured_and_back() {
    let (a, b, proxy, mine) = proxy_with_session().await;
    let mut stream = open_get_stream(&proxy, &mine, "").await;
    proxy.set_active(RELEASE_B);
    assert_eq!(serving_release(&proxy, &mine).await, "a");
    proxy.migrate_sessions_from(Some(RELEASE_A));
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    stream.read_until("list_changed").await;
    // Those that are opened now, too, and none twice.
    assert_eq!(serving_release(&proxy, &mine).await, "b");
    let (at_a, at_b) =
        (proxy.load(RELEASE_A, Moment(0)).sessions, proxy.load(RELEASE_B, Moment(0)).sessions);
    assert_eq!((at_a, at_b), (0, 1));
    proxy.migrate_sessions_from(None);
    proxy.set_active(RELEASE_A);
    let cost = proxy.drain(RELEASE_B, DRAIN_TIMEOUT).await;
    assert_eq!(cost.sessions_ended, 0, "{cost}");
    assert_eq!(serving_release(&proxy, &mine).await, "a");
    let _ = (a, b);
}
