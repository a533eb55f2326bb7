//! Releases that end again and again, under a hundred requests a second: how long clients notice.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::load_clients::LoadClients;
use crate::unit_template::{DEMO_SERVICE, GREEN_UNIT, SETTINGS};
use crate::wait::{epoch_ms, sleep, wait_until};

/// From the first bad answer to the verdict, and to the last bad answer.
const DETECTION_MAX: Duration = Duration::from_secs(2);
const FAILURES_MAX: Duration = Duration::from_secs(3);
/// A process of the unit that allocates all memory as soon as a file exists.
const MEMORY_HOG: &str = "OOMPolicy=stop\nMemoryMax=100M\nMemorySwapMax=0\nExecStart=/bin/sh -c '\
    (while ! test -e /run/eat-%i; do sleep 0.05; done; exec tail /dev/zero) & \
    exec /usr/bin/rollbackd demo-server'\n";

/// Breaks v2 under load, and waits until v1 has the traffic.
fn assert_rolled_back(
    host: &Host,
    what: &str,
    deploy: impl FnOnce(),
    breaks: impl FnOnce(),
) -> String {
    host.deploy("v1", &["--wait"]).expect_success();
    deploy();
    host.wait_for_phase("baking");
    let crowd = LoadClients::start(host.listen, 20, 200);
    breaks();
    host.wait_for_timeline("detected");
    let told = host.wait_for_timeline("recovered");
    sleep(Duration::from_secs(1));
    let seen = crowd.stop();
    println!("{what}:\n{told}");
    let failures = seen["failures"].as_array().unwrap();
    let ms =
        |text: &str| host.machine.shell(&format!("date -d {text} +%s%3N")).parse::<u64>().unwrap();
    // Each begins with its time.
    let at = |it: &Value| ms(it.as_str().unwrap().split_once(' ').unwrap().0);
    let bad: Vec<_> = failures.iter().map(at).collect();
    let (first, last) = (bad.iter().min().unwrap(), bad.iter().max().unwrap());
    let found = host.entry_ms("detected").saturating_sub(*first);
    let lasted = Duration::from_millis(last - first);
    println!(
        "{what}: first bad answer to verdict {found} ms, to last bad answer {} ms; {} of {} bad",
        lasted.as_millis(),
        bad.len(),
        seen["calls"].as_u64().unwrap() + bad.len() as u64
    );
    assert!(told.contains("v2 is down"), "{told}");
    assert!(Duration::from_millis(found) <= DETECTION_MAX, "found after {found} ms");
    assert!(lasted <= FAILURES_MAX, "bad for {lasted:?}: {seen:#}");
    told
}

fn crash_loop(restart: &str) -> String {
    let host = Host::with_units(&format!("{restart}{DEMO_SERVICE}"), SETTINGS);
    let began = epoch_ms();
    // Late enough for the clients to be connected.
    let deploy = || host.deploy_faulty("v2", "crash-loop", 6_000);
    let what = format!("a crash loop, {:?}", restart.trim());
    let told = assert_rolled_back(&host, &what, deploy, || {
        assert!(epoch_ms() < began + 6_000, "too late")
    });
    wait_until("v2 is stopped", || !host.is_active(GREEN_UNIT));
    assert!(told.contains(&format!("{GREEN_UNIT} ended: exit code 1")), "{told}");
    told
}

#[test]
fn crash_loop_is_rolled_back_within_seconds() {
    crash_loop("");
}

#[test]
fn crash_loop_restarted_by_systemd_is_rolled_back_within_seconds() {
    crash_loop("Restart=always\nRestartSec=100ms\nStartLimitIntervalSec=0\n");
}

#[test]
fn oom_killed_release_is_rolled_back_within_seconds() {
    let host = Host::with_units(MEMORY_HOG, SETTINGS);
    let deploy = || host.deploy("v2", &[]).expect_code(0);
    let group = host.machine.namespace_root().join("sys/fs/cgroup");
    let has_memory =
        fs::read_to_string(group.join("cgroup.controllers")).unwrap().contains("memory");
    let told = assert_rolled_back(
        &host,
        "lack of memory",
        || drop(deploy()),
        || {
            if has_memory {
                host.machine.shell("touch /run/eat-green");
            } else {
                mark_killed_by_oomd(&host);
            }
        },
    );
    assert!(
        told.contains(&format!("{GREEN_UNIT} ended: killed for lack of memory (oom-kill)")),
        "{told}"
    );
}

/// Where this machine does not let its hosts limit memory: what systemd-oomd does to a unit when memory
/// runs out, down to the mark by which systemd knows it.
fn mark_killed_by_oomd(host: &Host) {
    let group = host
        .machine
        .namespace_root()
        .join(format!("sys/fs/cgroup{}", host.property_of(GREEN_UNIT, "ControlGroup")));
    for kills in 1..=2_u8 {
        if kills == 1 {
            wait_until("it runs", || {
                fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|it| !it.is_empty())
            });
        }
        // By then systemd has started it again.
        sleep(Duration::from_millis(200));
        let count = kills.to_string();
        let mark = |name: &str| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&group, name, count.as_bytes(), flags)
        };
        // Before the kill: systemd takes the group away as soon as it is empty. The second time the
        // release may have been left and stopped already.
        let marked = mark("user.oomd_ooms").and_then(|()| mark("user.oomd_kill"));
        let killed = marked.is_ok() && fs::write(group.join("cgroup.kill"), "1").is_ok();
        assert!(killed || kills == 2, "{marked:?}");
    }
}
