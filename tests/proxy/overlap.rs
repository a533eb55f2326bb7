//! One proxy takes over from another while requests are open in it.

use std::path::Path;
use std::time::Duration;

use rollbackd::clock::Clock;
use rollbackd::config::Address;
use rollbackd::model::{Moment, Number};
use rollbackd::proxy::{Change, Proxy, Ways};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::{INITIALIZE, assert_error, call, messages, open, post, session};
use crate::upstream::{Mcp, json_answer, says};
use crate::{A, B, KEY, eventually, service};

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const MODERN: &str = "MCP-Protocol-Version: 2026-07-28\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// Two proxies: one that ends what is open in it, and one that has all who come.
struct Two {
    old: Proxy,
    new: Proxy,
    _dir: TempDir,
}

fn first(dir: &TempDir, release: std::net::SocketAddr) -> Proxy {
    let file = dir.path().join("sessions.jsonl");
    let old = Proxy::restore(&service("test"), KEY, Clock::start(Moment(0)), Some(&file)).unwrap();
    old.add(A, &Address::Tcp(release));
    old.route(A);
    old
}

fn next(old: &Proxy, file: &Path) -> Proxy {
    let listener = std::net::TcpListener::from(old.listener().unwrap().unwrap());
    let listener = TcpListener::from_std(listener).unwrap();
    let clock = Clock::start(Moment(0));
    Proxy::on(listener, &service("test"), KEY, clock, Some(file)).unwrap()
}

/// Hands over; the releases of the new one, the last of which has the traffic.
async fn hand_over(dir: TempDir, old: Proxy, to: &[(Number, std::net::SocketAddr)]) -> Two {
    let file = dir.path().join("sessions.jsonl");
    let listener = old.listener().unwrap().unwrap();
    let (tell, mut told) = mpsc::channel::<(String, Change)>(16);
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
    assert!(old.listener().unwrap().is_none(), "the old one accepts nobody");
    let listener = TcpListener::from_std(std::net::TcpListener::from(listener)).unwrap();
    let clock = Clock::start(Moment(0));
    let new = Proxy::on(listener, &service("test"), KEY, clock, Some(&file)).unwrap();
    // As it comes over a channel.
    let hear = |proxy: &Proxy, change: Change| {
        let text = serde_json::to_string(&change).unwrap();
        proxy.hear(serde_json::from_str(&text).unwrap());
    };
    early.into_iter().for_each(|change| hear(&new, change));
    for (number, address) in to {
        new.add(*number, &Address::Tcp(*address));
        new.route(*number);
    }
    new.open();
    let heir = new.clone();
    tokio::spawn(async move {
        while let Some((_, change)) = told.recv().await {
            hear(&heir, change);
        }
        heir.is_alone();
    });
    Two { old, new, _dir: dir }
}

impl Two {
    async fn part(&self) {
        let soon = CancellationToken::new();
        self.old.see_off(PATIENCE, &soon).await;
        self.old.fall_silent().await;
    }
}

#[tokio::test]
async fn a_session_that_is_opened_in_the_old_one_moves_in_the_new_one() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    a.behave(|manners| manners.slowly = Duration::from_millis(400));
    let dir = tempfile::tempdir().unwrap();
    let old = first(&dir, a.address);
    let to = old.local_addr();
    let mut opening = open(to, INITIALIZE, "").await;
    eventually("it is open", || old.load(A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(B, b.address), (A, a.address)]).await;
    let reply = opening.reply().await;
    let mine = format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id").unwrap());
    post(to, INITIALIZED, &mine).await;
    let reply = post(to, &call("1", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a");
    two.part().await;
    // Only how it was opened, which the old one saw, lets it move.
    two.new.route(B);
    let toll = two.new.drain(A, PATIENCE).await;
    assert_eq!((toll.ended, toll.waiting), (0, 1), "{toll:?}");
    let reply = post(to, &call("2", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    assert_eq!(b.methods()[..2], ["initialize", "notifications/initialized"]);
}

#[tokio::test]
async fn a_session_stays_and_a_drain_waits_while_something_is_open_in_the_old_one() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = first(&dir, a.address);
    let to = old.local_addr();
    let mine = session(to).await;
    post(to, INITIALIZED, &mine).await;
    let mut waits = open(to, &call("1", "wait", r#"{"ms":1500}"#), &mine).await;
    eventually("it is open", || old.load(A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(B, b.address), (A, a.address)]).await;
    assert_eq!(two.new.load(A, Moment(0)).in_flight, 1, "it is known from the first moment on");
    two.new.route(B);
    let proxy = two.new.clone();
    let drain = tokio::spawn(async move { proxy.drain(A, PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reply = post(to, &call("2", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "a", "it does not move while it is busy");
    assert!(!drain.is_finished());
    assert_eq!(waits.reply().await.json()["result"]["release"], "a");
    two.part().await;
    let reply = post(to, &call("3", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    let toll = drain.await.unwrap();
    assert_eq!((toll.answered, toll.ended), (0, 0), "{toll:?}");
}

#[tokio::test]
async fn an_end_and_a_subscription_in_the_old_one_are_known_in_the_new_one() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = first(&dir, a.address);
    let to = old.local_addr();
    let (ended, lives) = (session(to).await, session(to).await);
    post(to, INITIALIZED, &lives).await;
    // Connections from before: what comes on them is served by the old one.
    let mut one = crate::client::Wire::to(to).await;
    let mut other = crate::client::Wire::to(to).await;
    one.send(crate::client::request(&call("1", "echo", "{}"), &ended)).await;
    one.reply().await;
    other.send(crate::client::request(&call("1", "echo", "{}"), &lives)).await;
    other.reply().await;
    let two = hand_over(dir, old, &[(B, b.address), (A, a.address)]).await;
    assert_eq!(two.new.load(A, Moment(0)).sessions, 2);
    one.send(format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{ended}\r\n")).await;
    one.reply().await;
    let wish =
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"a://1"}}"#;
    other.send(crate::client::request(wish, &lives)).await;
    other.reply().await;
    eventually("the end", || two.new.load(A, Moment(0)).sessions == 1, String::new).await;
    two.part().await;
    two.new.route(B);
    two.new.drain(A, PATIENCE).await;
    post(to, &call("3", "echo", "{}"), &lives).await;
    assert!(b.methods().contains(&"resources/subscribe".to_owned()), "{:?}", b.methods());
}

#[tokio::test]
async fn a_state_that_was_given_out_before_leads_to_its_release() {
    let state = "s".repeat(700);
    let more = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"resultType":"input_required","inputRequests":{{}},"requestState":"{state}"}}}}"#
    );
    let a = says(json_answer(&more)).await;
    let b = Mcp::start("b").await;
    let dir = tempfile::tempdir().unwrap();
    let old = first(&dir, a);
    let to = old.local_addr();
    post(to, &call("1", "echo", "{}"), MODERN).await;
    let _two = hand_over(dir, old, &[(A, a), (B, b.address)]).await;
    let again = json!({"name": "echo", "requestState": state});
    let again = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": again});
    let reply = post(to, &again.to_string(), MODERN).await;
    assert_eq!(reply.json()["result"]["resultType"], "input_required", "{reply:?}");
    let reply = post(to, &call("1", "echo", "{}"), MODERN).await;
    assert_eq!(reply.json()["result"]["release"], "b");
}

#[tokio::test]
async fn what_only_listens_ends_and_what_takes_too_long_is_answered() {
    let a = Mcp::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = first(&dir, a.address);
    let to = old.local_addr();
    let listen = r#"{"jsonrpc":"2.0","id":"l-1","method":"subscriptions/listen","params":{}}"#;
    let mut listens = open(to, listen, MODERN).await;
    listens.head().await;
    listens.until("acknowledged").await;
    let mut waits = open(to, &call("7", "wait", r#"{"ms":60000}"#), MODERN).await;
    eventually("it is open", || old.load(A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(A, a.address)]).await;
    let soon = CancellationToken::new();
    let (old, hurry) = (two.old.clone(), soon.clone());
    let leaving = tokio::spawn(async move { old.see_off(PATIENCE, &hurry).await });
    let result = messages(&listens.rest().await).remove(0);
    assert_eq!(
        (&result["id"], &result["result"]["resultType"]),
        (&"l-1".into(), &"complete".into())
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!leaving.is_finished(), "it waits for what is open");
    soon.cancel();
    assert_error(&waits.reply().await.json(), 7.into(), "rollback");
    leaving.await.unwrap();
    assert_eq!(post(to, &call("8", "echo", "{}"), MODERN).await.json()["result"]["release"], "a");
}

#[tokio::test]
async fn changes_that_make_no_sense_do_no_harm() {
    let a = Mcp::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = first(&dir, a.address);
    let file = dir.path().join("other.jsonl");
    let new = next(&old, &file);
    for text in [
        r#"{"session":{"k":"short"}}"#,
        r#"{"session":{"k":"AAAAAAAAAAAAAAAAAAAAAA"}}"#,
        r#"{"busy":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"idle":"nonsense"}"#,
        r#"{"open":[4294967295,18446744073709551615]}"#,
        r#"{"state":[18446744073709551615,7]}"#,
    ] {
        new.hear(serde_json::from_str(text).unwrap());
    }
    assert!(serde_json::from_str::<Change>(r#"{"tomorrow":1}"#).is_err());
    new.is_alone();
    assert_eq!(new.load(Number(u32::MAX), Moment(0)).in_flight, 0);
}

#[tokio::test]
async fn what_the_old_one_still_gets_goes_where_the_new_one_sends_it() {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = first(&dir, a.address);
    let to = old.local_addr();
    let mut kept = crate::client::Wire::to(to).await;
    kept.send(crate::client::request(&call("1", "echo", "{}"), MODERN)).await;
    assert_eq!(kept.reply().await.json()["result"]["release"], "a");
    let mut waits = open(to, &call("7", "wait", r#"{"ms":60000}"#), MODERN).await;
    eventually("it is open", || old.load(A, Moment(0)).in_flight == 1, String::new).await;
    let two = hand_over(dir, old, &[(A, a.address), (B, b.address)]).await;
    let ways = |proxy: &Proxy| {
        let text = serde_json::to_string(&proxy.ways().unwrap()).unwrap();
        serde_json::from_str::<Ways>(&text).unwrap()
    };
    two.old.follow(&ways(&two.new)).await;
    kept.send(crate::client::request(&call("2", "echo", "{}"), MODERN)).await;
    assert_eq!(kept.reply().await.json()["result"]["release"], "b");
    two.new.cut(A).await;
    two.old.follow(&ways(&two.new)).await;
    assert_error(&waits.reply().await.json(), 7.into(), "rollback");
    assert_eq!(two.old.ways(), two.new.ways());
    two.new.stop().await;
    assert_eq!(two.new.ways(), None, "that all is cut then is no way to follow");
}
