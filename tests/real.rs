//! From end to end, with an MCP server and a client that we did not write. tests/run installs them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, and tells what the daemon said when it does"
)]

#[path = "real/clients.rs"]
mod clients;
#[path = "real/conformance.rs"]
mod conformance;
#[path = "real/journey.rs"]
mod journey;
#[path = "real/servers.rs"]
mod servers;
#[path = "real/stage.rs"]
mod stage;

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tokio::time::Instant;

use clients::{Clients, Kind};
use servers::{NEW_SLOW, OLD_SLOW, Server};
use stage::{SERVICE, Stage};

/// Shorter than usual, so that nobody waits for long. What is judged by is as usual.
const SETTINGS: &str = r#"
    drain_timeout = "10s"
    stop_timeout = "2s"
"#;
/// From a release that stops to answer until the previous one has the traffic.
const WITHIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn sessions_outlive_a_deploy_and_a_rollback_by_hand() {
    let stage = Stage::build(Server::Everything, SETTINGS).await;
    let mut clients = Clients::start(&stage, Kind::TypeScript1);
    bring_the_first(&stage, &mut clients).await;
    bring_the_second(&stage, &mut clients).await;
    go_back_by_hand(&stage, &mut clients).await;
    stop_it_in_its_tracks(&stage, &mut clients).await;
    // All the while, A never noticed.
    assert_eq!(clients.echo("A").await.unwrap(), "Echo: hello");
    assert!(offers(&mut clients, "A", OLD_SLOW).await);
    assert_eq!(stage.strike().await, Some(0));
}

async fn bring_the_first(stage: &Stage, clients: &mut Clients) {
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let status = stage.status().await;
    assert_eq!((&status["phase"], &status["active"]), (&"steady".into(), &"v1".into()));
    clients.connect("A").await;
    assert!(offers(clients, "A", OLD_SLOW).await);
    assert_eq!(clients.echo("A").await.unwrap(), "Echo: hello");
}

/// A stays where it is, with what it has in flight; B meets the new release.
async fn bring_the_second(stage: &Stage, clients: &mut Clients) {
    clients.begin("A", OLD_SLOW, 10).await;
    let said = stage.deploy_new("v2", &[]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.until_it_says("phase", "baking").await;
    let status = stage.status().await;
    assert_eq!((&status["active"], &status["warm"]), (&"v2".into(), &"v1".into()));
    assert_eq!(in_flight(&status, "v1"), 1, "the call ended before the switch: {status}");
    clients.connect("B").await;
    assert!(offers(clients, "B", NEW_SLOW).await);
    assert!(clients.finish("A").await.unwrap().to_string().contains("completed"));
    assert!(offers(clients, "A", OLD_SLOW).await);
    assert_eq!(clients.echo("A").await.unwrap(), "Echo: hello");
}

/// C meets the previous release at once; B may finish, and goes on there with the session it has.
/// So does F, which is silent all the while.
async fn go_back_by_hand(stage: &Stage, clients: &mut Clients) {
    let silent = clients.connect("F").await;
    assert!(offers(clients, "F", NEW_SLOW).await);
    clients.begin("B", NEW_SLOW, 7).await;
    let reason = ["rollback", SERVICE, "--no-wait", "--because", "the tools went by other names"];
    let said = stage.verb(&reason).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.until_it_says("phase", "emptying").await;
    clients.connect("C").await;
    assert!(offers(clients, "C", OLD_SLOW).await);
    let status = stage.status().await;
    assert_eq!((&status["phase"], &status["active"]), (&"emptying".into(), &"v1".into()));
    assert_eq!(in_flight(&status, "v2"), 1, "the call ended before the drain: {status}");
    assert!(clients.finish("B").await.unwrap().to_string().contains("completed"));
    stage.until_it_says("phase", "steady").await;

    let status = stage.status().await;
    assert!(status["quarantine"][0].as_str().unwrap().starts_with("v2"), "{status}");
    for who in ["B", "F"] {
        assert_eq!(clients.echo(who).await.unwrap(), "Echo: hello");
        assert!(offers(clients, who, OLD_SLOW).await);
        assert!(clients.news(who).await > 0, "{who} was not told that the tools changed");
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
async fn stop_it_in_its_tracks(stage: &Stage, clients: &mut Clients) {
    let said = stage.deploy_new("v2", &[]).await;
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.err.contains("quarantine") && said.err.contains("--force"), "{said:?}");
    let trouble = async {
        stage.until_it_says("phase", "baking").await;
        clients.connect("D").await;
        clients.begin("D", NEW_SLOW, 20).await;
        let began = Instant::now();
        kill_process(stage.process(3).unwrap(), Signal::STOP).unwrap();
        stage.until_it_says("active", "v1").await;
        assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
        clients.connect("E").await;
        assert_eq!(clients.echo("E").await.unwrap(), "Echo: hello");
        // An answer that says so, for a call that can have none.
        let failure = clients.finish("D").await.unwrap_err();
        assert_eq!(failure.code, -32603, "{failure:?}");
        // What the release that hangs knew of the session is not needed.
        assert_eq!(clients.echo("D").await.unwrap(), "Echo: hello");
        assert!(offers(clients, "D", OLD_SLOW).await);
    };
    let (said, ()) = tokio::join!(stage.deploy_new("v2", &["--force", "--wait"]), trouble);
    assert_eq!(said.code, 3, "{said:?}");
    stage.until("the stopped process to end", async || stage.processes().len() == 1).await;
}

#[tokio::test]
async fn a_release_that_keeps_dying_is_put_back() {
    let stage = Stage::build(Server::Everything, SETTINGS).await;
    let mut clients = Clients::start(&stage, Kind::TypeScript1);
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let trouble = async {
        stage.until_it_says("phase", "baking").await;
        let session = clients.connect("Z").await;
        let began = Instant::now();
        stage
            .until("v1 to be back", async || {
                if let Some(process) = stage.process(2) {
                    // It may have ended since.
                    let _ = kill_process(process, Signal::KILL);
                }
                stage.status().await["active"] == "v1"
            })
            .await;
        assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
        clients.connect("A").await;
        assert!(offers(&mut clients, "A", OLD_SLOW).await);
        // Whatever its server knew of it died several times; the session did not.
        assert!(offers(&mut clients, "Z", OLD_SLOW).await);
        assert_eq!(clients.id("Z").await, session);
    };
    let (said, ()) = tokio::join!(stage.deploy_new("v2", &["--wait"]), trouble);
    assert_eq!(said.code, 3, "{said:?}");
    let told = stage.verb(&["timeline", SERVICE]).await;
    assert!(told.out.contains("v2 is down: crash loop"), "{told:?}");
    assert_eq!(stage.strike().await, Some(0));
}

/// Whether a client is offered the slow tool of one version, and not that of the other.
pub(crate) async fn offers(clients: &mut Clients, who: &str, slow: &str) -> bool {
    let tools = clients.tools(who).await;
    let has = |name: &str| tools.iter().any(|tool| tool == name);
    has(slow) && has(OLD_SLOW) != has(NEW_SLOW)
}

pub(crate) fn in_flight(status: &serde_json::Value, version: &str) -> u64 {
    let releases = status["releases"].as_array().unwrap();
    let release = releases.iter().find(|it| it["version"] == version).unwrap();
    release["in_flight"].as_u64().unwrap()
}
