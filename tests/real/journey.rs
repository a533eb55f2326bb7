//! Every client against every server, across a deploy, a rollback that drains and one that cuts.

use super::clients::{ClientKind, SdkClients};
use super::harness::{RealServerHarness, SERVICE};
use super::servers::{NEW_SLOW, OLD_SLOW, ServerKind};
use super::{in_flight, lists_tool};

/// Only this test moves the traffic.
const SETTINGS: &str = r#"
    drain_timeout = "30s"
    stop_timeout = "2s"
    ramp = ["100%"]
"#;
/// Long enough for all clients to begin, and for a deploy, on a machine that does a lot at once.
const CALL_SECONDS: u32 = 12;
/// A call that does not end by itself.
const LONG_CALL_SECONDS: u32 = 120;
/// The old release tells of it again and again, the new one never.
const RESOURCE: &str = "test://static/resource/1";

#[tokio::test]
async fn all_clients_survive_deploy_and_rollback_with_typescript() {
    deploy_and_roll_back(ServerKind::Everything, &ClientKind::LEGACY).await;
}

#[tokio::test]
async fn all_clients_survive_deploy_and_rollback_with_python() {
    deploy_and_roll_back(
        ServerKind::Python,
        &[&ClientKind::LEGACY[..], &ClientKind::MODERN].concat(),
    )
    .await;
}

#[tokio::test]
async fn all_clients_survive_deploy_and_rollback_with_rust() {
    deploy_and_roll_back(
        ServerKind::Rust,
        &[&ClientKind::LEGACY[..], &ClientKind::MODERN].concat(),
    )
    .await;
}

async fn deploy_and_roll_back(server: ServerKind, kinds: &[ClientKind]) {
    let stage = RealServerHarness::start(server, SETTINGS).await;
    let mut party: Vec<_> = kinds.iter().map(|&kind| SdkClients::start(&stage, kind)).collect();
    let subscribes = server == ServerKind::Everything;
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    deploy(&stage, &mut party).await;
    drain(&stage, &mut party, subscribes).await;
    cut(&stage, &mut party).await;
    for clients in &mut party {
        // All the while, this one had nothing to do.
        assert_session_kept(clients, "idle", None).await;
        clients.close("idle").await;
    }
    assert_eq!(stage.stop_daemon().await, Some(0));
}

/// Sessions stay where they are, with what is in flight. Without sessions, all go at once.
async fn deploy(stage: &RealServerHarness, clients: &mut [SdkClients]) {
    for clients in &mut *clients {
        clients.connect("idle").await;
        assert!(lists_tool(clients, "idle", OLD_SLOW).await, "{:?}", clients.kind());
        clients.connect("early").await;
        clients.begin_call("early", OLD_SLOW, CALL_SECONDS).await;
    }
    let said = stage.deploy_new("v2", &[]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.wait_for_status("phase", "baking").await;
    for clients in clients {
        let kind = clients.kind();
        let slow = if kind.is_modern() { NEW_SLOW } else { OLD_SLOW };
        assert!(lists_tool(clients, "early", slow).await, "{kind:?}");
        let answer = clients.finish_call("early").await;
        assert!(answer.as_ref().is_ok_and(completed), "{kind:?}: {answer:?}");
        clients.close("early").await;
    }
}

/// What is in flight is answered, by the release that has it.
async fn drain(stage: &RealServerHarness, clients: &mut [SdkClients], subscribes: bool) {
    let mut sessions = Vec::new();
    for clients in &mut *clients {
        sessions.push((clients.connect("silent").await, clients.connect("busy").await));
        assert!(lists_tool(clients, "silent", NEW_SLOW).await, "{:?}", clients.kind());
        if subscribes {
            clients.subscribe("silent", RESOURCE).await;
        }
        clients.begin_call("busy", NEW_SLOW, CALL_SECONDS).await;
    }
    roll_back(stage, &["--no-wait"]).await;
    let status = stage.status().await;
    assert_eq!((&status["phase"], &status["active"]), (&"emptying".into(), &"v1".into()));
    assert_eq!(in_flight(&status, "v2"), clients.len() as u64, "{status}");
    for (clients, (silent, busy)) in clients.iter_mut().zip(&sessions) {
        assert_session_kept(clients, "silent", Some(silent)).await;
        let answer = clients.finish_call("busy").await;
        assert!(answer.as_ref().is_ok_and(completed), "{:?}: {answer:?}", clients.kind());
        assert_session_kept(clients, "busy", Some(busy)).await;
        clients.close("busy").await;
    }
    stage.wait_for_status("phase", "steady").await;
    for clients in clients {
        if subscribes {
            let updated = clients.resource_updates("silent").await;
            assert!(updated > 0, "{:?}: the subscription is lost", clients.kind());
        }
        clients.close("silent").await;
    }
}

/// Requests in flight receive an error, as their result is unknown.
async fn cut(stage: &RealServerHarness, clients: &mut [SdkClients]) {
    let said = stage.deploy_new("v2", &["--force"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.wait_for_status("phase", "baking").await;
    let mut sessions = Vec::new();
    for clients in &mut *clients {
        sessions.push((clients.connect("silent").await, clients.connect("busy").await));
        assert!(lists_tool(clients, "silent", NEW_SLOW).await, "{:?}", clients.kind());
        clients.begin_call("busy", NEW_SLOW, LONG_CALL_SECONDS).await;
    }
    roll_back(stage, &["--cut"]).await;
    for (clients, (silent, busy)) in clients.iter_mut().zip(&sessions) {
        let failure = clients.finish_call("busy").await.unwrap_err();
        assert_eq!(failure.code, -32603, "{:?}: {failure:?}", clients.kind());
        assert_eq!(failure.data["reason"], "rollback", "{:?}: {failure:?}", clients.kind());
        for (who, session) in [("silent", silent), ("busy", busy)] {
            assert_session_kept(clients, who, Some(session)).await;
            clients.close(who).await;
        }
    }
    stage.wait_for_status("phase", "steady").await;
}

async fn roll_back(stage: &RealServerHarness, how: &[&str]) {
    let reason = ["rollback", SERVICE, "--because", "the tools go by other names"];
    let said = stage.run_cli(&[&reason[..], how].concat()).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.wait_for_status("active", "v1").await;
}

/// It is with the old release. Where it had another one, it was told that the tools changed; its
/// session is still the same.
async fn assert_session_kept(
    clients: &mut SdkClients,
    who: &str,
    session: Option<&Option<String>>,
) {
    let kind = clients.kind();
    assert!(lists_tool(clients, who, OLD_SLOW).await, "{kind:?}: {who}");
    let said = clients.echo(who).await;
    assert!(said.as_ref().is_ok_and(|it| it == "Echo: hello"), "{kind:?}: {who}: {said:?}");
    if let Some(session) = session {
        assert_eq!(clients.id(who).await, *session, "{kind:?}: {who}");
        assert!(clients.list_changed_count(who).await > 0, "{kind:?}: {who} was not told of it");
    }
}

fn completed(answer: &serde_json::Value) -> bool {
    answer.as_str().is_some_and(|it| it.contains("completed"))
}
