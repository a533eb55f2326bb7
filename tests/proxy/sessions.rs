//! Legacy sessions: which release has them, and how they end.

use std::time::Duration;

use rollbackd::config::{Address, SessionState};
use rollbackd::model::Moment;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{
    INITIALIZE, RawConnection, header, open_session, post, send_raw, sse_messages, tool_call,
};
use crate::{RELEASE_A, RELEASE_B, proxy_to, start, test_service};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
const MODERN_HEADERS: &str = "MCP-Protocol-Version: 2026-07-28\r\n";

#[tokio::test]
async fn session_stays_on_its_release_after_switch_and_restart() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let reply = post(proxy.local_addr(), INITIALIZE, "").await;
    let minted = reply.header("mcp-session-id").unwrap().to_owned();
    assert_ne!(minted, "a-0");
    let mine = format!("Mcp-Session-Id: {minted}\r\n");
    proxy.set_active(RELEASE_B);
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a");
    assert_eq!(reply.header("mcp-session-id").unwrap_or(&minted), minted);
    assert_eq!(a.log.lock().unwrap().last().unwrap().1, "a-0");
    let other = open_session(proxy.local_addr()).await;
    let reply = post(proxy.local_addr(), &tool_call("2", "echo", "{}"), &other).await;
    assert_eq!(reply.json()["result"]["release"], "b");

    let again = start(&test_service("test"));
    again.add_release(RELEASE_A, &Address::Tcp(a.address));
    again.add_release(RELEASE_B, &Address::Tcp(b.address));
    again.set_active(RELEASE_B);
    let reply = post(again.local_addr(), &tool_call("3", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a");
    assert_eq!(again.load(RELEASE_A, Moment(0)).sessions, 1);
}

#[tokio::test]
async fn modern_requests_have_no_session() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mine = open_session(proxy.local_addr()).await;
    proxy.set_active(RELEASE_B);
    for headers in
        [format!("{mine}{MODERN_HEADERS}"), format!("Mcp-Session-Id: nonsense\r\n{MODERN_HEADERS}")]
    {
        let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &headers).await;
        assert_eq!(reply.json()["result"]["release"], "b");
        assert_eq!(b.log.lock().unwrap().last().unwrap().1, "");
    }
}

#[tokio::test]
async fn forged_truncated_and_foreign_session_ids_are_rejected() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
    let mine = open_session(proxy.local_addr()).await;
    let id = header(&mine, "mcp-session-id").unwrap();
    let other = start(&test_service("other"));
    other.add_release(RELEASE_A, &Address::Tcp(a.address));
    other.set_active(RELEASE_A);
    let foreign = open_session(other.local_addr()).await;
    let asked = a.request_count();
    let mut bent = id.to_owned().into_bytes();
    bent[20] = if bent[20] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    let long = "A".repeat(5000);
    for bad in
        ["a-0", &id[..id.len() - 2], &bent, &long, header(&foreign, "mcp-session-id").unwrap()]
    {
        let headers = format!("Mcp-Session-Id: {bad}\r\n");
        let reply = post(proxy.local_addr(), &tool_call(r#""x""#, "echo", "{}"), &headers).await;
        assert_eq!((reply.status, &reply.json()["id"]), (404, &"x".into()), "{bad}");
        let get = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        assert_eq!(send_raw(proxy.local_addr(), &get).await.status, 404);
    }
    assert_eq!(a.request_count(), asked);
    assert_eq!(proxy.counts(RELEASE_A).total(), 1);
}

#[tokio::test]
async fn load_reports_live_sessions_and_protocols() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_to(a.address);
    let mine: Vec<_> =
        vec![open_session(proxy.local_addr()).await, open_session(proxy.local_addr()).await];
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 2);
    assert_eq!(proxy.protocol_versions(RELEASE_A).into_iter().collect::<Vec<_>>(), ["2025-06-18"]);
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{}\r\n", mine[0]);
    assert_eq!(send_raw(proxy.local_addr(), &delete).await.status, 200);
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 1);
    assert!(a.log.lock().unwrap().iter().any(|(head, id, _)| head == "DELETE /mcp" && id == "a-0"));
    proxy.expire_sessions(Moment(u64::MAX));
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 0);
    assert_eq!(proxy.protocol_versions(RELEASE_A).len(), 0);
}

#[tokio::test]
async fn stream_of_an_unmovable_session_is_cut_with_a_warning() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = crate::proxy_with(a.address, |service| service.session_state = SessionState::Hard);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mine = open_session(proxy.local_addr()).await;
    proxy.set_active(RELEASE_B);
    let get =
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}\r\n");
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send(&get).await;
    assert_eq!(wire.read_head().await.0, 200);
    wire.read_until(": open\n\n").await;
    let load = proxy.load(RELEASE_A, Moment(0));
    assert_eq!((load.sessions, load.in_flight), (1, 0));
    let cost = proxy.cut(RELEASE_A).await;
    assert_eq!((cost.streams_closed, cost.sessions_ended, cost.error_responses), (1, 1, 0));
    let rest = wire.read_to_end().await;
    let told = sse_messages(&rest);
    assert_eq!(told[0]["method"], "notifications/message");
    assert_eq!(told[0]["params"]["level"], "warning");
    assert_eq!(told[1]["method"], "notifications/rollbackd/session_closing");
    assert_eq!(told[1]["params"]["reason"], "hard state");
    assert_eq!(told[2]["method"], "notifications/tools/list_changed");
    assert!(rest.contains("\nretry: "), "{rest}");
    let reply = post(proxy.local_addr(), &tool_call("9", "echo", "{}"), &mine).await;
    assert_eq!((reply.status, reply.json()["id"].as_u64()), (404, Some(9)));
    let reply = post(proxy.local_addr(), &tool_call("9", "echo", "{}"), "").await;
    assert_eq!(reply.json()["result"]["release"], "b");
}

#[tokio::test]
async fn drain_waits_for_requests_and_keeps_streams_and_sessions() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mine = open_session(proxy.local_addr()).await;
    let get = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}\r\n");
    let mut stream = RawConnection::connect(proxy.local_addr()).await;
    stream.send(&get).await;
    stream.read_head().await;
    let mut open = Vec::new();
    for tool in ["wait", "stream"] {
        let body = tool_call("1", tool, r#"{"ms":400}"#);
        open.push(crate::http_client::open_request(proxy.local_addr(), &body, &mine).await);
    }
    crate::wait_until("two open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 2, String::new)
        .await;
    proxy.set_active(RELEASE_B);
    let began = tokio::time::Instant::now();
    let cost = proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert!(began.elapsed() < DRAIN_TIMEOUT, "it waits only for requests in flight");
    assert_eq!(
        (cost.error_responses, cost.streams_closed, cost.sessions_ended, cost.sessions_to_migrate),
        (0, 0, 0, 1)
    );
    assert_eq!(open[0].read_response().await.json()["result"]["release"], "a");
    let events = open[1].read_response().await.text();
    assert_eq!(sse_messages(&events)[1]["result"]["release"], "a");
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    stream.read_until("notifications/tools/list_changed").await;
    // With nothing in flight it ends at once.
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 0);
    proxy.drain(RELEASE_A, Duration::from_secs(60)).await;
}

#[tokio::test]
async fn full_session_table_loses_no_session() {
    let a = FakeMcpServer::start("a").await;
    let proxy = crate::proxy_with(a.address, |service| service.limits.sessions_max = 1);
    for _ in 0..3 {
        let mine = open_session(proxy.local_addr()).await;
        assert_eq!(
            post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &mine).await.status,
            200
        );
    }
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 1);
}
