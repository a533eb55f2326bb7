//! From end to end, with an MCP server and a client that we did not write. tests/run installs them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, and tells what the daemon said when it does"
)]

#[path = "support/async_wait.rs"]
mod async_wait;
#[path = "real/clients.rs"]
mod clients;
#[path = "real/conformance.rs"]
mod conformance;
#[path = "daemon/support/handover_log.rs"]
mod handover_log;
#[path = "real/harness.rs"]
mod harness;
#[path = "real/http_sse.rs"]
mod http_sse;
#[path = "real/journey.rs"]
mod journey;
#[path = "daemon/support/pids.rs"]
mod pids;
#[path = "real/post_mortem.rs"]
mod post_mortem;
#[path = "real/ramp.rs"]
mod ramp;
#[path = "daemon/support/rng.rs"]
mod rng;
#[path = "real/servers.rs"]
mod servers;
#[path = "real/soak/mod.rs"]
mod soak;
#[path = "real/walk.rs"]
mod walk;

use std::time::Duration;

use clients::{ClientKind, SdkClients};
use harness::{RealServerHarness, SERVICE};
use rustix::process::{Signal, kill_process};
use servers::{NEW_SLOW, OLD_SLOW, ServerKind};
use tokio::time::Instant;

/// Shorter times than the defaults. The judge has its default settings.
const SETTINGS: &str = r#"
    drain_timeout = "10s"
    stop_timeout = "2s"
"#;
/// From a release that stops to answer until the previous one has the traffic.
const ROLLBACK_MAX: Duration = Duration::from_secs(15);

#[tokio::test]
async fn sessions_survive_deploy_and_manual_rollback() {
    let stage = RealServerHarness::start(ServerKind::Everything, SETTINGS).await;
    let mut clients = SdkClients::start(&stage, ClientKind::TypeScript1);
    deploy_v1(&stage, &mut clients).await;
    deploy_v2(&stage, &mut clients).await;
    rollback_manually(&stage, &mut clients).await;
    stop_process_and_expect_rollback(&stage, &mut clients).await;
    // All the while, A never noticed.
    assert_eq!(clients.echo("A").await.unwrap(), "Echo: hello");
    assert!(lists_tool(&mut clients, "A", OLD_SLOW).await);
    assert_eq!(stage.stop_daemon().await, Some(0));
}

async fn deploy_v1(stage: &RealServerHarness, clients: &mut SdkClients) {
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let status = stage.status().await;
    assert_eq!((&status["phase"], &status["active"]), (&"steady".into(), &"v1".into()));
    clients.connect("A").await;
    assert!(lists_tool(clients, "A", OLD_SLOW).await);
    assert_eq!(clients.echo("A").await.unwrap(), "Echo: hello");
}

/// A stays where it is, with what it has in flight; B meets the new release.
async fn deploy_v2(stage: &RealServerHarness, clients: &mut SdkClients) {
    clients.begin_call("A", OLD_SLOW, 10).await;
    let said = stage.deploy_new("v2", &[]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.wait_for_status("phase", "baking").await;
    let status = stage.status().await;
    assert_eq!((&status["active"], &status["warm"]), (&"v2".into(), &"v1".into()));
    assert_eq!(in_flight(&status, "v1"), 1, "the call ended before the switch: {status}");
    clients.connect("B").await;
    assert!(lists_tool(clients, "B", NEW_SLOW).await);
    assert!(clients.finish_call("A").await.unwrap().to_string().contains("completed"));
    assert!(lists_tool(clients, "A", OLD_SLOW).await);
    assert_eq!(clients.echo("A").await.unwrap(), "Echo: hello");
}

/// C meets the previous release at once; B may finish, and goes on there with the session it has.
/// So does F, which is silent all the while.
async fn rollback_manually(stage: &RealServerHarness, clients: &mut SdkClients) {
    let silent = clients.connect("F").await;
    assert!(lists_tool(clients, "F", NEW_SLOW).await);
    clients.begin_call("B", NEW_SLOW, 7).await;
    let reason = ["rollback", SERVICE, "--no-wait", "--because", "the tools went by other names"];
    let said = stage.run_cli(&reason).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.wait_for_status("phase", "emptying").await;
    clients.connect("C").await;
    assert!(lists_tool(clients, "C", OLD_SLOW).await);
    let status = stage.status().await;
    assert_eq!((&status["phase"], &status["active"]), (&"emptying".into(), &"v1".into()));
    assert_eq!(in_flight(&status, "v2"), 1, "the call ended before the drain: {status}");
    assert!(clients.finish_call("B").await.unwrap().to_string().contains("completed"));
    stage.wait_for_status("phase", "steady").await;

    let status = stage.status().await;
    assert!(status["quarantine"][0].as_str().unwrap().starts_with("v2"), "{status}");
    for who in ["B", "F"] {
        assert_eq!(clients.echo(who).await.unwrap(), "Echo: hello");
        assert!(lists_tool(clients, who, OLD_SLOW).await);
        assert!(
            clients.list_changed_count(who).await > 0,
            "{who} was not told that the tools changed"
        );
    }
    assert_eq!(clients.id("F").await, silent);
    let timeline = stage.timeline(2).await;
    let kinds: Vec<_> = timeline.iter().map(|(kind, ..)| kind.as_str()).collect();
    let usual = ["deployed", "ready", "switched", "detected", "decided", "switched"];
    assert_eq!(&kinds[..6], usual);
    assert_eq!(kinds.last(), Some(&"recovered"));
    assert!(timeline[3].2.contains("the tools went by other names"), "{timeline:?}");
    assert!(timeline[5].1 - timeline[3].1 < 2_000, "{timeline:?}");
}

/// The same release again is refused, unless forced; then it stops to answer.
async fn stop_process_and_expect_rollback(stage: &RealServerHarness, clients: &mut SdkClients) {
    let said = stage.deploy_new("v2", &[]).await;
    assert_eq!(said.code, 5, "{said:?}");
    assert!(
        said.err.contains("quarantine") && said.err.contains("--allow-quarantined"),
        "{said:?}"
    );
    let trouble = async {
        stage.wait_for_status("phase", "baking").await;
        clients.connect("D").await;
        clients.begin_call("D", NEW_SLOW, 20).await;
        let began = Instant::now();
        kill_process(stage.process(3).unwrap(), Signal::STOP).unwrap();
        stage.wait_for_status("active", "v1").await;
        assert!(began.elapsed() < ROLLBACK_MAX, "{:?}", began.elapsed());
        clients.connect("E").await;
        assert_eq!(clients.echo("E").await.unwrap(), "Echo: hello");
        // An answer that says so, for a call that can have none.
        let failure = clients.finish_call("D").await.unwrap_err();
        assert_eq!(failure.code, -32603, "{failure:?}");
        // What the release that hangs knew of the session is not needed.
        assert_eq!(clients.echo("D").await.unwrap(), "Echo: hello");
        assert!(lists_tool(clients, "D", OLD_SLOW).await);
    };
    let (said, ()) = tokio::join!(stage.deploy_new("v2", &["--force", "--wait"]), trouble);
    assert_eq!(said.code, 3, "{said:?}");
    stage.wait_until("the stopped process to end", async || stage.processes().len() == 1).await;
}

#[tokio::test]
async fn repeatedly_dying_release_is_rolled_back() {
    let stage = RealServerHarness::start(ServerKind::Everything, SETTINGS).await;
    let mut clients = SdkClients::start(&stage, ClientKind::TypeScript1);
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let trouble = async {
        stage.wait_for_status("phase", "baking").await;
        let session = clients.connect("Z").await;
        let began = Instant::now();
        stage
            .wait_until("v1 to be back", async || {
                if let Some(process) = stage.process(2) {
                    // It may have ended since.
                    let _ = kill_process(process, Signal::KILL);
                }
                stage.status().await["active"] == "v1"
            })
            .await;
        assert!(began.elapsed() < ROLLBACK_MAX, "{:?}", began.elapsed());
        clients.connect("A").await;
        assert!(lists_tool(&mut clients, "A", OLD_SLOW).await);
        // Whatever its server knew of it died several times; the session did not.
        assert!(lists_tool(&mut clients, "Z", OLD_SLOW).await);
        assert_eq!(clients.id("Z").await, session);
    };
    let (said, ()) = tokio::join!(stage.deploy_new("v2", &["--wait"]), trouble);
    assert_eq!(said.code, 3, "{said:?}");
    let told = stage.run_cli(&["timeline", SERVICE]).await;
    assert!(told.out.contains("v2 is down: crash loop"), "{told:?}");
    assert_eq!(stage.stop_daemon().await, Some(0));
}

/// Whether a client is offered the slow tool of one version, and not that of the other.
pub(crate) async fn lists_tool(clients: &mut SdkClients, who: &str, slow: &str) -> bool {
    let tools = clients.tools(who).await;
    let has = |name: &str| tools.iter().any(|tool| tool == name);
    has(slow) && has(OLD_SLOW) != has(NEW_SLOW)
}

pub(crate) fn in_flight(status: &serde_json::Value, version: &str) -> u64 {
    let releases = status["releases"].as_array().unwrap();
    let release = releases.iter().find(|it| it["version"] == version).unwrap();
    release["in_flight"].as_u64().unwrap()
}
