//! Every client against every server, across a deploy, a rollback that drains and one that cuts.

use super::clients::{Clients, Kind};
use super::servers::{NEW_SLOW, OLD_SLOW, Server};
use super::stage::{SERVICE, Stage};
use super::{in_flight, offers};

/// Nothing but what is done here moves the traffic.
const SETTINGS: &str = r#"
    drain_timeout = "30s"
    stop_timeout = "2s"
"#;
/// Long enough for all clients to begin, and for a deploy, on a machine that does a lot at once.
const SECONDS: u32 = 12;
/// A call that does not end by itself.
const ENDLESS: u32 = 120;
/// The old release tells of it again and again, the new one never.
const RESOURCE: &str = "test://static/resource/1";

#[tokio::test]
async fn all_clients_go_there_and_back_with_a_typescript_server() {
    travel(Server::Everything, &Kind::LEGACY).await;
}

#[tokio::test]
async fn all_clients_go_there_and_back_with_a_python_server() {
    travel(Server::Python, &[&Kind::LEGACY[..], &Kind::MODERN].concat()).await;
}

#[tokio::test]
async fn all_clients_go_there_and_back_with_a_rust_server() {
    travel(Server::Rust, &[&Kind::LEGACY[..], &Kind::MODERN].concat()).await;
}

async fn travel(server: Server, kinds: &[Kind]) {
    let stage = Stage::build(server, SETTINGS).await;
    let mut party: Vec<_> = kinds.iter().map(|&kind| Clients::start(&stage, kind)).collect();
    let subscribes = server == Server::Everything;
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    deploy(&stage, &mut party).await;
    drain(&stage, &mut party, subscribes).await;
    cut(&stage, &mut party).await;
    for clients in &mut party {
        // All the while, this one had nothing to do.
        back(clients, "idle", None).await;
        clients.close("idle").await;
    }
    assert_eq!(stage.strike().await, Some(0));
}

/// Sessions stay where they are, with what is in flight. Without sessions, all go at once.
async fn deploy(stage: &Stage, party: &mut [Clients]) {
    for clients in &mut *party {
        clients.connect("idle").await;
        assert!(offers(clients, "idle", OLD_SLOW).await, "{:?}", clients.kind());
        clients.connect("early").await;
        clients.begin("early", OLD_SLOW, SECONDS).await;
    }
    let said = stage.deploy_new("v2", &[]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.until_it_says("phase", "baking").await;
    for clients in party {
        let kind = clients.kind();
        let slow = if kind.is_modern() { NEW_SLOW } else { OLD_SLOW };
        assert!(offers(clients, "early", slow).await, "{kind:?}");
        let answer = clients.finish("early").await;
        assert!(answer.as_ref().is_ok_and(completed), "{kind:?}: {answer:?}");
        clients.close("early").await;
    }
}

/// What is in flight is answered, by the release that has it.
async fn drain(stage: &Stage, party: &mut [Clients], subscribes: bool) {
    let mut sessions = Vec::new();
    for clients in &mut *party {
        sessions.push((clients.connect("silent").await, clients.connect("busy").await));
        assert!(offers(clients, "silent", NEW_SLOW).await, "{:?}", clients.kind());
        if subscribes {
            clients.subscribe("silent", RESOURCE).await;
        }
        clients.begin("busy", NEW_SLOW, SECONDS).await;
    }
    roll_back(stage, &["--no-wait"]).await;
    let status = stage.status().await;
    assert_eq!((&status["phase"], &status["active"]), (&"emptying".into(), &"v1".into()));
    assert_eq!(in_flight(&status, "v2"), party.len() as u64, "{status}");
    for (clients, (silent, busy)) in party.iter_mut().zip(&sessions) {
        back(clients, "silent", Some(silent)).await;
        let answer = clients.finish("busy").await;
        assert!(answer.as_ref().is_ok_and(completed), "{:?}: {answer:?}", clients.kind());
        back(clients, "busy", Some(busy)).await;
        clients.close("busy").await;
    }
    stage.until_it_says("phase", "steady").await;
    for clients in party {
        if subscribes {
            let updated = clients.updated("silent").await;
            assert!(updated > 0, "{:?}: the subscription is lost", clients.kind());
        }
        clients.close("silent").await;
    }
}

/// What is in flight is answered, too: with an error, as nobody can know what became of it.
async fn cut(stage: &Stage, party: &mut [Clients]) {
    let said = stage.deploy_new("v2", &["--force"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.until_it_says("phase", "baking").await;
    let mut sessions = Vec::new();
    for clients in &mut *party {
        sessions.push((clients.connect("silent").await, clients.connect("busy").await));
        assert!(offers(clients, "silent", NEW_SLOW).await, "{:?}", clients.kind());
        clients.begin("busy", NEW_SLOW, ENDLESS).await;
    }
    roll_back(stage, &["--cut"]).await;
    for (clients, (silent, busy)) in party.iter_mut().zip(&sessions) {
        let failure = clients.finish("busy").await.unwrap_err();
        assert_eq!(failure.code, -32603, "{:?}: {failure:?}", clients.kind());
        assert_eq!(failure.data["reason"], "rollback", "{:?}: {failure:?}", clients.kind());
        for (who, session) in [("silent", silent), ("busy", busy)] {
            back(clients, who, Some(session)).await;
            clients.close(who).await;
        }
    }
    stage.until_it_says("phase", "steady").await;
}

async fn roll_back(stage: &Stage, how: &[&str]) {
    let reason = ["rollback", SERVICE, "--because", "the tools go by other names"];
    let said = stage.verb(&[&reason[..], how].concat()).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.until_it_says("active", "v1").await;
}

/// It is with the old release. Where it had another one, it was told that the tools changed; its
/// session is still the same.
async fn back(clients: &mut Clients, who: &str, session: Option<&Option<String>>) {
    let kind = clients.kind();
    assert!(offers(clients, who, OLD_SLOW).await, "{kind:?}: {who}");
    let said = clients.echo(who).await;
    assert!(said.as_ref().is_ok_and(|it| it == "Echo: hello"), "{kind:?}: {who}: {said:?}");
    if let Some(session) = session {
        assert_eq!(clients.id(who).await, *session, "{kind:?}: {who}");
        assert!(clients.news(who).await > 0, "{kind:?}: {who} was not told of it");
    }
}

fn completed(answer: &serde_json::Value) -> bool {
    answer.as_str().is_some_and(|it| it.contains("completed"))
}
