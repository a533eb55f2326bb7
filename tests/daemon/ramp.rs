//! A ramp with a real daemon under load: both releases serve, and a restart changes no arm.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rollbackd::clock::Clock;
use rollbackd::demo::server::VERSION_KEY;
use rollbackd::demo::traffic::{TrafficGenerator, TrafficReport};
use rollbackd::model::{Moment, TimelineEvent};
use serde_json::Value;

use crate::incidents::expect_same_verdict_in_a_replay;
use crate::support::{DaemonHarness, SERVICE, sleep, wait_until};

const RATE: u32 = 200;
const SETTINGS: &str = "bake = \"10m\"\nramp = [\"20%\", \"50%\"]\nramp_step = \"15s\"";

fn under_load(host: &mut DaemonHarness, act: impl FnOnce(&mut DaemonHarness)) -> TrafficReport {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Clock::start(Moment(0));
        let load = TrafficGenerator::start(([127, 0, 0, 1], host.listen).into(), RATE, clock);
        let begun = clock.now();
        tokio::task::block_in_place(|| act(host));
        load.stop(begun).await
    })
}

/// The requests of the control and of the trial.
fn requests(status: &Value) -> [u64; 2] {
    [0, 1].map(|arm| status["trial"]["arms"][arm]["requests"].as_u64().unwrap_or(0))
}

fn wait_for_both_arms(host: &DaemonHarness, [control, trial]: [u64; 2]) {
    wait_until("both releases have more requests", || {
        let now = requests(&host.status());
        control + 50 < now[0] && trial + 10 < now[1]
    });
}

#[test]
fn ramp_goes_on_after_a_handover_and_its_abort_fails_no_request() {
    let mut host = DaemonHarness::with_v1(SETTINGS);
    let report = under_load(&mut host, |host| {
        host.deploy("v2", &[]).expect_code(0);
        host.wait_for_phase("baking");
        wait_for_both_arms(host, [0, 0]);
        let status = host.status();
        assert_eq!((&status["active"], &status["trial"]["step"]), (&"v1".into(), &1.into()));
        host.wait_for_handover();
        wait_for_both_arms(host, requests(&status));
        assert!(host.kinds(2).contains(&"restored"), "{:?}", host.kinds(2));
        host.run_cli(&["abort", SERVICE, "--because", "enough seen"]).expect_code(0);
    });
    assert_eq!((report.failed, report.sessions.broken), (0, 0), "{report:?}");
    let status = host.status();
    assert_eq!((&status["active"], &status["trial"]), (&"v1".into(), &Value::Null));
}

#[test]
fn killed_daemon_continues_the_ramp_with_its_evidence() {
    let mut host = DaemonHarness::with_v1(SETTINGS);
    under_load(&mut host, |host| {
        host.deploy("v2", &[]).expect_code(0);
        host.wait_for_phase("baking");
        wait_until("the second step", || host.status()["trial"]["step"] == 2);
        let before = requests(&host.status());
        // The log of the bake is written once a second.
        wait_for_both_arms(host, [before[0] + 300, before[1] + 60]);
        host.kill();
        host.start();
        let after = host.status();
        assert_eq!(after["trial"]["step"], 2);
        let kept = requests(&after);
        assert!(before[0] <= kept[0] && before[1] <= kept[1], "{before:?}, {kept:?}");
        wait_for_both_arms(host, kept);
        host.run_cli(&["promote", SERVICE, "--because", "enough seen"]).expect_code(0);
    });
    let (status, kinds) = (host.status(), host.kinds(2));
    assert_eq!((&status["active"], &status["phase"]), (&"v2".into(), &"steady".into()));
    let after = kinds.iter().skip_while(|kind| **kind != "restored");
    assert!(
        after.clone().count() > 1 && !after.clone().any(|kind| *kind == "stepped"),
        "{kinds:?}"
    );
}

/// The numbers of users in the text of a verdict.
fn users(because: &str) -> Vec<u64> {
    let words = Vec::from_iter(because.split([' ', ';', ',']));
    let before = words.windows(2).filter(|pair| pair[1] == "users" || pair[1] == "user");
    before.filter_map(|pair| pair[0].parse().ok()).collect()
}

#[test]
fn broken_release_meets_few_users_and_goes_back() {
    let mut host = DaemonHarness::with_v1(SETTINGS);
    let report = under_load(&mut host, |host| {
        host.deploy_faulty("v2", "errors=100%", 0, &[]).expect_code(3);
    });
    let entries = host.entries(2);
    let detected = entries.iter().find(|it| matches!(it.event, TimelineEvent::Detected { .. }));
    let because = &detected.unwrap().because;
    assert!(because.contains("trial") && because.contains("control"), "{because}");
    // All requests outside of sessions come from one address and are one user: shares of requests
    // depend on the arm of that one.
    let [trial, control] = users(because).try_into().unwrap();
    assert!(trial < control, "{because}");
    assert_eq!((report.sessions.broken, &host.status()["active"]), (0, &"v1".into()), "{report:?}");
    let close =
        ["postmortem", "close", SERVICE, "2", "--no-review", "a drill", "--verdict", "right"];
    host.run_cli(&close).expect_code(0);
    expect_same_verdict_in_a_replay(&host);
}

/// A legacy session of a client that keeps it.
pub(crate) struct StickySession {
    port: u16,
    id: String,
}

impl StickySession {
    pub(crate) fn open(port: u16) -> Self {
        let params = serde_json::json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "sticky", "version": "1" },
        });
        let mut session = Self { port, id: String::new() };
        let answer = session.post("initialize", Some(1), &params);
        let line = answer.lines().find(|it| it.to_ascii_lowercase().starts_with("mcp-session-id:"));
        let line = line.unwrap_or_else(|| panic!("no session: {answer}"));
        session.id = line.split_once(':').unwrap().1.trim().to_owned();
        session.post("notifications/initialized", None, &serde_json::json!({}));
        session
    }

    /// The version that answers a call of a tool, or the whole answer.
    pub(crate) fn call(&self) -> Result<String, String> {
        let params = serde_json::json!({ "name": "echo", "arguments": { "message": "hi" } });
        let answer = self.post("tools/call", Some(2), &params);
        let start = answer.find("\r\n\r\n").and_then(|at| Some(at + answer[at..].find('{')?));
        let (start, end) = (start.unwrap_or_default(), answer.rfind('}').unwrap_or_default());
        let value: Value = serde_json::from_str(answer.get(start..=end).unwrap_or_default())
            .map_err(|error| format!("{error}: {answer}"))?;
        let version = value["result"]["_meta"][VERSION_KEY].as_str().map(str::to_owned);
        version.filter(|_| answer.starts_with("HTTP/1.1 200")).ok_or(answer)
    }

    fn post(&self, method: &str, id: Option<u32>, params: &Value) -> String {
        let mut body = serde_json::json!({ "jsonrpc": "2.0", "method": method, "params": params });
        if let Some(id) = id {
            body["id"] = id.into();
        }
        let body = body.to_string();
        let session = match self.id.as_str() {
            "" => String::new(),
            id => format!("Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: 2025-06-18\r\n"),
        };
        let (port, length) = (self.port, body.len());
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{session}Content-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Eight clients with a session each and no newcomer: without a ramp the new release would see no
/// request. It is tried on some of them, and each of them is back with its id.
#[test]
fn sticky_sessions_try_a_broken_release_and_come_back_with_their_ids() {
    let host = DaemonHarness::with_v1(SETTINGS);
    let sessions: Vec<_> = (0..8).map(|_| StickySession::open(host.listen)).collect();
    for session in &sessions {
        assert_eq!(session.call(), Ok("v1".to_owned()));
    }
    let deploy = host.spawn_faulty_deploy("v2", "errors=100%", 0, &["--wait"]);
    let mut failed_in = std::collections::BTreeMap::<_, u32>::new();
    let is_back = || {
        let status = host.status();
        status["deploy"] == 2 && status["phase"] == "steady" && status["active"] == "v1"
    };
    // Forty requests a second, until the deploy is over.
    wait_until("the rollback", || {
        for _ in 0..5 {
            for (index, session) in sessions.iter().enumerate() {
                if let Err(answer) = session.call() {
                    assert!(answer.contains("the demo fault"), "{answer}");
                    *failed_in.entry(index).or_default() += 1;
                }
                sleep(Duration::from_millis(25));
            }
        }
        is_back()
    });
    deploy.wait().expect_code(3);
    assert!((1..=6).contains(&failed_in.len()), "a share of them tried it: {failed_in:?}");
    for session in &sessions {
        assert_eq!(session.call(), Ok("v1".to_owned()), "{} is broken", session.id);
    }
    let ended: Vec<_> = host.status()["releases"].as_array().unwrap().clone();
    assert!(ended.iter().all(|it| it["version"] != "v2" || it["sessions"] == 0), "{ended:?}");
}
