//! Legacy sessions: whose they are, and what becomes of them.

use std::time::Duration;

use rollbackd::config::{Address, SessionState};
use rollbackd::model::Moment;

use crate::client::{INITIALIZE, Wire, call, header, messages, post, say, session};
use crate::upstream::Mcp;
use crate::{A, B, before, service, start};

const MODERN: &str = "MCP-Protocol-Version: 2026-07-28\r\n";

#[tokio::test]
async fn a_session_stays_with_its_release_also_after_a_switch_and_a_restart() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let reply = post(proxy.local_addr(), INITIALIZE, "").await;
    let minted = reply.header("mcp-session-id").unwrap().to_owned();
    assert_ne!(minted, "a-0");
    let mine = format!("Mcp-Session-Id: {minted}\r\n");
    proxy.route(B);
    let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a");
    assert_eq!(reply.header("mcp-session-id").unwrap_or(&minted), minted);
    assert_eq!(a.log.lock().unwrap().last().unwrap().1, "a-0");
    let other = session(proxy.local_addr()).await;
    let reply = post(proxy.local_addr(), &call("2", "echo", "{}"), &other).await;
    assert_eq!(reply.json()["result"]["release"], "b");

    let again = start(&service("test"));
    again.add(A, &Address::Tcp(a.address));
    again.add(B, &Address::Tcp(b.address));
    again.route(B);
    let reply = post(again.local_addr(), &call("3", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a");
    assert_eq!(again.load(A, Moment(0)).sessions, 1);
}

#[tokio::test]
async fn modern_requests_have_no_session() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let mine = session(proxy.local_addr()).await;
    proxy.route(B);
    for headers in [format!("{mine}{MODERN}"), format!("Mcp-Session-Id: nonsense\r\n{MODERN}")] {
        let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), &headers).await;
        assert_eq!(reply.json()["result"]["release"], "b");
        assert_eq!(b.log.lock().unwrap().last().unwrap().1, "");
    }
}

#[tokio::test]
async fn forged_cut_and_foreign_ids_reach_no_release() {
    let a = Mcp::start("a").await;
    let proxy = before(a.address);
    let mine = session(proxy.local_addr()).await;
    let id = header(&mine, "mcp-session-id").unwrap();
    let other = start(&service("other"));
    other.add(A, &Address::Tcp(a.address));
    other.route(A);
    let foreign = session(other.local_addr()).await;
    let asked = a.asked();
    let mut bent = id.to_owned().into_bytes();
    bent[20] = if bent[20] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    let long = "A".repeat(5000);
    for bad in
        ["a-0", &id[..id.len() - 2], &bent, &long, header(&foreign, "mcp-session-id").unwrap()]
    {
        let headers = format!("Mcp-Session-Id: {bad}\r\n");
        let reply = post(proxy.local_addr(), &call(r#""x""#, "echo", "{}"), &headers).await;
        assert_eq!((reply.status, &reply.json()["id"]), (404, &"x".into()), "{bad}");
        let get = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        assert_eq!(say(proxy.local_addr(), &get).await.status, 404);
    }
    assert_eq!(a.asked(), asked);
    assert_eq!(proxy.counts(A).total(), 1);
}

#[tokio::test]
async fn load_and_protocols_tell_of_live_sessions() {
    let a = Mcp::start("a").await;
    let proxy = before(a.address);
    let mine: Vec<_> = vec![session(proxy.local_addr()).await, session(proxy.local_addr()).await];
    assert_eq!(proxy.load(A, Moment(0)).sessions, 2);
    assert_eq!(proxy.protocols(A).into_iter().collect::<Vec<_>>(), ["2025-06-18"]);
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{}\r\n", mine[0]);
    assert_eq!(say(proxy.local_addr(), &delete).await.status, 200);
    assert_eq!(proxy.load(A, Moment(0)).sessions, 1);
    assert!(a.log.lock().unwrap().iter().any(|(head, id, _)| head == "DELETE /mcp" && id == "a-0"));
    proxy.sweep(Moment(u64::MAX));
    assert_eq!(proxy.load(A, Moment(0)).sessions, 0);
    assert_eq!(proxy.protocols(A).len(), 0);
}

#[tokio::test]
async fn the_stream_of_a_session_that_can_not_be_moved_is_cut_with_a_warning() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = crate::with(a.address, |service| service.session_state = SessionState::Hard);
    proxy.add(B, &Address::Tcp(b.address));
    let mine = session(proxy.local_addr()).await;
    proxy.route(B);
    let get =
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}\r\n");
    let mut wire = Wire::to(proxy.local_addr()).await;
    wire.send(&get).await;
    assert_eq!(wire.head().await.0, 200);
    wire.until(": open\n\n").await;
    let load = proxy.load(A, Moment(0));
    assert_eq!((load.sessions, load.in_flight), (1, 0));
    let toll = proxy.cut(A).await;
    assert_eq!((toll.streams, toll.ended, toll.answered), (1, 1, 0));
    let rest = wire.rest().await;
    let told = messages(&rest);
    assert_eq!(told[0]["method"], "notifications/message");
    assert_eq!(told[0]["params"]["level"], "warning");
    assert_eq!(told[1]["method"], "notifications/rollbackd/session_closing");
    assert_eq!(told[1]["params"]["reason"], "hard state");
    assert_eq!(told[2]["method"], "notifications/tools/list_changed");
    assert!(rest.contains("\nretry: "), "{rest}");
    let reply = post(proxy.local_addr(), &call("9", "echo", "{}"), &mine).await;
    assert_eq!((reply.status, reply.json()["id"].as_u64()), (404, Some(9)));
    let reply = post(proxy.local_addr(), &call("9", "echo", "{}"), "").await;
    assert_eq!(reply.json()["result"]["release"], "b");
}

#[tokio::test]
async fn a_drain_waits_for_requests_and_keeps_streams_and_sessions() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let mine = session(proxy.local_addr()).await;
    let get = format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}\r\n");
    let mut stream = Wire::to(proxy.local_addr()).await;
    stream.send(&get).await;
    stream.head().await;
    let mut open = Vec::new();
    for tool in ["wait", "stream"] {
        let body = call("1", tool, r#"{"ms":400}"#);
        open.push(crate::client::open(proxy.local_addr(), &body, &mine).await);
    }
    crate::eventually("two open", || proxy.load(A, Moment(0)).in_flight == 2, String::new).await;
    proxy.route(B);
    let began = tokio::time::Instant::now();
    let toll = proxy.drain(A, Duration::from_secs(20)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "it waits only for what is open");
    assert_eq!((toll.answered, toll.streams, toll.ended, toll.waiting), (0, 0, 0, 1));
    assert_eq!(open[0].reply().await.json()["result"]["release"], "a");
    let events = open[1].reply().await.text();
    assert_eq!(messages(&events)[1]["result"]["release"], "a");
    let reply = post(proxy.local_addr(), &call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    stream.until("notifications/tools/list_changed").await;
    // With nothing open it is over at once.
    assert_eq!(proxy.load(A, Moment(0)).sessions, 0);
    proxy.drain(A, Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_full_table_loses_no_session() {
    let a = Mcp::start("a").await;
    let proxy = crate::with(a.address, |service| service.limits.sessions = 1);
    for _ in 0..3 {
        let mine = session(proxy.local_addr()).await;
        assert_eq!(post(proxy.local_addr(), &call("1", "echo", "{}"), &mine).await.status, 200);
    }
    assert_eq!(proxy.load(A, Moment(0)).sessions, 1);
}
