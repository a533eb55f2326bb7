//! Releases that end again and again, under a hundred requests a second: how long clients notice.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::crowd::Crowd;
use crate::host::Host;
use crate::template::{DEMO, GREEN, SETTINGS};
use crate::time::{epoch_ms, pause, soon};

/// From the first bad answer to the verdict, and to the last bad answer.
const FOUND_MAX: Duration = Duration::from_secs(2);
const BAD_MAX: Duration = Duration::from_secs(3);
/// A process of the unit that takes all the memory it can get, once it is told to.
const EATS: &str = "OOMPolicy=stop\nMemoryMax=100M\nMemorySwapMax=0\nExecStart=/bin/sh -c '\
    (while ! test -e /run/eat-%i; do sleep 0.05; done; exec tail /dev/zero) & \
    exec /usr/bin/rollbackd demo-server'\n";

/// Clients of v2 meet what `breaks` does to it, and v1 takes over.
fn hits(host: &Host, what: &str, deploy: impl FnOnce(), breaks: impl FnOnce()) -> String {
    host.deploy("v1", &["--wait"]).good();
    deploy();
    host.wait_for_phase("baking");
    let crowd = Crowd::start(host.listen, 20, 200);
    breaks();
    host.tells("detected");
    let told = host.tells("recovered");
    pause(Duration::from_secs(1));
    let seen = crowd.stop();
    println!("{what}:\n{told}");
    let failures = seen["failures"].as_array().unwrap();
    let ms =
        |text: &str| host.machine.sh(&format!("date -d {text} +%s%3N")).parse::<u64>().unwrap();
    // Each begins with its time.
    let at = |it: &Value| ms(it.as_str().unwrap().split_once(' ').unwrap().0);
    let bad: Vec<_> = failures.iter().map(at).collect();
    let (first, last) = (bad.iter().min().unwrap(), bad.iter().max().unwrap());
    let entries = host.run(&["rollbackd", "timeline", "weather", "--json"]).good().out;
    let entries = entries.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = entries.into_iter().find(|it| it["kind"] == "detected").unwrap();
    let found = ms(found["at"].as_str().unwrap()).saturating_sub(*first);
    let lasted = Duration::from_millis(last - first);
    println!(
        "{what}: first bad answer to verdict {found} ms, to last bad answer {} ms; {} of {} bad",
        lasted.as_millis(),
        bad.len(),
        seen["calls"].as_u64().unwrap() + bad.len() as u64
    );
    assert!(told.contains("v2 is down"), "{told}");
    assert!(Duration::from_millis(found) <= FOUND_MAX, "found after {found} ms");
    assert!(lasted <= BAD_MAX, "bad for {lasted:?}: {seen:#}");
    told
}

fn crash_loop(restart: &str) -> String {
    let host = Host::with_units(&format!("{restart}{DEMO}"), SETTINGS);
    let began = epoch_ms();
    // Late enough for its clients to be there.
    let deploy = || host.deploy_bad("v2", "crash-loop", 6_000);
    let what = format!("a crash loop, {:?}", restart.trim());
    let told = hits(&host, &what, deploy, || assert!(epoch_ms() < began + 6_000, "too late"));
    soon("v2 is stopped", || !host.is_up(GREEN));
    assert!(told.contains(&format!("{GREEN} ended: exit code 1")), "{told}");
    told
}

#[test]
fn a_crash_loop_is_left_within_seconds() {
    crash_loop("");
}

#[test]
fn a_crash_loop_that_systemd_keeps_going_is_left_within_seconds() {
    crash_loop("Restart=always\nRestartSec=100ms\nStartLimitIntervalSec=0\n");
}

#[test]
fn a_release_that_is_killed_for_lack_of_memory_is_left_within_seconds() {
    let host = Host::with_units(EATS, SETTINGS);
    let deploy = || host.deploy("v2", &[]).ends(0);
    let group = host.machine.inside().join("sys/fs/cgroup");
    let has_memory =
        fs::read_to_string(group.join("cgroup.controllers")).unwrap().contains("memory");
    let told = hits(
        &host,
        "lack of memory",
        || drop(deploy()),
        || {
            if has_memory {
                host.machine.sh("touch /run/eat-green");
            } else {
                killed_by_oomd(&host);
            }
        },
    );
    assert!(
        told.contains(&format!("{GREEN} ended: killed for lack of memory (oom-kill)")),
        "{told}"
    );
}

/// Where this machine does not let its hosts limit memory: what systemd-oomd does to a unit when memory
/// runs out, down to the mark by which systemd knows it.
fn killed_by_oomd(host: &Host) {
    let group = host
        .machine
        .inside()
        .join(format!("sys/fs/cgroup{}", host.property_of(GREEN, "ControlGroup")));
    for kills in 1..=2_u8 {
        if kills == 1 {
            soon("it runs", || {
                fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|it| !it.is_empty())
            });
        }
        // By then systemd has started it again.
        pause(Duration::from_millis(200));
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
