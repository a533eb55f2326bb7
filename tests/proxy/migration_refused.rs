//! Sessions that cannot migrate: counted, kept until the drain ends, then ended with an error.

use std::time::Duration;

use rollbackd::config::{Address, Service, SessionState};
use rollbackd::model::{DrainCost, MigrationRefused, Moment};
use rollbackd::proxy::Proxy;
use serde_json::json;

use crate::async_wait::wait_for;
use crate::fake_backend::{FakeMcpServer, ServerBehaviour};
use crate::http_client::{
    HttpResponse, RawConnection, assert_error, open_request, open_session, post, sse_messages,
    tool_call,
};
use crate::{RELEASE_A, RELEASE_B, begin, proxy_with, wait_until};

const DRAIN_TIMEOUT: Duration = Duration::from_millis(800);

async fn proxy_with_session(
    change: impl FnOnce(&mut Service),
) -> (FakeMcpServer, FakeMcpServer, Proxy, String) {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_with(a.address, change);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mine = open_session(proxy.local_addr()).await;
    (a, b, proxy, mine)
}

async fn echo(proxy: &Proxy, mine: &str) -> HttpResponse {
    post(proxy.local_addr(), &tool_call("1", "echo", "{}"), mine).await
}

/// Drains the first release, with a request during the drain and one after it.
async fn drain_and_call(proxy: &Proxy, mine: &str) -> (HttpResponse, DrainCost, HttpResponse) {
    proxy.set_active(RELEASE_B);
    let draining = {
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await })
    };
    // The drain of an idle release ends at once, so the request comes before it.
    let during = echo(proxy, mine).await;
    let cost = draining.await.unwrap();
    (during, cost, echo(proxy, mine).await)
}

/// A request that holds up the drain.
async fn open_elicitation(proxy: &Proxy) -> RawConnection {
    let body = tool_call("0", "wait", r#"{"ms":400}"#);
    let wire = open_request(proxy.local_addr(), &body, "").await;
    wait_until("open", || proxy.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    wire
}

async fn assert_pinned_until_drain_ends(
    change: impl FnOnce(&mut ServerBehaviour),
    refusal: MigrationRefused,
) {
    let (_a, b, proxy, mine) = proxy_with_session(|_| ()).await;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"x"}}"#;
    post(proxy.local_addr(), list, &mine).await;
    b.set_behaviour(change);
    let _open = open_elicitation(&proxy).await;
    let (during, cost, after) = drain_and_call(&proxy, &mine).await;
    assert_eq!(during.json()["result"]["release"], "a", "{refusal:?}");
    assert_eq!(
        (cost.sessions_ended, cost.sessions_not_migrated.get(&refusal)),
        (1, Some(&1)),
        "{cost}"
    );
    assert!(cost.to_string().contains(refusal.label()), "{cost}");
    assert_eq!((after.status, after.json()["id"].as_u64()), (404, Some(1)), "{refusal:?}");
}

#[tokio::test]
async fn version_or_capability_mismatch_refuses_migration() {
    assert_pinned_until_drain_ends(|it| it.protocol = "2025-03-26", MigrationRefused::Protocol)
        .await;
    assert_pinned_until_drain_ends(
        |it| it.capabilities = json!({"resources": {}}),
        MigrationRefused::Capability,
    )
    .await;
}

#[tokio::test]
async fn hard_state_session_stays_until_the_drain_ends() {
    let (_a, b, proxy, mine) = proxy_with_session(|it| it.session_state = SessionState::Hard).await;
    let began = tokio::time::Instant::now();
    let (during, cost, after) = drain_and_call(&proxy, &mine).await;
    assert!(began.elapsed() >= DRAIN_TIMEOUT, "it has until then");
    assert_eq!(during.json()["result"]["release"], "a");
    assert_eq!(
        (
            cost.sessions_ended,
            cost.sessions_not_migrated.get(&MigrationRefused::StateNotRestorable)
        ),
        (1, Some(&1))
    );
    assert_eq!((after.status, b.request_count()), (404, 0));
}

#[tokio::test]
async fn unused_capability_does_not_refuse_migration() {
    let (_a, b, proxy, mine) = proxy_with_session(|_| ()).await;
    b.set_behaviour(|it| it.capabilities = json!({}));
    proxy.set_active(RELEASE_B);
    proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
    assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
}

/// Calls until the reply is as wanted: the proxy pauses between two attempts to move a session.
async fn echo_until(
    proxy: &Proxy,
    mine: &str,
    wanted: impl Fn(&HttpResponse) -> bool,
) -> HttpResponse {
    let calls = || async { Some(echo(proxy, mine).await).filter(|reply| wanted(reply)) };
    wait_for("the reply", calls).await
}

#[tokio::test]
async fn rejected_credentials_are_returned_to_the_client() {
    let (_a, b, proxy, mine) = proxy_with_session(|_| ()).await;
    b.set_behaviour(|it| it.initialize_status = 401);
    let _open = open_elicitation(&proxy).await;
    let (during, cost, after) = drain_and_call(&proxy, &mine).await;
    assert_eq!(during.json()["result"]["release"], "a");
    assert_eq!(
        (cost.sessions_ended, cost.sessions_not_migrated.get(&MigrationRefused::Credentials)),
        (0, Some(&1)),
        "{cost}"
    );
    // Too soon after the last attempt; then the response of the release.
    assert_error(&after.json(), 1.into(), "no_release");
    let after = echo_until(&proxy, &mine, |reply| reply.status != 200).await;
    assert_eq!((after.status, after.header("www-authenticate")), (401, Some("Bearer x")));
    b.set_behaviour(|it| it.initialize_status = 200);
    echo_until(&proxy, &mine, |reply| reply.text().contains(r#""release":"b""#)).await;
}

#[tokio::test]
async fn failing_or_silent_target_loses_no_session() {
    for opening in [500, 0] {
        let (_a, b, proxy, mine) =
            proxy_with_session(|it| it.limits.migration_timeout = Duration::from_millis(300)).await;
        b.set_behaviour(|it| it.initialize_status = opening);
        let _open = open_elicitation(&proxy).await;
        let (during, cost, _) = drain_and_call(&proxy, &mine).await;
        // Without an answer the time for the migration ends first.
        if opening == 500 {
            assert_eq!(during.json()["result"]["release"], "a");
        } else {
            assert_eq!(during.status, 200);
        }
        assert_eq!(
            (cost.sessions_ended, cost.sessions_not_migrated.get(&MigrationRefused::OpenFailed)),
            (0, Some(&1)),
            "{cost}"
        );
        let attempts = b.request_count();
        let after = echo_until(&proxy, &mine, |_| b.request_count() > attempts).await;
        assert_error(&after.json(), 1.into(), "session_not_moved");
        assert_eq!(after.json()["error"]["data"]["retryable"], true);
        b.set_behaviour(|it| it.initialize_status = 200);
        echo_until(&proxy, &mine, |reply| reply.text().contains(r#""release":"b""#)).await;
    }
}

#[tokio::test]
async fn server_request_is_answered_before_migration() {
    let (a, _b, proxy, mine) = proxy_with_session(|_| ()).await;
    let mut asking = open_request(proxy.local_addr(), &tool_call("5", "elicit", "{}"), &mine).await;
    asking.read_head().await;
    asking.read_until("elicitation/create").await;
    proxy.set_active(RELEASE_B);
    let draining = {
        let proxy = proxy.clone();
        tokio::spawn(begin(async move { proxy.drain(RELEASE_A, Duration::from_secs(20)).await }))
    };
    assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
    let answer = r#"{"jsonrpc":"2.0","id":0,"result":{"action":"accept"}}"#;
    assert_eq!(post(proxy.local_addr(), answer, &mine).await.status, 202);
    assert_eq!(sse_messages(&asking.read_to_end().await)[0]["result"]["release"], "a");
    assert_eq!(a.client_replies.lock().unwrap().len(), 1);
    let cost = draining.await.unwrap();
    assert_eq!((cost.sessions_ended, cost.error_responses), (0, 0));
    assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
}

#[tokio::test]
async fn live_task_pins_its_session_until_it_or_the_drain_ends() {
    for ends in [true, false] {
        let (a, _b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
        a.set_behaviour(|it| it.capabilities = json!({"tools": {}, "tasks": {}}));
        let proxy = proxy_with(a.address, |_| ());
        let b = FakeMcpServer::start("b").await;
        b.set_behaviour(|it| it.capabilities = json!({"tools": {}, "tasks": {}}));
        proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
        let mine = open_session(proxy.local_addr()).await;
        let task = tool_call("1", "echo", r#"{},"task":{"ttl":60000}"#);
        assert_eq!(post(proxy.local_addr(), &task, &mine).await.status, 200);
        proxy.set_active(RELEASE_B);
        let draining = {
            let proxy = proxy.clone();
            tokio::spawn(begin(async move { proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await }))
        };
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
        if ends {
            let result =
                r#"{"jsonrpc":"2.0","id":9,"method":"tasks/result","params":{"taskId":"t"}}"#;
            post(proxy.local_addr(), result, &mine).await;
        }
        let cost = draining.await.unwrap();
        let after = echo(&proxy, &mine).await;
        if ends {
            assert_eq!(
                (cost.sessions_ended, after.json()["result"]["release"].as_str()),
                (0, Some("b"))
            );
        } else {
            assert_eq!(
                (cost.sessions_not_migrated.get(&MigrationRefused::LiveTask), after.status),
                (Some(&1), 404)
            );
        }
    }
}

#[tokio::test]
async fn session_lost_by_its_release_is_reopened() {
    let said = r#"{"id":null,"error":{"code":-32000,"message":"No valid session ID"}}"#;
    for unknown in [(404, ""), (400, said)] {
        let (a, b, proxy, mine) = proxy_with_session(|_| ()).await;
        for it in [&a, &b] {
            it.set_behaviour(|it| it.unknown = unknown);
        }
        a.drop_sessions();
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "a");
        assert_eq!(a.methods().iter().filter(|it| *it == "initialize").count(), 2);
        let bad = a.methods().iter().filter(|it| *it == "tools/call").count();
        assert_eq!(bad, 2, "once refused, once done");
        proxy.set_active(RELEASE_B);
        proxy.drain(RELEASE_A, DRAIN_TIMEOUT).await;
        assert_eq!(echo(&proxy, &mine).await.json()["result"]["release"], "b");
    }
}

#[tokio::test]
async fn lost_hard_state_session_ends() {
    let (a, _b, proxy, mine) = proxy_with_session(|it| it.session_state = SessionState::Hard).await;
    a.drop_sessions();
    assert_eq!(echo(&proxy, &mine).await.status, 404);
}
