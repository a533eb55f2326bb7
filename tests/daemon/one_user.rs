//! One user whose calls fail speaks for no others: neither against a release, nor for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rollbackd::demo::server::VERSION_KEY;
use serde_json::{Value, json};

use crate::support::{
    DaemonHarness, SERVICE, VersionPoller, serve_json, serving_version_for, wait_until,
};

/// Two releases that fail all calls of one user; the second one can be broken for all others, too.
pub(crate) struct Releases {
    pub(crate) host: DaemonHarness,
    pub(crate) broken: Arc<AtomicBool>,
}

fn respond(version: &str, is_broken: bool, head: &str, body: &Value) -> (u16, Value) {
    let fails = is_broken || head.contains("Bearer bad");
    let result = match body["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "resultType": "complete",
        }),
        "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        "tools/call" if fails => return (200, json!({"error": {"code": -32603, "message": "x"}})),
        "tools/call" => json!({"content": [], "_meta": { VERSION_KEY: version }}),
        _ => return (404, json!({"error": {"code": -32601, "message": "unknown method"}})),
    };
    (200, json!({ "result": result }))
}

impl Releases {
    /// v1 is active; the service has these settings.
    pub(crate) fn start(settings: &str) -> Self {
        let mut host = DaemonHarness::new(&format!("runtime = \"external\"\n{settings}"));
        host.start();
        serve_json(host.blue, |head, body| respond("v1", false, head, body));
        let broken = Arc::<AtomicBool>::default();
        let (is_broken, calls) = (Arc::clone(&broken), AtomicU64::new(0));
        serve_json(host.green, move |head, body| {
            // One call in four.
            let due = calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(4);
            respond("v2", due && is_broken.load(Ordering::Relaxed), head, body)
        });
        host.deploy("v1", &["--wait"]).expect_code(0);
        Self { host, broken }
    }

    pub(crate) fn deploy_v2(&self) {
        let host = &self.host;
        host.deploy("v2", &["--slot", "green"]).expect_code(0);
        let is_active = || serving_version_for(host.listen, Some("a")).is_ok_and(|it| it == "v2");
        wait_until("v2 has the traffic", is_active);
    }

    pub(crate) fn users(&self) -> [VersionPoller; 2] {
        ["a", "b"].map(|user| VersionPoller::start_for(self.host.listen, Some(user)))
    }
}

#[test]
fn a_user_that_begins_to_fail_is_reported_and_the_bake_goes_on() {
    let releases = Releases::start("bake = \"10s\"");
    let host = &releases.host;
    let _users = releases.users();
    releases.deploy_v2();
    let _bad = VersionPoller::start_for(host.listen, Some("bad"));
    wait_until("a report", || host.kinds(2).contains(&"blocked"));
    let status = host.status().to_string();
    assert!(status.contains("one user fails on v2"), "{status}");
    wait_until("a page", || host.log().contains("page=true"));
    wait_until("the end of the bake", || host.kinds(2).contains(&"accepted"));
    let kinds = host.kinds(2);
    assert!(!kinds.contains(&"detected"), "{kinds:?}");
    assert_eq!(host.status()["active"], "v2");
    let document =
        host.run_cli(&["postmortem", SERVICE, "--json"]).expect_code(0).json_lines().remove(0);
    assert_eq!(document["title"], "v2: fails for one user only, the others are served");
    assert_eq!(document["hypotheses"][0]["rule"], "one-user", "{document}");
    let headline = document["headline"].as_str().unwrap();
    assert!(headline.contains("look at the calls of that user"), "{headline}");
    host.run_cli(&["ack", SERVICE]).expect_code(0);
    host.run_cli(&["history", SERVICE]).expect_code(0).expect_text(&["accepted (unverified)"]);
}

#[test]
fn a_user_that_failed_before_the_deploy_excuses_nothing_and_is_no_news() {
    let releases = Releases::start("bake = \"10m\"");
    let host = &releases.host;
    let _users = releases.users();
    let bad = VersionPoller::start_for(host.listen, Some("bad"));
    wait_until("failures of v1", || {
        host.status()["releases"][0]["counts"]["server_fault"].as_u64() > Some(50)
    });
    releases.deploy_v2();
    let judged = || {
        host.status()["releases"].as_array().and_then(|all| {
            let v2 = all.iter().find(|it| it["version"] == "v2")?;
            v2["counts"]["server_fault"].as_u64()
        })
    };
    wait_until("failures of v2", || judged() > Some(100));
    let kinds = host.kinds(2);
    assert!(!kinds.contains(&"blocked") && !kinds.contains(&"detected"), "{kinds:?}");
    releases.broken.store(true, Ordering::Relaxed);
    wait_until("a rollback", || host.kinds(2).contains(&"decided"));
    assert!(!bad.stop().bad.is_empty());
}
