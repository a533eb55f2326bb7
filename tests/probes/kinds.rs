//! The other kinds of probe: HTTP, a Unix socket, a command.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rollbackd::config::{Address, ProbeKind};
use rollbackd::model::ProbeResult;
use serde_json::json;
use tokio::net::UnixListener;

use crate::async_wait::wait_for;
use crate::fake_server::{FakeResponse, FakeServer, Log, modern_response, serve};
use crate::{assert_wrong, http_probe, prober};

#[tokio::test]
async fn http_get_probe() {
    let body = json!({"status": "ok", "checks": {"left": 3}});
    let fake = FakeServer::start(move |_| FakeResponse::json(200, "", &body)).await;
    assert_eq!(fake.prober(http_probe(None)).probe().await, ProbeResult::Ok);
    assert_eq!(fake.prober(http_probe(Some(("/status", "ok")))).probe().await, ProbeResult::Ok);
    assert_eq!(fake.prober(http_probe(Some(("/checks/left", "3")))).probe().await, ProbeResult::Ok);
    assert_wrong(
        &fake.prober(http_probe(Some(("/status", "up")))).probe().await,
        "/status is \"ok\", not \"up\"",
    );
    assert_wrong(&fake.prober(http_probe(Some(("/up", "up")))).probe().await, "has no /up");
    let moved =
        FakeServer::start(|_| FakeResponse::with(307, "location: /elsewhere\r\n", "")).await;
    assert_wrong(&moved.prober(http_probe(None)).probe().await, "status 307, not 200");
    assert_eq!(moved.log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn unix_socket_probe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mcp.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let log = Log::default();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, Arc::clone(&log), Arc::new(modern_response)));
        }
    });
    let address = Address::Unix(path);
    assert_eq!(prober(ProbeKind::Mcp, &address).probe().await, ProbeResult::Ok);
    assert_eq!(prober(ProbeKind::Tcp, &address).probe().await, ProbeResult::Ok);
    assert!(prober(ProbeKind::Mcp, &address).discover_contract(&BTreeSet::new()).await.is_some());
}

#[tokio::test]
async fn command_probe() {
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 4001)));
    let run = |script: &str| {
        let argv = ["/bin/sh", "-c", script, "{port}", "{slot}", "{version}"];
        let kind = ProbeKind::Command(argv.map(str::to_owned).to_vec());
        let mut prober = prober(kind, &address);
        async move { prober.probe().await }
    };
    assert_eq!(run("test $0-$1-$2 = 4001-green-v2").await, ProbeResult::Ok);
    assert_wrong(&run("echo noise; exit 3").await, "exit code 3");
    assert_wrong(&run("kill -9 $$").await, "signal 9");
    let missing = ProbeKind::Command(vec!["/nonexistent/probe".into()]);
    assert_wrong(&prober(missing, &address).probe().await, "did not start");
}

#[tokio::test]
async fn hanging_command_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 60 & echo $! > {}; wait", file.display());
    let kind = ProbeKind::Command(vec!["/bin/sh".into(), "-c".into(), script]);
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 4001)));
    assert_eq!(prober(kind, &address).probe().await, ProbeResult::TimedOut);
    let child = std::fs::read_to_string(file).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
    let ended = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    let poll = || std::future::ready(ended().then_some(()));
    wait_for("the child of the probe command ends", poll).await;
}
