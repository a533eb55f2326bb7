//! A release that answers well-formed nothing, or far slower than the one before, fails no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rollbackd::demo::server::VERSION_KEY;
use serde_json::{Value, json};

use crate::support::{
    DaemonHarness, SERVICE, VersionPoller, serve_json, serving_version_for, wait_until,
};

/// How far slower a slow answer is.
const DELAY: Duration = Duration::from_millis(450);

const USERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// Half of the users stay at the old release.
const RAMP: &str = "bake = \"10m\"\nramp = [\"50%\"]\nramp_step = \"10m\"\ncontrol = 2";

/// What a release does with calls.
#[derive(Debug, Default)]
struct Behaviour {
    is_empty: AtomicBool,
    is_slow: AtomicBool,
    calls: AtomicU64,
}

fn respond(version: &str, behaviour: &Behaviour, body: &Value) -> (u16, Value) {
    let result = match body["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "resultType": "complete",
        }),
        "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        "tools/call" => {
            behaviour.calls.fetch_add(1, Ordering::Relaxed);
            if behaviour.is_slow.load(Ordering::Relaxed) {
                #[expect(clippy::disallowed_methods, reason = "the server is slow")]
                std::thread::sleep(DELAY);
            }
            let is_empty = behaviour.is_empty.load(Ordering::Relaxed);
            let text = if is_empty { "[]".to_owned() } else { "a row; ".repeat(40) };
            json!({"content": [{"type": "text", "text": text}], "_meta": { VERSION_KEY: version }})
        }
        _ => return (404, json!({"error": {"code": -32601, "message": "unknown method"}})),
    };
    (200, json!({ "result": result }))
}

/// Two releases, the second one with a behaviour of its own, and users that call them.
struct Releases {
    host: DaemonHarness,
    old: Arc<Behaviour>,
    new: Arc<Behaviour>,
    _users: Vec<VersionPoller>,
}

impl Releases {
    /// v1 is active and its answers are known.
    fn start(users: usize, settings: &str) -> Self {
        let mut host = DaemonHarness::new(&format!("runtime = \"external\"\n{settings}"));
        host.start();
        let [old, new] = [(); 2].map(|()| Arc::<Behaviour>::default());
        for (address, version, behaviour) in [(host.blue, "v1", &old), (host.green, "v2", &new)] {
            let behaviour = Arc::clone(behaviour);
            serve_json(address, move |_, body| respond(version, &behaviour, body));
        }
        host.deploy("v1", &["--wait"]).expect_code(0);
        let users = USERS.into_iter().take(users);
        let _users = users.map(|user| VersionPoller::start_for(host.listen, Some(user))).collect();
        wait_until("answers of v1", || old.calls.load(Ordering::Relaxed) > 300);
        Self { host, old, new, _users }
    }

    fn deploy_v2(&self) {
        self.host.deploy("v2", &["--slot", "green"]).expect_code(0);
        wait_until("calls of v2", || self.new.calls.load(Ordering::Relaxed) > 20);
    }
}

#[test]
fn a_release_that_answers_with_nothing_is_reported_and_the_bake_goes_on() {
    let releases = Releases::start(3, "bake = \"30s\"");
    let host = &releases.host;
    releases.new.is_empty.store(true, Ordering::Relaxed);
    releases.deploy_v2();
    wait_until("a report", || host.kinds(2).contains(&"blocked"));
    let timeline = host.run_cli(&["timeline", SERVICE]).expect_code(0);
    timeline.expect_text(&[
        "v2 answers differently",
        "small answers of tools/call echo",
        "; small: under ",
    ]);
    host.run_cli(&["explain", SERVICE]).expect_code(0).expect_text(&["not as the release before"]);
    wait_until("a page", || host.log().contains("page=true"));
    wait_until("the end of the bake", || host.kinds(2).contains(&"accepted"));
    assert!(!host.kinds(2).contains(&"detected"), "{:?}", host.kinds(2));
    let document =
        host.run_cli(&["postmortem", SERVICE, "--json"]).expect_code(0).json_lines().remove(0);
    assert_eq!(document["title"], "v2: answers differently from the release before");
    assert_eq!(document["hypotheses"][0]["rule"], "different-answers", "{document}");
}

#[test]
fn where_that_is_configured_it_is_rolled_back_also_after_a_restart() {
    let mut releases = Releases::start(3, "bake = \"10m\"\nshape = \"act\"");
    releases.deploy_v2();
    // What is usual is in the record of the bake.
    releases.host.kill();
    releases.host.start();
    releases.new.is_empty.store(true, Ordering::Relaxed);
    let host = &releases.host;
    wait_until("a rollback", || host.kinds(2).contains(&"recovered"));
    assert_eq!(host.status()["active"], "v1");
}

#[test]
fn what_both_releases_do_at_the_same_time_is_not_the_deploy() {
    let releases = Releases::start(8, &format!("{RAMP}\nshape = \"act\""));
    for release in [&releases.old, &releases.new] {
        release.is_empty.store(true, Ordering::Relaxed);
    }
    releases.deploy_v2();
    let calls = || releases.new.calls.load(Ordering::Relaxed);
    let (before, host) = (calls(), &releases.host);
    // A release that does so alone is found within 100 calls.
    wait_until("many empty answers", || calls() > before + 400);
    let kinds = host.kinds(2);
    assert!(!kinds.contains(&"detected") && !kinds.contains(&"blocked"), "{kinds:?}");
}

#[test]
fn a_slow_release_is_rolled_back_where_others_are_served_quickly_meanwhile() {
    let releases = Releases::start(8, RAMP);
    let host = &releases.host;
    releases.new.is_slow.store(true, Ordering::Relaxed);
    releases.deploy_v2();
    wait_until("a rollback", || host.kinds(2).contains(&"recovered"));
    let timeline = host.run_cli(&["timeline", SERVICE]).expect_code(0);
    timeline.expect_text(&["slower answers of tools/call echo"]);
    assert_eq!(host.status()["active"], "v1");
}

#[test]
fn a_slow_release_without_a_comparison_is_reported() {
    let releases = Releases::start(3, "bake = \"10m\"");
    let host = &releases.host;
    releases.new.is_slow.store(true, Ordering::Relaxed);
    releases.deploy_v2();
    wait_until("a report", || host.kinds(2).contains(&"blocked"));
    let timeline = host.run_cli(&["timeline", SERVICE]).expect_code(0);
    timeline.expect_text(&["slower answers of tools/call echo", "; slower: over ", "no rollback"]);
    let is_v2 = || serving_version_for(host.listen, Some("a")).is_ok_and(|it| it == "v2");
    assert!(is_v2());
}
