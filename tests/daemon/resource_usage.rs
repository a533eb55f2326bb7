//! What the daemon costs while nothing happens, and how fast it acts; the numbers are printed.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::{
    DaemonHarness, SERVICE, VersionPoller, free_port, serving_version, sleep, wait_until,
};

/// The length of the measurement.
const MEASURE_TIME: Duration = Duration::from_secs(10);
/// Clock ticks a second in /proc; the same on all Linux systems.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory in KiB, by a name of /proc/PID/status.
fn memory_kib(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Processor time used so far, in seconds.
fn cpu_seconds(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = fields.split(' ').collect();
    let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

#[test]
fn idle_daemon_uses_little_memory_and_cpu() {
    let mut host = DaemonHarness::new("");
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
        host.run_cli(&["deploy", service, "v1", "--wait"]).expect_code(0);
        host.run_cli(&["deploy", service, "v2"]).expect_code(0);
    }
    host.wait_for_phase("baking");
    let before = cpu_seconds(host.pid());
    sleep(MEASURE_TIME);
    let percent = 100.0 * (cpu_seconds(host.pid()) - before) / MEASURE_TIME.as_secs_f64();
    // The rest is the program, which is twice as large without optimization.
    let [own, resident] = ["RssAnon", "VmRSS"].map(|name| memory_kib(host.pid(), name));
    println!(
        "two services, four releases: {own} KiB of its own, {resident} KiB resident, {percent:.2} % \
         of a core"
    );
    assert!(own < 8 * 1024, "{own} KiB of its own");
}

#[test]
fn rollback_switches_soon_after_the_decision() {
    let host = DaemonHarness::with_v1("");
    let load = VersionPoller::start(host.listen);
    let mut waits = Vec::new();
    for deploy in 2..22 {
        host.deploy(&format!("v{deploy}"), &[]).expect_code(0);
        host.wait_for_phase("baking");
        host.run_cli(&["rollback", SERVICE, "--cut", "--because", "to see how fast"])
            .expect_code(0);
        let entries = host.entries(deploy);
        let at = entries.iter().position(|entry| entry.event.kind() == "decided").unwrap();
        let switched = entries[at..].iter().find(|entry| entry.event.kind() == "switched").unwrap();
        waits.push(switched.since_deploy_ms - entries[at].since_deploy_ms);
    }
    drop(load);
    waits.sort_unstable();
    let (median, max) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!(
        "decided -> switched over {} rollbacks: median {median} ms, max {max} ms",
        waits.len()
    );
}

/// Clients that hold more connections than this process may open: others are served, an operator gets
/// through, and no release is charged.
#[test]
fn a_low_limit_of_open_files_is_shared_out() {
    let mut host = DaemonHarness::new("");
    let path = host.move_program();
    let target = fs::read_link(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let script = format!("#!/bin/sh\nulimit -n 100\nexec '{}' \"$@\"\n", target.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    assert!(
        host.log().contains("the limit of open files is 100: at most 34 client"),
        "{}",
        host.log()
    );
    let idle: Vec<_> =
        (0..90).map(|_| TcpStream::connect(("127.0.0.1", host.listen)).unwrap()).collect();
    for _ in 0..20 {
        wait_until("a client is served", || serving_version(host.listen).is_ok());
        host.run_cli(&["status"]).expect_code(0);
    }
    assert_eq!(host.status()["releases"][0]["counts"]["server_fault"], 0);
    drop(idle);
}
