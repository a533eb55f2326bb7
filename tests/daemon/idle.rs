//! What the daemon costs while nothing happens, and how fast it acts; the numbers are printed.

use std::fs;
use std::time::Duration;

use crate::support::{Host, Load, SERVICE, free_port, pause};

/// How long the daemon is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Clock ticks a second in /proc; the same on all Linux systems.
const TICKS: f64 = 100.0;

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Processor time used so far, in seconds.
fn used_s(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = fields.split(' ').collect();
    let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().unwrap()).sum();
    ticks / TICKS
}

#[test]
fn idle_it_costs_little() {
    let mut host = Host::new("");
    let probe = "probe = { every = \"1s\" }";
    let mut text = host.daemon_section() + &host.service_section(SERVICE, probe);
    let ports = [free_port(), free_port(), free_port()];
    let other = format!(
        "{probe}\nlisten = \"127.0.0.1:{}\"\nslots = {{ blue = \"127.0.0.1:{}\", green = \"127.0.0.1:{}\" }}",
        ports[0], ports[1], ports[2]
    );
    text.push_str(&host.service_section("second", &other));
    host.write_config(&text);
    host.start();
    for service in [SERVICE, "second"] {
        host.verb(&["deploy", service, "v1", "--wait"]).expect(0);
        host.verb(&["deploy", service, "v2"]).expect(0);
    }
    host.wait_for_phase("baking");
    let before = used_s(host.pid());
    pause(LOOK);
    let percent = 100.0 * (used_s(host.pid()) - before) / LOOK.as_secs_f64();
    let kib = resident_kib(host.pid());
    println!("two services, four releases: {kib} KiB resident, {percent:.2} % of a core");
    assert!(kib < 25 * 1024, "{kib} KiB resident");
}

#[test]
fn a_rollback_acts_soon_after_it_was_decided() {
    let host = Host::with_v1("");
    let load = Load::start(host.listen);
    let mut waits = Vec::new();
    for deploy in 2..22 {
        host.deploy(&format!("v{deploy}"), &[]).expect(0);
        host.wait_for_phase("baking");
        host.verb(&["rollback", SERVICE, "--cut", "--because", "to see how fast"]).expect(0);
        let entries = host.entries(deploy);
        let at = entries.iter().position(|entry| entry.fact.kind() == "decided").unwrap();
        let switched = entries[at..].iter().find(|entry| entry.fact.kind() == "switched").unwrap();
        waits.push(switched.ms - entries[at].ms);
    }
    drop(load);
    waits.sort_unstable();
    let (median, max) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!(
        "decided -> switched over {} rollbacks: median {median} ms, max {max} ms",
        waits.len()
    );
    assert!(max < 5_000, "{waits:?}");
}
