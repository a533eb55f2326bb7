//! The previous release is dead when it is needed: never a switch to a release that does not answer.

use crate::support::{Host, Load, SERVICE, Server, ask, pause, soon};

#[test]
fn a_warm_release_that_died_is_started_again_and_takes_over() {
    let host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    let warm = host.process(1);
    warm.kill();
    host.verb(&["rollback", SERVICE, "--cut", "--because", "x"]).expect(0);
    assert_ne!(host.process(1).pid, warm.pid);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn a_warm_release_that_does_not_come_back_leaves_the_traffic_where_it_is() {
    // It starts as long as its file is there.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("v1");
    std::fs::write(&file, "").unwrap();
    let script = format!(
        r#"[ "$ROLLBACKD_VERSION" != v1 ] || [ -e {} ] || exit 9; exec "$0" demo-server"#,
        file.display()
    );
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]");
    let host = Host::with_v1(&format!("{command}\nstart_timeout = \"3s\""));
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    std::fs::remove_file(&file).unwrap();
    host.process(1).kill();
    soon("it died", || host.running().iter().all(|it| it.number == 2));
    let load = Load::start(host.listen);
    host.verb(&["rollback", SERVICE, "--because", "x"]).expect(11).says(&[
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
    assert!(host.log().contains("page=true"), "nobody was paged");
    assert!(!host.kinds(2).contains(&"decided"));
}

#[test]
fn the_same_with_releases_that_somebody_else_runs() {
    let mut host = Host::new("runtime = \"external\"\nstart_timeout = \"4s\"");
    host.start();
    let one = Server::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect(0);
    let _two = Server::start("v2", host.green);
    host.deploy("v2", &["--slot", "green"]).expect(0);
    host.wait_for_phase("baking");
    drop(one);
    let rollback = ["rollback", SERVICE, "--because", "x"];
    host.verb(&rollback).expect(11).says(&["v1 does not answer", "abandoned"]);
    assert_eq!(ask(host.listen), Ok("v2".to_owned()));
    // It comes back while the daemon waits for it.
    let again = host.begin(&rollback);
    host.wait_for_phase("reviving");
    let _one = Server::start("v1", host.blue);
    again.done().expect(0).says(&["v1 runs again and answers", "recovered"]);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn when_both_fail_the_deploy_is_not_to_blame() {
    let mut host = Host::new("runtime = \"external\"");
    host.start();
    let one = Server::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect(0);
    let two = Server::start("v2", host.green);
    let deploy = host.begin(&["deploy", SERVICE, "v2", "--slot", "green", "--wait"]);
    host.wait_for_phase("baking");
    pause(std::time::Duration::from_secs(1));
    drop((one, two));
    deploy.done().expect(11);
    let kinds = host.kinds(2);
    assert!(!kinds.contains(&"decided"), "{kinds:?}");
    assert_eq!(host.status()["active"], "v2");
}

#[test]
fn the_last_release_that_answers_does_not_give_up_its_slot() {
    let mut host = Host::new("runtime = \"external\"\nbake = \"5s\"");
    host.start();
    let _one = Server::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect(0);
    let two = Server::start("v2", host.green);
    host.deploy("v2", &["--slot", "green", "--wait"]).expect(0);
    drop(two);
    soon("v2 is seen to be gone", || host.status()["releases"][0]["probe"] == "connection refused");
    host.deploy("v3", &[]).expect(5).says(&["v2 does not answer", "v1", "would be stopped"]);
    assert_eq!(host.status()["deploy"], 2);
    host.verb(&["rollback", SERVICE, "--because", "v2 is gone"]).expect(0);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}
