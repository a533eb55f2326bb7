//! Artifacts: recorded at the deploy, and verified before the traffic goes back.

use std::path::Path;

use crate::support::{DaemonHarness, SERVICE, serving_version, wait_until};

const COMMAND: &str = r#"command = ["/bin/sh", "{artifact}/start"]"#;

fn write_artifact(folder: &Path, version: &str) -> String {
    let dir = folder.join(version);
    std::fs::create_dir(&dir).unwrap();
    let program = env!("CARGO_BIN_EXE_rollbackd");
    std::fs::write(dir.join("start"), format!("exec {program} demo-server\n")).unwrap();
    dir.display().to_string()
}

#[test]
fn changed_artifact_blocks_rollback_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (write_artifact(folder.path(), "v1"), write_artifact(folder.path(), "v2"));
    let mut host = DaemonHarness::new(COMMAND);
    host.start();
    host.deploy("v1", &["--artifact", &one, "--wait"]).expect_code(0);
    host.deploy("v2", &["--artifact", &format!("{two}/")]).expect_code(0);
    host.wait_for_phase("baking");
    let deployed = &host.entries(2)[0];
    let release = &serde_json::to_value(deployed).unwrap()["data"]["release"];
    assert_eq!(release["artifact"], two, "as it is written down");
    let was = serde_json::to_value(&host.entries(1)[0]).unwrap()["data"]["release"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(was.starts_with("tree-sha256:") && was.len() == 76, "{was}");

    std::fs::write(Path::new(&one).join("hotfix"), "oops").unwrap();
    let rollback = ["rollback", SERVICE, "--because", "x"];
    let said = ["abandoned", "the artifact of v1 changed", &was, "newest file in it: hotfix"];
    host.run_cli(&rollback).expect_code(11).expect_text(&said);
    assert_eq!(serving_version(host.listen), Ok("v2".to_owned()));
    wait_until("a page", || host.log().contains("page=true"));

    // A daemon verifies them at its start, too.
    host.kill();
    host.start();
    wait_until("the error is reported again", || {
        let last = host.entries(2).pop().unwrap();
        last.because.contains(&was) && last.event.kind() == "noted"
    });
    host.run_cli(&[&rollback[..], &["--changed-artifact"]].concat()).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn touched_artifact_with_same_content_is_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (write_artifact(folder.path(), "v1"), write_artifact(folder.path(), "v2"));
    let mut host = DaemonHarness::new(COMMAND);
    host.start();
    host.deploy("v1", &["--artifact", &one, "--wait"]).expect_code(0);
    host.deploy("v2", &["--artifact", &two]).expect_code(0);
    host.wait_for_phase("baking");
    let start = Path::new(&one).join("start");
    std::fs::write(&start, std::fs::read(&start).unwrap()).unwrap();
    host.run_cli(&["rollback", SERVICE, "--because", "x"]).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn invalid_artifact_is_rejected_before_deploy() {
    let folder = tempfile::tempdir().unwrap();
    let one = write_artifact(folder.path(), "v1");
    let current = folder.path().join("current");
    std::os::unix::fs::symlink(&one, &current).unwrap();
    let mut host = DaemonHarness::new(COMMAND);
    host.start();
    let deploy = |artifact: &str| host.deploy("v1", &["--artifact", artifact]);
    deploy(&current.display().to_string()).expect_code(5).expect_text(&["a link", &one]);
    deploy(&format!("{one}/nothing")).expect_code(5).expect_text(&["does not exist"]);
    deploy("localhost/weather:latest")
        .expect_code(5)
        .expect_text(&["podman", "artifact = \"opaque\""]);
    assert_eq!(host.phase(), "empty");
}

#[test]
fn a_command_with_an_artifact_needs_one() {
    let folder = tempfile::tempdir().unwrap();
    let one = write_artifact(folder.path(), "v1");
    let mut host = DaemonHarness::new(COMMAND);
    host.start();
    let said = ["command has {artifact}", "--artifact"];
    host.deploy("v1", &["--wait"]).expect_code(5).expect_text(&said);
    assert_eq!(host.phase(), "empty", "nothing was started");
    host.deploy("v1", &["--artifact", &one, "--wait"]).expect_code(0);
}

#[test]
fn links_out_of_an_artifact_are_told_and_refused_where_others_write() {
    let folder = tempfile::tempdir().unwrap();
    let one = write_artifact(folder.path(), "v1");
    let shared = folder.path().join("shared");
    std::fs::write(&shared, "x").unwrap();
    std::os::unix::fs::symlink("../shared", Path::new(&one).join("lib")).unwrap();
    let mut host = DaemonHarness::new(COMMAND);
    host.start();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let before = std::fs::metadata(&shared).unwrap().permissions();
    std::fs::set_permissions(&shared, all).unwrap();
    let refused = host.deploy("v1", &["--artifact", &one, "--wait"]);
    refused.expect_code(5).expect_text(&["lib leads to ../shared", "writable for every user"]);
    assert_eq!(host.phase(), "empty");
    std::fs::set_permissions(&shared, before).unwrap();
    let told = "1 link leads out of the artifact: lib -> ../shared";
    host.deploy("v1", &["--artifact", &one, "--wait"]).expect_code(0).expect_text(&[told]);
    let deployed = &host.entries(1)[0];
    assert!(deployed.because.contains(told), "{}", deployed.because);
    let data = serde_json::to_value(deployed).unwrap()["data"]["outside_links"].clone();
    let listed = serde_json::json!([{ "path": "lib", "target": "../shared" }]);
    assert_eq!(data, serde_json::json!({ "count": 1, "listed": listed }));
}
