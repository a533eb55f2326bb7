//! The walk in README, as a new user types it: a real server, a client, and a deploy that is bad.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::servers::copy_npm_package;

/// The walk has to take less than five minutes.
const WALK_MAX: Duration = Duration::from_secs(300);
/// An address of its own, so that its fixed ports collide with no other test.
const ADDRESS: &str = "127.83.17.1";

#[tokio::test]
async fn the_walk_in_readme_ends_with_a_rollback_and_a_draft() {
    let dir = tempfile::tempdir().unwrap();
    // What `npm install` does in README.
    copy_npm_package("everything-new", dir.path(), "everything-v1");
    let script = walk(dir.path());
    let output = timeout(WALK_MAX, run(dir.path(), &script)).await.expect("within five minutes");
    let text = String::from_utf8_lossy(&output.stdout);
    let log = std::fs::read_to_string(dir.path().join("daemon.log")).unwrap_or_default();
    let context = format!("{text}\n{}\n{log}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("deploy v2: exit code 3"), "{context}");
    assert!(text.contains("rolled back from v2 to v1"), "the status: {context}");
    assert!(text.contains("## Timeline"), "the draft: {context}");
    // The client had failures, and none any more.
    let client = std::fs::read_to_string(dir.path().join("client.log")).unwrap();
    assert!(client.contains("isError: Cannot read properties of undefined"), "{client}");
    let lines = Vec::from_iter(client.lines().filter(|line| line.contains(" ok, ")));
    assert_eq!(lines.last(), Some(&"20 ok, 0 failed: Echo: hi"), "{client}");
}

/// The commands of README, with other addresses and folders.
fn walk(dir: &Path) -> String {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## Five minutes with a real server\n").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let mut script = String::new();
    for line in block.lines() {
        assert!(!line.contains("sudo"), "{line}");
        if line.starts_with("npm install ") {
            continue;
        }
        if line.starts_with("cargo build ") {
            script.push_str("export ROLLBACKD_CONFIG=config.toml\n");
            continue;
        }
        let line = line.replace("127.0.0.1", ADDRESS);
        let line = line.replace("/tmp/rollbackd", &dir.join("state").display().to_string());
        script.push_str(&line);
        script.push('\n');
        if line.starts_with("rollbackd deploy everything v2") {
            // Time for a line of the client that is good again.
            script.push_str("echo \"deploy v2: exit code $?\"; sleep 3\n");
        }
    }
    script
}

async fn run(dir: &Path, script: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_rollbackd"));
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let bash = Command::new("bash")
        .args(["-c", &format!("{script}\nwait")])
        .current_dir(dir)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    bash.unwrap().wait_with_output().await.unwrap()
}
