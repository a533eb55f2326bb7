//! Clients of the official SDKs in a ramp: a share of them moves forward at their next request, and all are
//! back after the rollback. None of them sees an error, and their ids stay.

use super::clients::{ClientKind, SdkClients};
use super::harness::{RealServerHarness, SERVICE};
use super::lists_tool;
use super::servers::{NEW_SLOW, OLD_SLOW, ServerKind};

/// Only this test moves the traffic.
const SETTINGS: &str = r#"
    drain_timeout = "10s"
    stop_timeout = "2s"
    bake = "10m"
    ramp = ["50%"]
    ramp_step = "1m"
"#;
/// Clients of each kind.
const EACH: usize = 4;

#[tokio::test]
async fn clients_go_forward_in_a_ramp_and_back_with_typescript() {
    go_forward_and_back(ServerKind::Everything).await;
}

#[tokio::test]
async fn clients_go_forward_in_a_ramp_and_back_with_python() {
    go_forward_and_back(ServerKind::Python).await;
}

#[tokio::test]
async fn clients_go_forward_in_a_ramp_and_back_with_rust() {
    go_forward_and_back(ServerKind::Rust).await;
}

async fn go_forward_and_back(server: ServerKind) {
    let stage = RealServerHarness::start(server, SETTINGS).await;
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let kinds = ClientKind::LEGACY;
    let mut party: Vec<_> = kinds.iter().map(|&kind| SdkClients::start(&stage, kind)).collect();
    let names: Vec<String> = (0..EACH).map(|n| format!("client{n}")).collect();
    let mut ids = Vec::new();
    for clients in &mut party {
        for name in &names {
            ids.push(clients.connect(name).await);
            assert!(lists_tool(clients, name, OLD_SLOW).await, "{:?}: {name}", clients.kind());
        }
    }

    let said = stage.deploy_new("v2", &[]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.wait_for_status("phase", "baking").await;
    let first = arms(&mut party, &names).await;
    let on_trial = first.iter().filter(|is_new| **is_new).count();
    // Twenty coins: all on one side once in 500,000 times.
    assert!((1..first.len()).contains(&on_trial), "{on_trial} of {}", first.len());
    let second = arms(&mut party, &names).await;
    let came_back = first.iter().zip(&second).any(|(was, is)| *was && !*is);
    assert!(!came_back, "forward only: {first:?}, then {second:?}");

    let said = stage.run_cli(&["abort", SERVICE, "--because", "the tools go by other names"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    stage.wait_for_status("phase", "steady").await;
    assert_eq!(stage.status().await["active"], "v1");
    let last = arms(&mut party, &names).await;
    assert!(last.iter().all(|is_new| !is_new), "all are back: {last:?}");
    let mut ids = ids.into_iter();
    for clients in &mut party {
        for name in &names {
            let id = clients.id(name).await;
            assert_eq!(Some(id), ids.next(), "{:?}: {name} keeps its session", clients.kind());
            clients.close(name).await;
        }
    }
    assert_eq!(stage.stop_daemon().await, Some(0));
}

/// Whether each client is with the new release. Its calls succeed.
async fn arms(party: &mut [SdkClients], names: &[String]) -> Vec<bool> {
    let mut arms = Vec::new();
    for clients in party {
        for name in names {
            let said = clients.echo(name).await;
            let (kind, is_good) = (clients.kind(), |it: &_| it == "Echo: hello");
            assert!(said.as_ref().is_ok_and(is_good), "{kind:?}: {name}: {said:?}");
            let is_new = lists_tool(clients, name, NEW_SLOW).await;
            assert!(is_new || lists_tool(clients, name, OLD_SLOW).await, "{kind:?}: {name}");
            arms.push(is_new);
        }
    }
    arms
}
