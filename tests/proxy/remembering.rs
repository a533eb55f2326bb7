//! Sessions survive the daemon.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rollbackd::clock::Clock;
use rollbackd::config::Address;
use rollbackd::model::Moment;
use rollbackd::proxy::Proxy;

use crate::client::{call, post, session};
use crate::upstream::Mcp;
use crate::{A, B, KEY, QUIET, eventually, service};

fn start(file: &Path, releases: &[(rollbackd::model::Number, &Mcp)]) -> Proxy {
    let clock = Clock::start(Moment(0));
    let proxy = Proxy::restore(&service("test"), KEY, clock, Some(file)).unwrap();
    for (number, mcp) in releases {
        proxy.add(*number, &Address::Tcp(mcp.address));
        proxy.route(*number);
    }
    proxy
}

async fn written(file: &Path, what: &str) {
    let has = || fs::read_to_string(file).is_ok_and(|text| text.contains(what));
    eventually(what, has, || fs::read_to_string(file).unwrap_or_default()).await;
}

#[tokio::test]
async fn a_session_goes_on_after_the_daemon_and_its_release_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = start(&file, &[(A, &a)]);
    let mine = session(proxy.local_addr()).await;
    let secret = format!("{mine}Authorization: Bearer very-secret\r\nCookie: c=very-secret\r\n");
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    post(proxy.local_addr(), initialized, &secret).await;
    written(&file, r#""i":true"#).await;

    // Nothing is told to the first daemon: this is what is left of it after kill -9.
    let again = start(&file, &[(B, &b)]);
    assert_eq!(again.load(A, Moment(0)).sessions, 0);
    let reply = post(again.local_addr(), &call("1", "echo", "{}"), &secret).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    assert_eq!(b.methods()[..2], ["initialize", "notifications/initialized"]);
    written(&file, r#""g":1"#).await;

    // And it is known where it went.
    let last = start(&file, &[(B, &b)]);
    let asked = b.asked();
    let reply = post(last.local_addr(), &call("2", "echo", "{}"), &mine).await;
    assert_eq!(reply.json()["result"]["release"], "b");
    assert_eq!(b.asked(), asked + 1);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("very-secret"), "{text}");
}

#[tokio::test]
async fn an_idle_session_costs_less_than_two_kib() {
    const SESSIONS: usize = 50_000;
    let _quiet = QUIET.lock().await;
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
    let before = crate::bodies::resident();
    let a = Mcp::start("a").await;
    let proxy = start(&file, &[(A, &a)]);
    assert_eq!(proxy.load(A, Moment(0)).sessions, SESSIONS as u64);
    let each = crate::bodies::resident().saturating_sub(before) / SESSIONS;
    println!("{each} bytes for each of {SESSIONS} sessions");
    assert!(each < 2048, "{each}");
}

#[tokio::test]
async fn what_ended_is_forgotten_and_a_torn_file_is_read_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.jsonl");
    let a = Mcp::start("a").await;
    let proxy = start(&file, &[(A, &a)]);
    let (ended, lives) = (session(proxy.local_addr()).await, session(proxy.local_addr()).await);
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{ended}\r\n");
    crate::client::say(proxy.local_addr(), &delete).await;
    eventually(
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
    let again = start(&file, &[(A, &a)]);
    assert_eq!(again.load(A, Moment(0)).sessions, 1);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
    let reply = post(again.local_addr(), &call("1", "echo", "{}"), &lives).await;
    assert_eq!(reply.json()["result"]["release"], "a");
}
