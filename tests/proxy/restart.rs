//! Sessions survive a restart of the daemon.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rollbackd::clock::Clock;
use rollbackd::config::Address;
use rollbackd::model::Moment;
use rollbackd::proxy::Proxy;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{open_session, post, tool_call};
use crate::{KEY, MEMORY_TEST_LOCK, RELEASE_A, RELEASE_B, test_service, wait_until};

fn start(file: &Path, releases: &[(rollbackd::model::ReleaseNumber, &FakeMcpServer)]) -> Proxy {
    let clock = Clock::start(Moment(0));
    let proxy = Proxy::restore(&test_service("test"), KEY, clock, Some(file)).unwrap();
    for (number, mcp) in releases {
        proxy.add_release(*number, &Address::Tcp(mcp.address));
        proxy.set_active(*number);
    }
    proxy
}

async fn wait_for_persisted(file: &Path, what: &str) {
    let has = || fs::read_to_string(file).is_ok_and(|text| text.contains(what));
    wait_until(what, has, || fs::read_to_string(file).unwrap_or_default()).await;
}

#[tokio::test]
async fn session_survives_daemon_and_release_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = start(&file, &[(RELEASE_A, &a)]);
    let mine = open_session(proxy.local_addr()).await;
    let secret = format!("{mine}Authorization: Bearer very-secret\r\nCookie: c=very-secret\r\n");
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    post(proxy.local_addr(), initialized, &secret).await;
    wait_for_persisted(&file, r#""i":true"#).await;

    // Nothing is told to the first daemon: this is what is left of it after kill -9.
    let again = start(&file, &[(RELEASE_B, &b)]);
    assert_eq!(again.load(RELEASE_A, Moment(0)).sessions, 0);
    let reply = post(again.local_addr(), &tool_call("1", "echo", "{}"), &secret).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    assert_eq!(b.methods()[..2], ["initialize", "notifications/initialized"]);
    wait_for_persisted(&file, r#""g":1"#).await;

    // The proxy knows the release of the session.
    let last = start(&file, &[(RELEASE_B, &b)]);
    let asked = b.request_count();
    let reply = post(last.local_addr(), &tool_call("2", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    assert_eq!(b.request_count(), asked + 1);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("very-secret"), "{text}");
}

#[tokio::test]
async fn idle_session_uses_less_than_two_kib() {
    const SESSIONS: usize = 50_000;
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    // As the TypeScript SDK opens one for a host with some capabilities.
    let params = serde_json::json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {
            "sampling": {},
            "elicitation": {"form": {}, "url": {}},
            "roots": {"listChanged": true},
        },
        "clientInfo": {"name": "some-editor", "title": "Some Editor", "version": "1.22.333"},
    });
    let params = serde_json::json!(params.to_string());
    let mut text = String::new();
    for n in 0..SESSIONS {
        let key = URL_SAFE_NO_PAD.encode((n as u128).to_be_bytes());
        let backend = format!("0b5a2c1e-6d3f-4c39-9d1b-{n:012}");
        let captured = format!(r#"{{"p":{params},"v":"2025-11-25","i":true,"l":"info","o":7}}"#);
        let place =
            format!(r#"{{"r":1,"g":0,"b":"{backend}","t":18446744073709551615,"c":{captured}}}"#);
        text.push_str(&format!("{{\"k\":\"{key}\",\"s\":{place}}}\n"));
    }
    fs::write(&file, &text).unwrap();
    drop(text);
    let before = crate::large_bodies::resident_bytes();
    let a = FakeMcpServer::start("a").await;
    let proxy = start(&file, &[(RELEASE_A, &a)]);
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, SESSIONS as u64);
    let each = crate::large_bodies::resident_bytes().saturating_sub(before) / SESSIONS;
    println!("{each} bytes for each of {SESSIONS} sessions");
    assert!(each < 2048, "{each}");
}

#[tokio::test]
async fn ended_sessions_are_removed_and_truncated_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    let a = FakeMcpServer::start("a").await;
    let proxy = start(&file, &[(RELEASE_A, &a)]);
    let (ended, lives) =
        (open_session(proxy.local_addr()).await, open_session(proxy.local_addr()).await);
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{ended}\r\n");
    crate::http_client::send_raw(proxy.local_addr(), &delete).await;
    wait_until(
        "both to be written",
        || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lives = |line: &str| line.contains(r#""s":"#);
            text.lines().any(lives) && text.lines().any(|line| !lives(line))
        },
        || fs::read_to_string(&file).unwrap_or_default(),
    )
    .await;
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("nonsense\n{\"k\":\"AAAA\"}\n{\"k\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"s\":{\"r\":1");
    fs::write(&file, text).unwrap();
    let again = start(&file, &[(RELEASE_A, &a)]);
    assert_eq!(again.load(RELEASE_A, Moment(0)).sessions, 1);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
    let reply = post(again.local_addr(), &tool_call("1", "echo", "{}"), &lives).await;
    assert_eq!(reply.json()["result"]["release"], "a");
}
