//! What the daemon costs while nothing happens, and how fast it acts; the numbers are printed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::{
    DaemonHarness, SERVICE, VersionPoller, free_port, memory_kib, serving_version, sleep,
    wait_until,
};

/// The length of the measurement.
const MEASURE_TIME: Duration = Duration::from_secs(10);
/// Clock ticks a second in /proc; the same on all Linux systems.
const TICKS_PER_SECOND: f64 = 100.0;

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

/// A daemon that may open 100 files, 34 of them for client connections.
fn with_few_files(service_lines: &str) -> DaemonHarness {
    let mut host = DaemonHarness::new(service_lines);
    let path = host.move_program();
    let target = fs::read_link(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let script = format!("#!/bin/sh\nulimit -n 100\nexec '{}' \"$@\"\n", target.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    host
}

/// Clients that hold more connections than this process may open: others are served, an operator gets
/// through, and no release is charged.
#[test]
fn a_low_limit_of_open_files_is_shared_out() {
    let host = with_few_files("");
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

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;

/// A connection from this address of loopback.
fn connect_from(host: &DaemonHarness, last: u8) -> TcpStream {
    let to: SocketAddr = ([127, 0, 0, 1], host.listen).into();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn post(body: &str, length: usize) -> String {
    format!("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Clients of this address that do not send the rest of a body. A refused one may be closed already.
fn slow_clients(host: &DaemonHarness, last: u8) -> Vec<TcpStream> {
    let slow = |_| {
        let mut stream = connect_from(host, last);
        let _ = stream.write_all(post("{", 100).as_bytes());
        stream
    };
    (0..60).map(slow).collect()
}

/// The status line of an answer to `initialize`; empty if the connection closed.
fn initialize_from(host: &DaemonHarness, last: u8) -> String {
    let mut stream = connect_from(host, last);
    let mut start = [0; 12];
    let sent = stream.write_all(post(INITIALIZE, INITIALIZE.len()).as_bytes());
    let read = sent.and_then(|()| stream.read_exact(&mut start));
    read.map_or_else(|_| String::new(), |()| String::from_utf8_lossy(&start).into_owned())
}

/// One address whose calls take long has all the connections that it can get: others are served.
#[test]
fn one_address_leaves_connections_to_others() {
    let host = with_few_files("trusted_proxies = []\n");
    let slow = slow_clients(&host, 2);
    for _ in 0..5 {
        assert_eq!(initialize_from(&host, 3), "HTTP/1.1 200");
    }
    drop(slow);
}

/// Clients of the same address are served as well, long before the slow ones have had their time. The second
/// time they are behind a proxy that names no client.
#[test]
fn slow_clients_make_room_for_others_of_their_address() {
    for lines in ["trusted_proxies = []\n", ""] {
        let host = with_few_files(lines);
        let mut slow = slow_clients(&host, 2);
        wait_until("a client is served", || initialize_from(&host, 2) == "HTTP/1.1 200");
        let is_open = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            stream.read(&mut [0; 12]).is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock)
        };
        assert!(slow.iter_mut().any(is_open), "the others keep their time");
        assert_eq!(host.status()["releases"][0]["counts"]["server_fault"], 0);
    }
}
