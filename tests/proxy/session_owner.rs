//! Whose a session is, how it ends, and when it begins again.

use rollbackd::config::Address;
use rollbackd::model::Moment;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{INITIALIZE, RawConnection, open_session, post, send_raw, tool_call};
use crate::migration::proxy_with_session;
use crate::{RELEASE_A, RELEASE_B, proxy_to, proxy_with, wait_until};

const ALICE: &str = "Authorization: Bearer alice\r\n";
const BOB: &str = "Authorization: Bearer bob\r\n";
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

#[tokio::test]
async fn a_stranger_does_not_have_a_session_opened_anew() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let to = proxy.local_addr();
    let reply = post(to, INITIALIZE, ALICE).await;
    let mine = format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id").unwrap());
    let call = |who: &str| {
        let headers = format!("{mine}{who}");
        async move { post(to, &tool_call("1", "echo", "{}"), &headers).await }
    };
    assert_eq!(post(to, INITIALIZED, &format!("{mine}{ALICE}")).await.status, 202);
    // While the release has the session, it decides who may use it. Using it does not make it his.
    assert_eq!(call(BOB).await.json()["result"]["release"], "a");
    let opened = b.request_count();
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    for stranger in [BOB, "Authorization: Bearer eve\r\n", ""] {
        assert_eq!(call(stranger).await.status, 404, "{stranger:?}");
        let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}{stranger}\r\n");
        assert_eq!(send_raw(to, &delete).await.status, 404, "{stranger:?}");
    }
    assert_eq!(b.request_count(), opened, "a stranger opened it");
    assert_eq!(call(ALICE).await.json()["result"]["release"], "b");
}

#[tokio::test]
async fn a_session_that_was_opened_without_credentials_moves_for_its_client() {
    let (_a, _b, proxy, mine) = proxy_with_session().await;
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    let headers = format!("{mine}{ALICE}");
    let reply = post(proxy.local_addr(), &tool_call("1", "echo", "{}"), &headers).await;
    assert_eq!(reply.json()["result"]["release"], "b");
}

#[tokio::test]
async fn an_open_stream_keeps_its_session() {
    let (_a, _b, proxy, mine) = proxy_with_session().await;
    let mut stream = RawConnection::connect(proxy.local_addr()).await;
    stream.send(format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}\r\n")).await;
    assert_eq!(stream.read_head().await.0, 200);
    let sessions = || proxy.load(RELEASE_A, Moment(0)).sessions;
    let days = |days: u64| Moment(days * 24 * 3_600_000);
    proxy.expire_sessions(days(1));
    assert_eq!(sessions(), 1);
    drop(stream);
    let later = std::cell::Cell::new(2);
    wait_until(
        "forgotten",
        || {
            proxy.expire_sessions(days(later.get()));
            later.set(later.get() + 1);
            sessions() == 0
        },
        || sessions().to_string(),
    )
    .await;
}

#[tokio::test]
async fn a_flood_of_openings_does_not_evict_a_session_that_is_used() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_with(a.address, |service| service.limits.sessions_max = 8);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let to = proxy.local_addr();
    let mine = open_session(to).await;
    assert_eq!(post(to, INITIALIZED, &mine).await.status, 202);
    for _ in 0..50 {
        assert_eq!(post(to, INITIALIZE, "").await.status, 200);
    }
    assert!(proxy.load(RELEASE_A, Moment(0)).sessions <= 8);
    let newest = open_session(to).await;
    assert_eq!(post(to, INITIALIZED, &newest).await.status, 202);
    proxy.set_active(RELEASE_B);
    proxy.cut(RELEASE_A).await;
    for session in [mine, newest] {
        let reply = post(to, &tool_call("1", "echo", "{}"), &session).await;
        assert_eq!(reply.json()["result"]["release"], "b");
    }
}

#[tokio::test]
async fn sessions_are_bounded_in_bytes() {
    let a = FakeMcpServer::start("a").await;
    let proxy = proxy_with(a.address, |service| service.limits.session_bytes_max = 64 * 1024);
    let padding = "x".repeat(7_000);
    let large = INITIALIZE.replace("\"t\"", &format!("\"{padding}\""));
    for _ in 0..30 {
        assert_eq!(post(proxy.local_addr(), &large, "").await.status, 200);
    }
    let sessions = proxy.load(RELEASE_A, Moment(0)).sessions;
    assert!((4..=9).contains(&sessions), "{sessions} sessions of 7 KiB in 64 KiB");
}
