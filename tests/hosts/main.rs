//! The daemon as a service of a real host: systemd boots it, with the units of the package.
//!
//! Needs root, systemd-nspawn and a system to boot; tests/run installs and makes them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic, and tell what it measured"
)]

mod cgroup;
mod containers;
mod crash_loop;
mod draft_output;
mod handover;
mod host;
mod load_clients;
mod loop_disk;
mod machine;
mod misconfigured_host;
#[path = "../daemon/support/ports.rs"]
mod ports;
mod power_loss;
mod preflight;
#[path = "../daemon/support/rng.rs"]
mod rng;
#[path = "../daemon/support/traffic.rs"]
mod traffic;
mod unit_template;
mod units;
#[path = "../daemon/support/wait.rs"]
mod wait;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use host::Host;
use load_clients::LoadClients;
use wait::{WAIT_MAX, epoch_ms, sleep, wait_for, wait_until};

#[test]
fn restart_under_load_loses_no_request_or_session() {
    let host = Host::boot("");
    host.deploy("v1", &["--wait"]).expect_success();
    let release = host.status()["releases"][0].clone();
    let crowd = LoadClients::start(host.listen, 10, 33);
    for _ in 0..3 {
        host.wait_for_requests(100);
        let (before, begun) = (host.property("MainPID"), epoch_ms());
        host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
        println!("the restart took {} ms", epoch_ms() - begun);
        assert_ne!(host.property("MainPID"), before);
    }
    host.wait_for_requests(100);
    let seen = crowd.stop();
    println!("{seen}");
    assert_eq!(seen["failures"], serde_json::json!([]), "{seen:#}");
    assert!(seen["calls"].as_u64().unwrap() > 1_000, "{seen}");
    assert!(seen["slow"].as_u64().unwrap() > 1, "{seen}");
    // The release never exited: the daemons adopted it three times.
    assert_eq!(host.status()["releases"][0]["version"], release["version"]);
    assert!(host.journal(&["ROLLBACKD_EVENT=noted"]).is_empty());
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    assert_eq!(host.run(&["sh", "-c", "grep -l demo-serve[r] /proc/[0-9]*/cmdline"]).out, "");
}

#[test]
fn journal_records_a_deploy() {
    let host = Host::boot("");
    assert_eq!(host.property("StatusText"), "weather: waits for a first deploy");
    host.deploy("v1", &["--wait"]).expect_success();
    wait_until("the status follows", || host.property("StatusText") == "weather: nothing on trial");
    host.deploy("v2", &[]).expect_success();
    wait_until("v2 bakes", || host.status()["phase"] == "baking");
    host.run(&["rollbackd", "rollback", "weather", "--because", "a test"]).expect_success();
    wait_until("it is over", || host.status()["phase"] == "steady");
    let entries = host.journal(&["ROLLBACKD_SERVICE=weather", "ROLLBACKD_DEPLOY=2"]);
    let get = |name: &str| -> Vec<_> {
        entries.iter().filter_map(|it| it[name].as_str()).map(str::to_owned).collect()
    };
    let kinds = get("ROLLBACKD_EVENT");
    assert_eq!(&kinds[..4], ["deployed", "ready", "switched", "detected"]);
    assert!(kinds.iter().any(|kind| kind == "recovered"), "{kinds:?}");
    let ids: BTreeSet<_> = get("MESSAGE_ID").into_iter().collect();
    assert_eq!(ids.len(), kinds.iter().collect::<BTreeSet<_>>().len(), "one for each kind");
    assert_eq!(get("ROLLBACKD_RELEASE").first().map(String::as_str), Some("v2"));
    assert!(get("PRIORITY").iter().all(|it| ("2"..="6").contains(&it.as_str())));
    assert!(get("ROLLBACKD_SEVERITY").contains(&"degraded".to_owned()), "{entries:#?}");
    host.run(&["journalctl", "--update-catalog"]).expect_success();
    let told = host
        .run(&["journalctl", "-x", "ROLLBACKD_EVENT=decided", "--no-pager"])
        .expect_success()
        .out;
    assert!(told.contains("goes back to the previous release"), "{told}");
    let command = ["systemd-analyze", "security", "rollbackd", "--threshold=15", "--no-pager"];
    let security = host.run(&command).expect_success().out;
    println!("{}", security.lines().last().unwrap_or_default());
}

#[test]
fn groups_control_read_and_write_access() {
    let host = Host::boot("");
    host.deploy("v1", &["--wait"]).expect_success();
    for (user, groups) in
        [("eve", ""), ("bob", "rollbackd"), ("alice", "rollbackd,rollbackd-admin")]
    {
        host.run(&["useradd", "--groups", groups, user]).expect_success();
    }
    let hold = ["rollbackd", "hold", "weather", "--because", "a test"];
    let stranger = host.run_as_user("eve", &["rollbackd", "status"]).expect_code(12);
    assert!(stranger.err.contains("usermod -aG rollbackd"), "{stranger:?}");
    host.run_as_user("bob", &["rollbackd", "status"]).expect_success();
    host.run_as_user("bob", &["rollbackd", "timeline", "weather"]).expect_success();
    let refused = host.run_as_user("bob", &hold).expect_code(12);
    assert!(refused.err.contains("the group rollbackd-admin"), "{refused:?}");
    host.run_as_user("alice", &hold).expect_success();
    let alice = host.run(&["id", "-u", "alice"]).out;
    let told = host.run(&["rollbackd", "timeline", "weather", "--json"]).expect_success().out;
    assert!(told.contains(&format!("\"uid\":{alice},")), "{told}");
    let modes = host.run(&["stat", "-c", "%a %U:%G", "/run/rollbackd/control.sock"]).out;
    assert_eq!(modes, "660 rollbackd:rollbackd");
    assert_eq!(host.run(&["stat", "-c", "%a", "/var/lib/rollbackd"]).out, "700");
    verbs_without_the_daemon_say_who_can_read(&host);
}

/// No group helps while no daemon runs, and no verb says that one would.
fn verbs_without_the_daemon_say_who_can_read(host: &Host) {
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    let verbs: [&[&str]; 7] = [
        &["status"],
        &["explain", "weather"],
        &["history", "weather"],
        &["incidents"],
        &["postmortem", "weather"],
        &["report"],
        &["timeline", "weather"],
    ];
    for verb in verbs {
        let command = [&["rollbackd"], verb].concat();
        for user in ["eve", "bob", "alice"] {
            let refused = host.run_as_user(user, &command).expect_code(8);
            let says = |what: &str| assert!(refused.err.contains(what), "{verb:?}: {refused:?}");
            says("systemctl start rollbackd");
            says("only its user and root may read the record in /var/lib/rollbackd");
            says("sudo rollbackd timeline");
        }
    }
    let record = host.run(&["rollbackd", "timeline", "weather"]).expect_success();
    assert!(record.out.contains("held"), "{record:?}");
    let hint = host.run(&["rollbackd", "history", "weather"]).expect_code(8).err;
    assert!(hint.contains("`rollbackd timeline SERVICE` reads the record from disk"), "{hint}");
}

#[test]
fn watchdog_restarts_a_hung_daemon() {
    let host = Host::boot("[Service]\nWatchdogSec=3\nTimeoutAbortSec=2\n");
    host.deploy("v1", &["--wait"]).expect_success();
    // Longer than the time of the watchdog: the daemon pings it.
    sleep(Duration::from_secs(5));
    assert_eq!(host.property("NRestarts"), "0");
    let (before, begun) = (host.property("MainPID"), epoch_ms());
    host.signal_daemon("STOP");
    host.wait_for_restart(&before);
    wait_until("it answers", || host.status()["active"] == "v1");
    println!("stuck to answering again: {} ms", epoch_ms() - begun);
    // A reload checks the configuration first, and reports its end.
    host.run(&["systemctl", "reload", "rollbackd"]).expect_success();
    wait_until("the reload is over", || host.property("ActiveState") == "active");
    let broken = "echo nonsense >>/etc/rollbackd/config.toml";
    host.run(&["sh", "-c", broken]).expect_success();
    assert_ne!(host.run(&["systemctl", "reload", "rollbackd"]).code, 0);
    assert_eq!(host.status()["active"], "v1");
}

#[test]
fn rollback_completes_after_sigkill() {
    let host = Host::boot("");
    host.deploy("v1", &["--wait"]).expect_success();
    host.deploy("v2", &[]).expect_success();
    wait_until("v2 bakes", || host.status()["phase"] == "baking");
    // Their sessions hold up the drain, for five seconds at most.
    let crowd = LoadClients::start(host.listen, 5, 50);
    let (before, order) = (host.property("MainPID"), ["--no-wait", "--because", "a test"]);
    host.run(&[&["rollbackd", "rollback", "weather"][..], &order].concat()).expect_success();
    wait_until("the drain", || host.status()["phase"] == "emptying");
    let begun = epoch_ms();
    host.signal_daemon("KILL");
    host.wait_for_restart(&before);
    wait_until("v1 has the traffic", || host.status()["active"] == "v1");
    println!("killed to going on: {} ms", epoch_ms() - begun);
    let complete = || {
        let told = host.run(&["rollbackd", "timeline", "weather"]).out;
        told.contains("recovered").then_some(told)
    };
    let told = wait_for(WAIT_MAX, "the rollback is complete", complete);
    println!("killed to complete: {} ms, of a drain of 5 s\n{told}", epoch_ms() - begun);
    assert!(told.contains("restored"), "{told}");
    drop(crowd);
}

#[test]
fn stop_waits_for_open_requests_and_extends_its_timeout() {
    let host = Host::boot("[Service]\nTimeoutStopSec=2\n");
    host.deploy("v1", &["--wait"]).expect_success();
    let port = host.listen;
    let call = std::thread::spawn(move || slow_call(port, 4_000));
    wait_until("it is open", || host.status()["releases"][0]["in_flight"] == 1);
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    let answer = call.join().unwrap().unwrap();
    assert!(answer.contains("done after 4000 ms"), "{answer}");
    assert_eq!(host.property("Result"), "success");
}

/// A call of the demo's slow tool. Returns the response, with its head.
fn slow_call(port: u16, ms: u32) -> std::io::Result<String> {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let params = format!(r#"{{"name":"slow","arguments":{{"ms":{ms}}},"_meta":{meta}}}"#);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: slow\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn socket_unit_passes_its_listener() {
    let host = Host::boot("");
    assert_eq!(host.property("NFileDescriptorStore"), "1", "left with systemd by the daemon");
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    let stream = format!(
        "mkdir /etc/systemd/system/rollbackd.socket.d && \
         printf '[Socket]\\nListenStream=\\nListenStream=127.0.0.1:{}\\nListenStream=127.0.0.1:{}\\n' \
         >/etc/systemd/system/rollbackd.socket.d/test.conf && systemctl daemon-reload",
        host.listen,
        ports::free_port()
    );
    host.run(&["sh", "-c", &stream]).expect_success();
    host.run(&["systemctl", "start", "rollbackd.socket", "rollbackd.service"]).expect_success();
    assert_eq!(host.property("NFileDescriptorStore"), "0", "systemd has it already");
    host.deploy("v1", &["--wait"]).expect_success();
    let crowd = LoadClients::start(host.listen, 2, 50);
    host.wait_for_requests(50);
    let seen = crowd.stop();
    assert_eq!(seen["failures"], serde_json::json!([]), "{seen:#}");
    let log = host.run(&["journalctl", "-u", "rollbackd", "-p", "warning", "-o", "cat"]).out;
    assert!(log.contains("no service listens on 127.0.0.1:"), "of the other address: {log}");
}

#[test]
fn unit_is_sandboxed() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/rollbackd.service");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--threshold=15", "--no-pager", unit]);
    let output = analyze.output().expect("systemd-analyze is not installed; run tests/run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{}", text.lines().last().unwrap_or_default());
    assert!(output.status.success(), "{text}");
}

/// The drop-in is that of the manual.
#[test]
fn releases_run_as_another_user_in_the_sandbox_of_the_unit() {
    let manual = include_str!("../../packaging/manual/systemd.md");
    let section = manual.split("### Releases as another user").nth(1).unwrap();
    let drop_in = section.split("# systemctl edit rollbackd\n").nth(1).unwrap();
    let host = Host::boot(drop_in.split("```").next().unwrap());
    host.machine.shell("useradd --system weather && groupadd shared && usermod -aG shared weather");
    let command = "runtime = \"command\"\ncommand = [\"/usr/bin/rollbackd\", \"demo-server\"]\n";
    host.deploy("v1", &["--wait"]).expect_success();
    host.configure("", &format!("{command}user = \"weather\"\nbake = \"10m\"\n"));
    host.run(&["systemctl", "reload", "rollbackd"]).expect_success();
    host.deploy("v2", &[]).expect_success();
    host.wait_for_phase("baking");
    // Of each release: who runs it, and with which capabilities.
    let files = "grep -lz '^demo-server$' /proc/[0-9]*/cmdline | sort -V";
    let of = format!(
        "for file in $({files}); do stat -c %U $file; \
         grep -E '^(Groups|CapEff|CapPrm|CapAmb|CapInh)' ${{file%cmdline}}status; done"
    );
    let none = "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 \
                CapAmb: 0000000000000000";
    let id = |what: &str| host.machine.shell(what);
    let groups = id("id -G weather");
    let own = id("id -G rollbackd");
    let shown: Vec<_> = host.machine.shell(&of).split_whitespace().map(str::to_owned).collect();
    let shown = shown.join(" ");
    let sorted = |groups: &str| {
        let mut all: Vec<u32> = groups.split(' ').map(|it| it.parse().unwrap()).collect();
        all.sort_unstable();
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        shown,
        format!(
            "rollbackd Groups: {} {none} weather Groups: {} {none}",
            sorted(&own),
            sorted(&groups)
        )
    );
    // The next daemon knows both, and a stop ends them.
    host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
    wait_until("it bakes on", || host.status()["phase"] == "baking");
    host.run(&["rollbackd", "rollback", "weather", "--because", "x"]).expect_success();
    host.wait_for_timeline("recovered");
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    assert_eq!(host.run(&["sh", "-c", files]).out, "");
}
