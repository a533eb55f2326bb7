//! A state directory on a full disk: the daemon decides nothing, and the traffic continues.

use std::fs;

use crate::support::{
    DaemonHarness, SERVICE, TmpfsDisk, VersionPoller, serving_version, wait_until,
};

/// The size of the disk.
const DISK_KIB: usize = 256;

/// The allocation unit of a file, in bytes.
const PAGE: usize = 4096;

/// Writes the timeline of a deploy up to the end of a page, in which a line would find room.
fn pad_to_page(host: &DaemonHarness, deploy: u32) {
    let path = host.state().join(SERVICE).join(format!("{deploy:06}.jsonl"));
    let turn = |reason: &str| {
        host.run_cli(&["hold", SERVICE, "--because", "h"]).expect_code(0);
        host.run_cli(&["resume", SERVICE, "--because", reason]).expect_code(0);
        fs::read(&path).unwrap().len()
    };
    let before = fs::read(&path).unwrap().len();
    let after = turn("r");
    // Numbers grow by a digit or two.
    let least = after + (after - before) + 30;
    let length = turn(&"r".repeat(least.next_multiple_of(PAGE) - least));
    assert!(PAGE - length % PAGE < 100, "{length} bytes");
}

#[test]
fn full_disk_stops_decisions_but_not_traffic() {
    let mut host = DaemonHarness::new("bake = \"5s\"");
    let disk = TmpfsDisk::mount(&host.state(), DISK_KIB);
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    pad_to_page(&host, 1);
    let written = host.kinds(1);
    let load = VersionPoller::start(host.listen);
    disk.fill_up();
    let full = ["cannot write the timeline, so no decision is made", "No space left"];
    host.deploy("v2", &["--wait"]).expect_code(1).expect_text(&full);
    host.run_cli(&["hold", SERVICE]).expect_code(1).expect_text(&full);
    host.run_cli(&["status"]).expect_code(0).expect_text(&["ERROR: cannot write the timeline"]);
    assert_eq!(host.phase(), "steady");
    assert!(host.release_processes().iter().all(|it| it.number == 1));
    wait_until("a page", || host.log().contains("page=true"));
    assert_eq!(host.kinds(1), written);

    // A start with a full disk: the routes stay as they were.
    let seen = load.stop();
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    let v1 = host.release_process(1);
    host.kill();
    host.start();
    wait_until("v1 answers again", || serving_version(host.listen) == Ok("v1".to_owned()));
    assert_eq!(host.release_process(1), v1);
    wait_until("the trouble", || host.status()["trouble"].is_string());

    disk.free_space();
    host.deploy("v2", &["--wait"]).expect_code(13);
    assert_eq!(serving_version(host.listen), Ok("v2".to_owned()));
    assert!(host.status()["trouble"].is_null());
    let entries = host.entries(2);
    let seq: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seq, [1, 2, 3, 4], "{entries:#?}");
    assert_eq!(host.stop(), 0);
    drop(disk);
}

#[test]
fn a_breach_on_a_full_disk_is_rolled_back_and_recorded_in_the_reserved_space() {
    let mut host = DaemonHarness::new("");
    let disk = TmpfsDisk::mount(&host.state(), DISK_KIB);
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    let load = VersionPoller::start(host.listen);
    let deploy = host.spawn_faulty_deploy("v2", "total", 5_000, &["--wait"]);
    host.wait_for_phase("baking");
    pad_to_page(&host, 2);
    disk.fill_up();
    deploy.wait().expect_code(3);
    drop(load);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    assert_gapless(&host, 2);
    let kinds = host.kinds(2);
    for kind in ["detected", "decided", "switched", "recovered"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    host.run_cli(&["hold", SERVICE]).expect_code(1).expect_text(&["No space left"]);
    // The incident waits for space, and its facts are still those of the rollback.
    disk.free_space();
    let draft = || host.run_cli(&["postmortem", SERVICE, "2"]).out;
    wait_until("a draft", || draft().contains("State: draft"));
    assert!(draft().contains("v2 rolled back to v1"), "{}", draft());
    host.stop();
    drop(disk);
}

fn assert_gapless(host: &DaemonHarness, deploy: u32) {
    let seq: Vec<_> = host.entries(deploy).iter().map(|entry| entry.seq).collect();
    let gapless: Vec<_> = (1..).take(seq.len()).collect();
    assert_eq!(seq, gapless);
}

/// Makes every write of the daemon to a file fail, or lets them succeed again.
fn limit_files(host: &DaemonHarness, bytes: Option<u64>) {
    let pid = rustix::process::Pid::from_raw(host.pid());
    let limit = rustix::process::Rlimit { current: bytes, maximum: None };
    rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
}

#[test]
fn going_back_wins_where_nothing_can_be_written_and_is_recorded_late() {
    let host = DaemonHarness::with_v1("");
    let load = VersionPoller::start(host.listen);
    host.spawn_faulty_deploy("v2", "total", 4_000, &[]).wait().expect_code(0);
    host.wait_for_phase("baking");
    limit_files(&host, Some(0));
    host.run_cli(&["hold", SERVICE]).expect_code(1).expect_text(&["cannot write the timeline"]);
    wait_until("v1 has the traffic", || host.status()["active"] == "v1");
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    assert!(host.status()["trouble"].is_string());
    assert!(!host.kinds(2).contains(&"detected"), "{:?}", host.kinds(2));
    drop(load);

    limit_files(&host, None);
    wait_until("the record", || host.status()["trouble"].is_null());
    wait_until("recovery", || host.phase() == "steady");
    assert_gapless(&host, 2);
    let entries = host.entries(2);
    for kind in ["detected", "decided", "switched"] {
        let entry = entries.iter().rfind(|entry| entry.event.kind() == kind).unwrap();
        assert!(entry.because.contains("recorded late"), "{}", entry.because);
    }
    assert!(entries.is_sorted_by_key(|entry| entry.moment));
}
