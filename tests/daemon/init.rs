//! The first configuration, as a newcomer makes it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::DaemonHarness;

fn init(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
    command.arg("init").arg("--out").arg(dir).args(arguments).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn init_writes_a_configuration_that_passes_and_changes_nothing_that_exists() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["--command", "/opt/weather/{version}/server", "--port", "{port}"];
    let output = init(dir.path(), &[&["--name", "weather"], &command[..]].concat());
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert!(out.contains("rollbackd deploy weather v1 --wait"), "{out}");
    let file = dir.path().join("rollbackd.toml");
    let mut check = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
    assert!(check.arg("check").arg(&file).status().unwrap().success());
    let before = fs::read(&file).unwrap();
    // The unit would be new, the configuration exists: neither is written.
    let output = init(dir.path(), &["--image", "localhost/other"]);
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("exists, and nothing was written"), "{err}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Its commands can be typed as they stand.
#[test]
fn init_names_an_artifact_where_the_command_needs_one() {
    for (word, artifact) in [
        ("/opt/{version}/server", ""),
        ("{artifact}/server", "/opt/RELEASE"),
        ("w/{artifact}", "RELEASE"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let command = ["--name", "weather", "--command", word, "--port", "{port}"];
        // The directory is made; what it is in must exist.
        let (out, _) = texts(&init(&dir.path().join("new"), &command));
        let (_, err) = texts(&init(&dir.path().join("no/new"), &command));
        assert!(err.contains("cannot make the directory"), "{err}");
        let option =
            if artifact.is_empty() { String::new() } else { format!(" --artifact {artifact}") };
        let step = format!("rollbackd deploy weather v1{option} --wait\n");
        assert!(out.contains(&step), "{word}: {out}");
    }
}

#[test]
fn init_refuses_what_cannot_become_releases() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--command", "/opt/weather/server"][..], "no {version} and no {artifact}"),
        (&["--image", "localhost/weather:v1"], "leave its tag and digest out"),
        (&["--image", "a b"], "is not the name of an image"),
        (&["--unit", "no-such-unit-of-this-test"], "cannot read the unit"),
        (&["--name", "No Name", "--image", "w"], "write --name"),
    ] {
        let output = init(dir.path(), arguments);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn init_finds_the_servers_that_speak_mcp() {
    let host = DaemonHarness::with_v1("");
    let (out, _) = texts(&init(Path::new("."), &[]));
    let line = out.lines().find(|it| it.trim_start().starts_with(&host.listen.to_string()));
    assert!(line.is_some_and(|it| it.contains("MCP at /mcp")), "{out}");
    assert!(out.contains("rollbackd init --unit"), "{out}");
}
