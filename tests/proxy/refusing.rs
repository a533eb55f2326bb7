//! Sessions that can not be moved: named, kept as long as can be, then ended politely.

use std::time::Duration;

use rollbackd::config::{Address, Service, SessionState};
use rollbackd::model::{Moment, Refusal, Toll};
use rollbackd::proxy::Proxy;
use serde_json::json;

use crate::client::{Reply, Wire, assert_error, call, messages, open, post, session};
use crate::upstream::{Manners, Mcp};
use crate::{A, B, eventually, with};

const SOON: Duration = Duration::from_millis(800);

async fn with_session(change: impl FnOnce(&mut Service)) -> (Mcp, Mcp, Proxy, String) {
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = with(a.address, change);
    proxy.add(B, &Address::Tcp(b.address));
    let mine = session(proxy.local_addr()).await;
    (a, b, proxy, mine)
}

async fn echo(proxy: &Proxy, mine: &str) -> Reply {
    post(proxy.local_addr(), &call("1", "echo", "{}"), mine).await
}

/// Leaves the first release, with a request in the drain and one after it.
async fn leave(proxy: &Proxy, mine: &str) -> (Reply, Toll, Reply) {
    proxy.route(B);
    let draining = {
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.drain(A, SOON).await })
    };
    // The drain of an idle release ends at once: the session has to be asked for before that.
    let during = echo(proxy, mine).await;
    let toll = draining.await.unwrap();
    (during, toll, echo(proxy, mine).await)
}

/// Something that keeps the release open for the length of a drain.
async fn hold_open(proxy: &Proxy) -> Wire {
    let body = call("0", "wait", r#"{"ms":400}"#);
    let wire = open(proxy.local_addr(), &body, "").await;
    eventually("open", || proxy.load(A, Moment(0)).in_flight == 1, String::new).await;
    wire
}

async fn pinned_then_over(change: impl FnOnce(&mut Manners), refusal: Refusal) {
    let (_a, b, proxy, mine) = with_session(|_| ()).await;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"x"}}"#;
    post(proxy.local_addr(), list, &mine).await;
    b.behave(change);
    let _open = hold_open(&proxy).await;
    let (during, toll, after) = leave(&proxy, &mine).await;
    assert_eq!(during.json()["result"]["release"], "a", "{refusal:?}");
    assert_eq!((toll.ended, toll.kept.get(&refusal)), (1, Some(&1)), "{toll}");
    assert!(toll.to_string().contains(refusal.word()), "{toll}");
    assert_eq!((after.status, after.json()["id"].as_u64()), (404, Some(1)), "{refusal:?}");
}

#[tokio::test]
async fn another_protocol_version_or_a_missing_capability_keeps_a_session_where_it_is() {
    pinned_then_over(|it| it.protocol = "2025-03-26", Refusal::Protocol).await;
    pinned_then_over(|it| it.capabilities = json!({"resources": {}}), Refusal::Capability).await;
}

#[tokio::test]
async fn hard_state_stays_until_the_drain_ends() {
    let (_a, b, proxy, mine) = with_session(|it| it.session_state = SessionState::Hard).await;
    let began = tokio::time::Instant::now();
    let (during, toll, after) = leave(&proxy, &mine).await;
    assert!(began.elapsed() >= SOON, "it has until then");
    assert_eq!(during.json()["result"]["release"], "a");
    assert_eq!((toll.ended, toll.kept.get(&Refusal::HardState)), (1, Some(&1)));
    assert_eq!((after.status, b.asked()), (404, 0));
}

#[tokio::test]
async fn a_capability_that_was_never_used_is_not_missed() {
    let (_a, b, proxy, mine) = with_session(|_| ()).await;
    b.behave(|it| it.capabilities = json!({}));
    proxy.route(B);
    proxy.drain(A, SOON).await;
    assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
}

#[tokio::test]
async fn refused_credentials_are_the_clients_to_renew() {
    let (_a, b, proxy, mine) = with_session(|_| ()).await;
    b.behave(|it| it.opening = 401);
    let _open = hold_open(&proxy).await;
    let (during, toll, after) = leave(&proxy, &mine).await;
    assert_eq!(during.json()["result"]["release"], "a");
    assert_eq!((toll.ended, toll.kept.get(&Refusal::Credentials)), (0, Some(&1)), "{toll}");
    // Too soon after the last time; then as the release says it.
    assert_error(&after.json(), 1.into(), "no_release");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let after = echo(&proxy, &mine).await;
    assert_eq!((after.status, after.header("www-authenticate")), (401, Some("Bearer x")));
    b.behave(|it| it.opening = 200);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
}

#[tokio::test]
async fn a_target_that_fails_or_never_answers_loses_no_session() {
    for opening in [500, 0] {
        let (_a, b, proxy, mine) =
            with_session(|it| it.limits.session_move = Duration::from_millis(300)).await;
        b.behave(|it| it.opening = opening);
        let _open = hold_open(&proxy).await;
        let (during, toll, _) = leave(&proxy, &mine).await;
        // The wait for the move is over first where nothing answers.
        if opening == 500 {
            assert_eq!(during.json()["result"]["release"], "a");
        } else {
            assert_eq!(during.status, 200);
        }
        assert_eq!((toll.ended, toll.kept.get(&Refusal::TargetFailed)), (0, Some(&1)), "{toll}");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let after = echo(&proxy, &mine).await;
        assert_error(&after.json(), 1.into(), "session_not_moved");
        assert_eq!(after.json()["error"]["data"]["retryable"], true);
        b.behave(|it| it.opening = 200);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
    }
}

#[tokio::test]
async fn what_the_server_asks_is_answered_before_the_session_moves() {
    let (a, _b, proxy, mine) = with_session(|_| ()).await;
    let mut asking = open(proxy.local_addr(), &call("5", "elicit", "{}"), &mine).await;
    asking.head().await;
    asking.until("elicitation/create").await;
    proxy.route(B);
    let draining = {
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.drain(A, Duration::from_secs(20)).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
    let answer = r#"{"jsonrpc":"2.0","id":0,"result":{"action":"accept"}}"#;
    assert_eq!(post(proxy.local_addr(), answer, &mine).await.status, 202);
    assert_eq!(messages(&asking.rest().await)[0]["result"]["release"], "a");
    assert_eq!(a.heard.lock().unwrap().len(), 1);
    let toll = draining.await.unwrap();
    assert_eq!((toll.ended, toll.answered), (0, 0));
    assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
}

#[tokio::test]
async fn a_live_task_keeps_its_session_until_it_ended_or_the_drain_did() {
    for ends in [true, false] {
        let (a, _b) = (Mcp::start("a").await, Mcp::start("b").await);
        a.behave(|it| it.capabilities = json!({"tools": {}, "tasks": {}}));
        let proxy = with(a.address, |_| ());
        let b = Mcp::start("b").await;
        b.behave(|it| it.capabilities = json!({"tools": {}, "tasks": {}}));
        proxy.add(B, &Address::Tcp(b.address));
        let mine = session(proxy.local_addr()).await;
        let begin = call("1", "echo", r#"{},"task":{"ttl":60000}"#);
        assert_eq!(post(proxy.local_addr(), &begin, &mine).await.status, 200);
        proxy.route(B);
        let draining = {
            let proxy = proxy.clone();
            tokio::spawn(async move { proxy.drain(A, SOON).await })
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
        if ends {
            let result =
                r#"{"jsonrpc":"2.0","id":9,"method":"tasks/result","params":{"taskId":"t"}}"#;
            post(proxy.local_addr(), result, &mine).await;
        }
        let toll = draining.await.unwrap();
        let after = echo(&proxy, &mine).await;
        if ends {
            assert_eq!((toll.ended, after.json()["result"]["release"].as_str()), (0, Some("b")));
        } else {
            assert_eq!((toll.kept.get(&Refusal::LiveTask), after.status), (Some(&1), 404));
        }
    }
}

#[tokio::test]
async fn a_session_that_its_release_forgot_is_opened_anew_whatever_it_says_to_that() {
    let said = r#"{"id":null,"error":{"code":-32000,"message":"No valid session ID"}}"#;
    for unknown in [(404, ""), (400, said)] {
        let (a, b, proxy, mine) = with_session(|_| ()).await;
        for it in [&a, &b] {
            it.behave(|it| it.unknown = unknown);
        }
        a.forget();
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
        assert_eq!(a.methods().iter().filter(|it| *it == "initialize").count(), 2);
        let bad = a.methods().iter().filter(|it| *it == "tools/call").count();
        assert_eq!(bad, 2, "once refused, once done");
        proxy.route(B);
        proxy.drain(A, SOON).await;
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
    }
}

#[tokio::test]
async fn hard_state_that_its_release_forgot_is_gone() {
    let (a, _b, proxy, mine) = with_session(|it| it.session_state = SessionState::Hard).await;
    a.forget();
    assert_eq!(echo(&proxy, &mine).await.status, 404);
}
