//! Artifacts: recorded at the deploy, and looked at before the traffic goes back.

use std::path::Path;

use crate::support::{Host, SERVICE, ask, soon};

const COMMAND: &str = r#"command = ["/bin/sh", "{artifact}/start"]"#;

fn artifact(folder: &Path, version: &str) -> String {
    let dir = folder.join(version);
    std::fs::create_dir(&dir).unwrap();
    let program = env!("CARGO_BIN_EXE_rollbackd");
    std::fs::write(dir.join("start"), format!("exec {program} demo-server\n")).unwrap();
    dir.display().to_string()
}

#[test]
fn what_changed_is_not_gone_back_to_unless_a_person_insists() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (artifact(folder.path(), "v1"), artifact(folder.path(), "v2"));
    let mut host = Host::new(COMMAND);
    host.start();
    host.deploy("v1", &["--artifact", &one, "--wait"]).expect(0);
    host.deploy("v2", &["--artifact", &format!("{two}/")]).expect(0);
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
    let said = ["abandoned", "v1 is not what was deployed", &was, "newest file in it: hotfix"];
    host.verb(&rollback).expect(11).says(&said);
    assert_eq!(ask(host.listen), Ok("v2".to_owned()));
    assert!(host.log().contains("page=true"), "nobody was paged");

    // A daemon that starts looks as well.
    host.kill();
    host.start();
    soon("it is said again", || {
        let last = host.entries(2).pop().unwrap();
        last.because.contains(&was) && last.fact.kind() == "noted"
    });
    host.verb(&[&rollback[..], &["--force"]].concat()).expect(0);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn what_was_touched_and_is_the_same_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (artifact(folder.path(), "v1"), artifact(folder.path(), "v2"));
    let mut host = Host::new(COMMAND);
    host.start();
    host.deploy("v1", &["--artifact", &one, "--wait"]).expect(0);
    host.deploy("v2", &["--artifact", &two]).expect(0);
    host.wait_for_phase("baking");
    let start = Path::new(&one).join("start");
    std::fs::write(&start, std::fs::read(&start).unwrap()).unwrap();
    host.verb(&["rollback", SERVICE, "--because", "x"]).expect(0);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn what_can_not_be_deployed_is_refused_before_anything_happens() {
    let folder = tempfile::tempdir().unwrap();
    let one = artifact(folder.path(), "v1");
    let current = folder.path().join("current");
    std::os::unix::fs::symlink(&one, &current).unwrap();
    let mut host = Host::new(COMMAND);
    host.start();
    let deploy = |artifact: &str| host.deploy("v1", &["--artifact", artifact]);
    deploy(&current.display().to_string()).expect(5).says(&["a link", &one]);
    deploy(&format!("{one}/nothing")).expect(5).says(&["is not there"]);
    deploy("localhost/weather:latest").expect(5).says(&["podman", "artifact = \"word\""]);
    assert_eq!(host.phase(), "empty");
}
