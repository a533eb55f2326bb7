//! `rollbackd check --host` before the first start, behind a socket unit, and after a stop.

use serde_json::Value;

use crate::host::Host;
use crate::unit_template::{DEMO_SERVICE, SETTINGS};

/// What the user of the daemon is told, as JSON, with the errors alone.
fn errors(host: &Host) -> Vec<Value> {
    let command = ["rollbackd", "check", "--host", "--json", "/etc/rollbackd/config.toml"];
    let done = host.run_as_user("rollbackd", &command);
    let findings: Vec<Value> =
        done.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(findings.iter().any(|it| it["code"] == "host-port"), "{done:#?}");
    findings.into_iter().filter(|it| it["level"] == "error").collect()
}

#[test]
fn a_host_is_checked_before_the_start_and_after_a_stop() {
    let host = Host::with_units(DEMO_SERVICE, SETTINGS);
    host.deploy("v1", &["--wait"]).expect_success();
    assert_eq!(errors(&host), [Value::Null; 0], "while the daemon runs");
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    assert_eq!(errors(&host), [Value::Null; 0], "after a stop");
    let socket = format!("[Socket]\nListenStream=\nListenStream=127.0.0.1:{}\n", host.listen);
    host.machine.write("etc/systemd/system/rollbackd.socket.d/test.conf", &socket);
    host.machine.shell("systemctl daemon-reload && systemctl start rollbackd.socket");
    assert_eq!(errors(&host), [Value::Null; 0], "with the socket unit");
    host.machine.shell("rm -r /var/lib/rollbackd && systemctl stop rollbackd.socket");
    assert_eq!(errors(&host), [Value::Null; 0], "before the first start");
    host.machine.shell("rm /etc/systemd/system/mcp-weather@.service && systemctl daemon-reload");
    let errors = errors(&host);
    assert!(errors.iter().any(|it| it["code"] == "host-unit"), "{errors:#?}");
    host.machine.shell("systemctl start rollbackd");
}
