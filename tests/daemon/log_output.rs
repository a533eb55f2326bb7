//! The log cannot be written: the daemon guards and answers as before, and says how much is lost.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Stdio;

use crate::support::{DaemonHarness, SERVICE, VersionPoller, serving_version, wait_until};

/// Starts with this standard error: a release that fails is rolled back, verbs are answered, and SIGTERM
/// ends the daemon. Returns how many messages were lost.
fn guards_with(stderr: Stdio) -> u64 {
    let mut host = DaemonHarness::new("");
    host.start_with_stderr(stderr);
    host.deploy("v1", &["--wait"]).expect_code(0);
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 4_000, &[]).expect_code(3);
    drop(load);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    for _ in 0..10 {
        host.run_cli(&["hold", SERVICE, "--because", &"x".repeat(1_000)]).expect_code(0);
        host.run_cli(&["resume", SERVICE, "--because", &"y".repeat(1_000)]).expect_code(0);
    }
    let lost = host.status()["journal_lost"].as_u64().unwrap_or_default();
    assert_eq!(host.stop(), 0);
    lost
}

#[test]
fn a_full_disk_behind_the_log_stops_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(guards_with(full.into()) > 0);
}

#[test]
fn a_reader_of_the_log_that_is_gone_stops_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(guards_with(writer.into()) > 0);
}

#[test]
fn a_reader_of_the_log_that_does_not_read_stops_nothing() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // The capacity of a pipe: the first line of the daemon finds no room.
    writer.write_all(&[b'\n'; 64 * 1024]).unwrap();
    guards_with(writer.into());
    drop(reader);
}

#[test]
fn a_closed_standard_error_stops_nothing() {
    let mut host = DaemonHarness::new("");
    host.start_with_stderr(Stdio::null());
    wait_until("the status", || host.phase() == "empty");
    assert_eq!(host.stop(), 0);
}
