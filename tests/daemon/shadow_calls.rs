//! The daemon repeats failed requests of the trial on the warm release, with a header that marks them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rollbackd::demo::server::VERSION_KEY;
use serde_json::{Value, json};

use crate::support::{DaemonHarness, VersionPoller, serve_json, serving_version, wait_until};

/// A release of 2026-07-28 within the test; its calls can be made to fail.
struct FakeRelease {
    failing: Arc<AtomicBool>,
    /// Heads of the repeated requests, and their bodies.
    shadows: Arc<Mutex<Vec<(String, Value)>>>,
}

impl FakeRelease {
    fn start(version: &'static str, port: u16, safe: bool) -> Self {
        let (fails, shadows) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let release = Self { failing: Arc::clone(&fails), shadows: Arc::clone(&shadows) };
        serve_json(port, move |head, body| {
            if head.to_ascii_lowercase().contains("rollbackd-shadow: 1") {
                shadows.lock().unwrap().push((head.to_owned(), body.clone()));
            }
            response_for(version, safe, fails.load(Ordering::Relaxed), body)
        });
        release
    }

    fn shadow_calls(&self) -> Vec<(String, Value)> {
        self.shadows.lock().unwrap().clone()
    }
}

fn response_for(version: &str, safe: bool, fails: bool, body: &Value) -> (u16, Value) {
    let tool = json!({
        "name": "echo", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": safe},
    });
    let meta = json!({ VERSION_KEY: version });
    let result = match body["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete",
        }),
        "tools/list" => json!({"tools": [tool]}),
        "tools/call" if fails => return (200, json!({"error": {"code": -32603, "message": "x"}})),
        "tools/call" => json!({"content": [], "_meta": meta}),
        _ => return (404, json!({"error": {"code": -32601, "message": "unknown method"}})),
    };
    (200, json!({ "result": result }))
}

/// A trial of `v2` beside `v1`, without a rollback.
fn deploy_trial(settings: &str, safe: bool) -> (DaemonHarness, FakeRelease, FakeRelease) {
    let settings = format!("runtime = \"external\"\nmode = \"observe\"\n{settings}");
    let mut host = DaemonHarness::new(&settings);
    host.start();
    let one = FakeRelease::start("v1", host.blue, safe);
    host.deploy("v1", &["--wait"]).expect_code(0);
    let two = FakeRelease::start("v2", host.green, safe);
    host.deploy("v2", &["--slot", "green"]).expect_code(0);
    wait_until("v2 has the traffic", || serving_version(host.listen) == Ok("v2".to_owned()));
    (host, one, two)
}

#[test]
fn failed_requests_are_repeated_on_the_warm_release_only() {
    let (mut host, one, two) = deploy_trial("", true);
    let load = VersionPoller::start(host.listen);
    let good = || load.results.lock().unwrap().good.values().sum::<u64>();
    wait_until("good answers", || good() >= 60);
    assert_eq!(one.shadow_calls().len(), 0);
    two.failing.store(true, Ordering::Relaxed);
    wait_until("shadow calls", || one.shadow_calls().len() > 3);
    for (head, body) in one.shadow_calls() {
        assert!(body["method"] == "tools/call" && body["params"]["name"] == "echo", "{body}");
        assert!(head.to_ascii_lowercase().contains("mcp-name: echo"), "{head}");
    }
    assert_eq!(two.shadow_calls().len(), 0);
    let seen = load.stop();
    assert!(!seen.good.contains_key("v1"), "a client saw a repeat: {:?}", seen.good);
    // A daemon that was killed asks the warm release again which tools are read-only.
    host.kill();
    host.start();
    wait_until("the proxy", || {
        serving_version(host.listen).is_err_and(|why| why.contains("-32603"))
    });
    let before = one.shadow_calls().len();
    let _load = VersionPoller::start(host.listen);
    wait_until("shadow calls again", || one.shadow_calls().len() > before);
}

#[test]
fn writes_are_never_repeated_nor_anything_when_disabled() {
    for (settings, safe) in [("", false), ("shadow_calls = 0", true)] {
        let (host, one, two) = deploy_trial(settings, safe);
        two.failing.store(true, Ordering::Relaxed);
        let load = VersionPoller::start(host.listen);
        // Two seconds of failures; the first test shows that fewer lead to shadow calls.
        wait_until("failures", || load.results.lock().unwrap().bad.len() >= 200);
        load.stop();
        assert_eq!(one.shadow_calls().len(), 0, "{settings}");
    }
}
