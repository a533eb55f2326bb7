//! A state directory on a full disk: the daemon decides nothing, and the traffic continues.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{DaemonHarness, SERVICE, VersionPoller, serving_version, wait_until};

/// A small file system of its own; it is unmounted at the end.
struct TmpfsDisk(PathBuf);

impl TmpfsDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"]).arg(at);
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let good = mounted.is_ok_and(|it| it.success());
        assert!(good, "mount of a tmpfs failed; run the tests as root");
        Self(at.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills the disk to the last byte.
    fn fill_up(&self) {
        let full = fs::write(self.filler(), vec![0; 1024 * 1024]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free_space(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for TmpfsDisk {
    fn drop(&mut self) {
        let _: std::io::Result<_> = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

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
    let disk = TmpfsDisk::mount(&host.state());
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
    assert!(host.log().contains("page=true"), "the operator was not paged");
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
    host.deploy("v2", &["--wait"]).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v2".to_owned()));
    assert!(host.status()["trouble"].is_null());
    let entries = host.entries(2);
    let seq: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seq, [1, 2, 3, 4], "{entries:#?}");
    assert_eq!(host.stop(), 0);
    drop(disk);
}

#[test]
fn unrecorded_breach_is_acted_on_when_the_disk_has_space() {
    let mut host = DaemonHarness::new("");
    let disk = TmpfsDisk::mount(&host.state());
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    let load = VersionPoller::start(host.listen);
    let deploy = host.spawn_faulty_deploy("v2", "total", 5_000, &["--wait"]);
    host.wait_for_phase("baking");
    pad_to_page(&host, 2);
    disk.fill_up();
    wait_until("the trouble", || host.status()["trouble"].is_string());
    assert_eq!(host.phase(), "baking");
    disk.free_space();
    deploy.wait().expect_code(3);
    drop(load);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    assert!(host.log().contains("the timeline is writable again"));
    let seq: Vec<_> = host.entries(2).iter().map(|entry| entry.seq).collect();
    let gapless: Vec<_> = (1..).take(seq.len()).collect();
    assert_eq!(seq, gapless);
    host.stop();
    drop(disk);
}
