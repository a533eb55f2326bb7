//! The previous release is dead when it is needed: never a switch to a release that does not answer.

use crate::support::{
    DaemonHarness, ExternalServer, SERVICE, VersionPoller, serving_version, wait_until,
};

#[test]
fn dead_warm_release_is_restarted_for_rollback() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    let warm = host.release_process(1);
    warm.kill();
    host.run_cli(&["rollback", SERVICE, "--cut", "--because", "x"]).expect_code(0);
    assert_ne!(host.release_process(1).pid, warm.pid);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn rollback_is_abandoned_when_the_warm_release_cannot_start() {
    // It starts while its file exists.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("v1");
    std::fs::write(&file, "").unwrap();
    let script = format!(
        r#"[ "$ROLLBACKD_VERSION" != v1 ] || [ -e {} ] || exit 9; exec "$0" demo-server"#,
        file.display()
    );
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]");
    let host = DaemonHarness::with_v1(&format!("{command}\nstart_timeout = \"3s\""));
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    std::fs::remove_file(&file).unwrap();
    host.release_process(1).kill();
    wait_until("it died", || host.release_processes().iter().all(|it| it.number == 2));
    let load = VersionPoller::start(host.listen);
    host.run_cli(&["rollback", SERVICE, "--because", "x"]).expect_code(11).expect_text(&[
        "reviving",
        "abandoned",
        "v1 does not answer and does not start",
        "the traffic stays on v2",
    ]);
    let seen = load.stop();
    assert_eq!(seen.good.keys().collect::<Vec<_>>(), ["v2"]);
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    let status = host.status();
    assert_eq!(status["active"], "v2");
    assert!(status["hold"].as_str().unwrap().contains("could not take over"), "{status}");
    wait_until("a page", || host.log().contains("page=true"));
    assert!(!host.kinds(2).contains(&"decided"));
}

#[test]
fn external_warm_release_that_is_down_blocks_rollback() {
    let mut host = DaemonHarness::new("runtime = \"external\"\nstart_timeout = \"4s\"");
    host.start();
    let one = ExternalServer::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect_code(0);
    let _two = ExternalServer::start("v2", host.green);
    host.deploy("v2", &["--slot", "green"]).expect_code(0);
    host.wait_for_phase("baking");
    drop(one);
    let rollback = ["rollback", SERVICE, "--because", "x"];
    host.run_cli(&rollback).expect_code(11).expect_text(&["v1 does not answer", "abandoned"]);
    assert_eq!(serving_version(host.listen), Ok("v2".to_owned()));
    // It restarts while the daemon waits for it.
    let again = host.spawn_cli(&rollback);
    host.wait_for_phase("reviving");
    let _one = ExternalServer::start("v1", host.blue);
    again.wait().expect_code(0).expect_text(&["v1 runs again and answers", "recovered"]);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn outage_of_both_releases_is_not_attributed_to_the_deploy() {
    let mut host = DaemonHarness::new("runtime = \"external\"");
    host.start();
    let one = ExternalServer::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect_code(0);
    let two = ExternalServer::start("v2", host.green);
    let deploy = host.spawn_cli(&["deploy", SERVICE, "v2", "--slot", "green", "--wait"]);
    host.wait_for_phase("baking");
    // Both are known to answer before they no longer do.
    wait_until("both answer", || {
        let releases = host.status()["releases"].clone();
        releases
            .as_array()
            .is_some_and(|it| it.len() == 2 && it.iter().all(|it| it["probe"] == "ok"))
    });
    drop((one, two));
    deploy.wait().expect_code(11);
    let kinds = host.kinds(2);
    assert!(!kinds.contains(&"decided"), "{kinds:?}");
    assert_eq!(host.status()["active"], "v2");
}

#[test]
fn only_healthy_release_keeps_its_slot() {
    let mut host = DaemonHarness::new("runtime = \"external\"\nbake = \"5s\"");
    host.start();
    let _one = ExternalServer::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect_code(0);
    let two = ExternalServer::start("v2", host.green);
    host.deploy("v2", &["--slot", "green", "--wait"]).expect_code(13);
    drop(two);
    wait_until("v2 is seen to be gone", || {
        host.status()["releases"][0]["probe"] == "connection refused"
    });
    host.deploy("v3", &[]).expect_code(5).expect_text(&[
        "v2 does not answer",
        "v1",
        "would be stopped",
    ]);
    assert_eq!(host.status()["deploy"], 2);
    host.run_cli(&["rollback", SERVICE, "--because", "v2 is gone"]).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn a_deploy_that_needs_the_warm_slot_drains_it() {
    let host = DaemonHarness::with_v1("bake = \"5s\"");
    let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    let mut client = std::net::TcpStream::connect(("127.0.0.1", host.listen)).unwrap();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(client).unwrap().to_lowercase();
    assert!(answer.contains("mcp-session-id"), "{answer}");
    host.deploy("v2", &["--wait"]).expect_code(13);
    host.deploy("v3", &[]).expect_code(0);
    host.wait_for_phase("baking");
    wait_until("the drain of v1 is in the timeline", || {
        let entries = host.entries(3);
        let mut notes = entries.iter().filter(|it| it.because.contains("drained before it stops"));
        notes.any(|it| it.because.contains("1 session migrates"))
    });
}
