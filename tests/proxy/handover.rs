//! One proxy takes over from another while requests are open in it.

use std::path::Path;
use std::time::Duration;

use rollbackd::clock::Clock;
use rollbackd::config::{Address, Service};
use rollbackd::model::{Moment, ReleaseNumber};
use rollbackd::proxy::{Proxy, ReplicationMessage, RoutesSnapshot};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fake_backend::{FakeMcpServer, fixed_response, json_answer};
use crate::http_client::{
    INITIALIZE, assert_error, open_request, open_session, post, sse_messages, tool_call,
};
use crate::{KEY, RELEASE_A, RELEASE_B, begin, test_service, wait_until};

pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
pub(crate) const MODERN_HEADERS: &str = "MCP-Protocol-Version: 2026-07-28\r\n";
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Two proxies: the old one drains, the new one accepts connections.
pub(crate) struct ProxyPair {
    pub(crate) old: Proxy,
    pub(crate) new: Proxy,
    _dir: TempDir,
}

pub(crate) fn start_predecessor(dir: &TempDir, release: std::net::SocketAddr) -> Proxy {
    start_predecessor_with(dir, release, &test_service("test"))
}

pub(crate) fn start_predecessor_with(
    dir: &TempDir,
    release: std::net::SocketAddr,
    service: &Service,
) -> Proxy {
    let file = dir.path().join("sessions.jsonl");
    let old = Proxy::restore(service, KEY, Clock::start(Moment(0)), Some(&file)).unwrap();
    old.add_release(RELEASE_A, &Address::Tcp(release));
    old.set_active(RELEASE_A);
    old
}

fn start_successor(old: &Proxy, file: &Path) -> Proxy {
    let listener = std::net::TcpListener::from(old.duplicate_listener().unwrap().unwrap());
    let listener = TcpListener::from_std(listener).unwrap();
    let clock = Clock::start(Moment(0));
    Proxy::with_listener(listener, &test_service("test"), KEY, clock, Some(file)).unwrap()
}

/// Hands over to a proxy with these releases, the last of which is active.
pub(crate) async fn hand_over(
    dir: TempDir,
    old: Proxy,
    to: &[(ReleaseNumber, std::net::SocketAddr)],
) -> ProxyPair {
    let file = dir.path().join("sessions.jsonl");
    let listener = old.duplicate_listener().unwrap().unwrap();
    let (tell, mut told) = mpsc::channel::<(String, ReplicationMessage)>(16);
    let mut early = Vec::new();
    {
        let mut handing = std::pin::pin!(old.hand_over(tell));
        loop {
            tokio::select! {
                () = handing.as_mut() => break,
                Some((name, change)) = told.recv() => {
                    assert_eq!(name, "test");
                    early.push(change);
                }
            }
        }
    }
    while let Ok((_, change)) = told.try_recv() {
        early.push(change);
    }
    assert!(old.duplicate_listener().unwrap().is_none(), "the old one still accepts");
    let listener = TcpListener::from_std(std::net::TcpListener::from(listener)).unwrap();
    let clock = Clock::start(Moment(0));
    let new =
        Proxy::with_listener(listener, &test_service("test"), KEY, clock, Some(&file)).unwrap();
    // Encoded as for the channel between two daemons.
    let hear = |proxy: &Proxy, change: ReplicationMessage| {
        let text = serde_json::to_string(&change).unwrap();
        proxy.apply(serde_json::from_str(&text).unwrap());
    };
    early.into_iter().for_each(|change| hear(&new, change));
    for (number, address) in to {
        new.add_release(*number, &Address::Tcp(*address));
        new.set_active(*number);
    }
    new.start_accepting();
    let successor = new.clone();
    tokio::spawn(async move {
        while let Some((_, change)) = told.recv().await {
            hear(&successor, change);
        }
        successor.predecessor_gone();
    });
    ProxyPair { old, new, _dir: dir }
}

impl ProxyPair {
    pub(crate) async fn end_predecessor(&self) {
        let soon = CancellationToken::new();
        self.old.drain_connections(DRAIN_TIMEOUT, &soon).await;
        self.old.stop_replicating().await;
    }
}

#[tokio::test]
async fn session_opened_in_the_predecessor_migrates_in_the_successor() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    a.set_behaviour(|manners| manners.initialize_delay = Duration::from_millis(400));
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let mut opening = open_request(to, INITIALIZE, "").await;
    wait_until("it is open", || old.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(RELEASE_B, b.address), (RELEASE_A, a.address)]).await;
    let reply = opening.read_response().await;
    let mine = format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id").unwrap());
    post(to, INITIALIZED, &mine).await;
    let reply = post(to, &tool_call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a");
    two.end_predecessor().await;
    // It can migrate only because the old proxy recorded how it was opened.
    two.new.set_active(RELEASE_B);
    let cost = two.new.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert_eq!((cost.sessions_ended, cost.sessions_to_migrate), (0, 1), "{cost:?}");
    let reply = post(to, &tool_call("2", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    assert_eq!(b.methods()[..2], ["initialize", "notifications/initialized"]);
}

#[tokio::test]
async fn open_request_in_the_predecessor_pins_its_session() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let mine = open_session(to).await;
    post(to, INITIALIZED, &mine).await;
    let mut waits = open_request(to, &tool_call("1", "wait", r#"{"ms":1500}"#), &mine).await;
    wait_until("it is open", || old.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(RELEASE_B, b.address), (RELEASE_A, a.address)]).await;
    assert_eq!(
        two.new.load(RELEASE_A, Moment(0)).in_flight,
        1,
        "it is known from the first moment on"
    );
    two.new.set_active(RELEASE_B);
    let proxy = two.new.clone();
    let drain = tokio::spawn(begin(async move { proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await }));
    let reply = post(to, &tool_call("2", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a", "it does not move while it is busy");
    assert!(!drain.is_finished());
    assert_eq!(waits.read_response().await.json()["result"]["release"], "a");
    two.end_predecessor().await;
    let reply = post(to, &tool_call("3", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    let cost = drain.await.unwrap();
    assert_eq!((cost.error_responses, cost.sessions_ended), (0, 0), "{cost:?}");
}

#[tokio::test]
async fn session_end_and_subscription_are_replicated() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let (ended, lives) = (open_session(to).await, open_session(to).await);
    post(to, INITIALIZED, &lives).await;
    // The old proxy serves the connections that it accepted.
    let mut one = crate::http_client::RawConnection::connect(to).await;
    let mut other = crate::http_client::RawConnection::connect(to).await;
    one.send(crate::http_client::request(&tool_call("1", "echo", "{}"), &ended)).await;
    one.read_response().await;
    other.send(crate::http_client::request(&tool_call("1", "echo", "{}"), &lives)).await;
    other.read_response().await;
    let two = hand_over(dir, old, &[(RELEASE_B, b.address), (RELEASE_A, a.address)]).await;
    assert_eq!(two.new.load(RELEASE_A, Moment(0)).sessions, 2);
    one.send(format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{ended}\r\n")).await;
    one.read_response().await;
    let wish =
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"a://1"}}"#;
    other.send(crate::http_client::request(wish, &lives)).await;
    other.read_response().await;
    wait_until("the end", || two.new.load(RELEASE_A, Moment(0)).sessions == 1, String::new).await;
    two.end_predecessor().await;
    two.new.set_active(RELEASE_B);
    two.new.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    post(to, &tool_call("3", "echo", "{}"), &lives).await;
    assert!(b.methods().contains(&"resources/subscribe".to_owned()), "{:?}", b.methods());
}

#[tokio::test]
async fn earlier_request_state_is_routed_to_its_release() {
    let state = "s".repeat(700);
    let more = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{}},"requestState":"{state}"}}}}"#
    );
    let a = fixed_response(json_answer(&more)).await;
    let b = FakeMcpServer::start("b").await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a);
    let to = old.local_addr();
    post(to, &tool_call("1", "echo", "{}"), MODERN_HEADERS).await;
    let _two = hand_over(dir, old, &[(RELEASE_A, a), (RELEASE_B, b.address)]).await;
    let again = json!({"name": "echo", "requestState": state});
    let again = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": again});
    let reply = post(to, &again.to_string(), MODERN_HEADERS).await;
    assert_eq!(reply.json()["result"]["resultType"], "input_required", "{reply:?}");
    let reply = post(to, &tool_call("1", "echo", "{}"), MODERN_HEADERS).await;
    assert_eq!(reply.json()["result"]["release"], "b");
}

#[tokio::test]
async fn predecessor_ends_subscriptions_and_answers_overdue_requests() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let listen = r#"{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{}}"#;
    let mut listens = open_request(to, listen, MODERN_HEADERS).await;
    listens.read_head().await;
    listens.read_until("acknowledged").await;
    let mut waits =
        open_request(to, &tool_call("7", "wait", r#"{"ms":60000}"#), MODERN_HEADERS).await;
    wait_until("it is open", || old.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    let soon = CancellationToken::new();
    let (old, hurry) = (two.old.clone(), soon.clone());
    let leaving = tokio::spawn(async move { old.drain_connections(DRAIN_TIMEOUT, &hurry).await });
    let result = sse_messages(&listens.read_to_end().await).remove(0);
    assert_eq!(
        (&result["id"], &result["result"]["resultType"]),
        (&"l-1".into(), &"complete".into())
    );
    let reply = post(to, &tool_call("9", "echo", "{}"), MODERN_HEADERS).await;
    assert_eq!(reply.json()["result"]["release"], "a");
    assert!(!leaving.is_finished(), "it waits for what is open");
    soon.cancel();
    assert_error(&waits.read_response().await.json(), 7.into(), "rollback");
    leaving.await.unwrap();
    assert_eq!(
        post(to, &tool_call("8", "echo", "{}"), MODERN_HEADERS).await.json()["result"]["release"],
        "a"
    );
}

#[tokio::test]
async fn invalid_replication_changes_are_ignored() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let file = dir.path().join("other.jsonl");
    let new = start_successor(&old, &file);
    for text in [
        r#"{"session":{"k":"short"}}"#,
        r#"{"session":{"k":"AAAAAAAAAAAAAAAAAAAAAA"}}"#,
        r#"{"busy":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"idle":"nonsense"}"#,
        r#"{"open":[4294967295,18446744073709551615]}"#,
        r#"{"state":[18446744073709551615,7]}"#,
    ] {
        new.apply(serde_json::from_str(text).unwrap());
    }
    assert!(serde_json::from_str::<ReplicationMessage>(r#"{"tomorrow":1}"#).is_err());
    new.predecessor_gone();
    assert_eq!(new.load(ReleaseNumber(u32::MAX), Moment(0)).in_flight, 0);
}

#[tokio::test]
async fn predecessor_applies_the_routes_of_the_successor() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let mut kept = crate::http_client::RawConnection::connect(to).await;
    kept.send(crate::http_client::request(&tool_call("1", "echo", "{}"), MODERN_HEADERS)).await;
    assert_eq!(kept.read_response().await.json()["result"]["release"], "a");
    let mut waits =
        open_request(to, &tool_call("7", "wait", r#"{"ms":60000}"#), MODERN_HEADERS).await;
    wait_until("it is open", || old.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(RELEASE_A, a.address), (RELEASE_B, b.address)]).await;
    let ways = |proxy: &Proxy| {
        let text = serde_json::to_string(&proxy.routes_snapshot().unwrap()).unwrap();
        serde_json::from_str::<RoutesSnapshot>(&text).unwrap()
    };
    two.old.apply_routes(&ways(&two.new)).await;
    kept.send(crate::http_client::request(&tool_call("2", "echo", "{}"), MODERN_HEADERS)).await;
    assert_eq!(kept.read_response().await.json()["result"]["release"], "b");
    two.new.cut(RELEASE_A).await;
    two.old.apply_routes(&ways(&two.new)).await;
    assert_error(&waits.read_response().await.json(), 7.into(), "rollback");
    assert_eq!(two.old.routes_snapshot(), two.new.routes_snapshot());
    two.new.shut_down().await;
    assert_eq!(two.new.routes_snapshot(), None, "that all is cut then is no way to follow");
}
