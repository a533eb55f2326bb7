//! A state folder without room: nothing is decided, and the traffic goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Host, Load, SERVICE, ask, soon};

/// A small file system of its own; it is unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"]).arg(at);
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let good = mounted.is_ok_and(|it| it.success());
        assert!(good, "a tmpfs can not be mounted; run the tests as root, in a namespace that may");
        Self(at.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let full = fs::write(self.ballast(), vec![0; 1024 * 1024]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _: std::io::Result<_> = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes that a file takes at once.
const PAGE: usize = 4096;

/// Writes the timeline of a deploy up to the end of a page, in which a line would find room.
fn pad(host: &Host, deploy: u32) {
    let path = host.state().join(SERVICE).join(format!("{deploy:06}.jsonl"));
    let turn = |reason: &str| {
        host.verb(&["hold", SERVICE, "--because", "h"]).expect(0);
        host.verb(&["resume", SERVICE, "--because", reason]).expect(0);
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
fn a_full_disk_stops_decisions_and_not_the_traffic() {
    let mut host = Host::new("bake = \"5s\"");
    let disk = Disk::mount(&host.state());
    host.start();
    host.deploy("v1", &["--wait"]).expect(0);
    pad(&host, 1);
    let written = host.kinds(1);
    let load = Load::start(host.listen);
    disk.fill();
    let full = ["failed to write the timeline, nothing is decided", "No space left"];
    host.deploy("v2", &["--wait"]).expect(1).says(&full);
    host.verb(&["hold", SERVICE]).expect(1).says(&full);
    host.verb(&["status"]).expect(0).says(&["TROUBLE: failed to write the timeline"]);
    assert_eq!(host.phase(), "steady");
    assert!(host.running().iter().all(|it| it.number == 1));
    assert!(host.log().contains("page=true"), "nobody was paged");
    assert_eq!(host.kinds(1), written);

    // A start with a full disk: the traffic goes where it went.
    let seen = load.stop();
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    let v1 = host.process(1);
    host.kill();
    host.start();
    soon("v1 answers again", || ask(host.listen) == Ok("v1".to_owned()));
    assert_eq!(host.process(1), v1);
    soon("the trouble", || host.status()["trouble"].is_string());

    disk.free();
    host.deploy("v2", &["--wait"]).expect(0);
    assert_eq!(ask(host.listen), Ok("v2".to_owned()));
    assert!(host.status()["trouble"].is_null());
    let entries = host.entries(2);
    let seq: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seq, [1, 2, 3, 4], "{entries:#?}");
    assert_eq!(host.stop(), 0);
    drop(disk);
}

#[test]
fn a_breach_that_can_not_be_written_down_is_acted_on_once_it_can() {
    let mut host = Host::new("");
    let disk = Disk::mount(&host.state());
    host.start();
    host.deploy("v1", &["--wait"]).expect(0);
    let load = Load::start(host.listen);
    let deploy = host.begin_bad("v2", "total", 5_000, &["--wait"]);
    host.wait_for_phase("baking");
    pad(&host, 2);
    disk.fill();
    soon("the trouble", || host.status()["trouble"].is_string());
    assert_eq!(host.phase(), "baking");
    disk.free();
    deploy.done().expect(3);
    drop(load);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
    assert!(host.log().contains("the timeline can be written again"));
    let seq: Vec<_> = host.entries(2).iter().map(|entry| entry.seq).collect();
    let gapless: Vec<_> = (1..).take(seq.len()).collect();
    assert_eq!(seq, gapless);
    host.stop();
    drop(disk);
}
