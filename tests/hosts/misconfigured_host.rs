//! Faults of a host: the message for the operator, and no effect on clients.

use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::machine::{CommandOutput, Machine};
use crate::traffic::{VersionPoller, serving_version};
use crate::unit_template::{ARTIFACT_SERVICE, BLUE_UNIT, DEMO_SERVICE, GREEN_UNIT, SETTINGS};
use crate::wait::{WAIT_MAX, sleep, wait_for, wait_until};

/// A deploy that fails with its reason; v1 keeps the traffic.
#[track_caller]
fn assert_deploy_fails(host: &Host, version: &str, why: &str) {
    let done = host.deploy(version, &["--wait"]).expect_code(4);
    assert!(done.out.contains(why) || done.err.contains(why), "not {why:?} in {done:#?}");
    assert_still_serving(host);
}

#[track_caller]
fn assert_still_serving(host: &Host) {
    assert_eq!(host.status()["active"], "v1");
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn unit_errors_name_the_fix() {
    let host = Host::with_units(DEMO_SERVICE, SETTINGS);
    let template = "/etc/systemd/system/mcp-weather@.service";
    let without = |what: &str| host.machine.shell(&format!("{what} && systemctl daemon-reload"));
    without(&format!("mv {template} /root/template"));
    let done = host.deploy("v0", &["--wait"]).expect_code(4);
    done.expect_text(&format!(
        "failed to start {BLUE_UNIT}: Unit {BLUE_UNIT} not found; install {template}, then `systemctl daemon-reload`"
    ));
    without(&format!("mv /root/template {template}"));
    host.deploy("v1", &["--wait"]).expect_success();
    let load = VersionPoller::start(host.listen);
    host.run(&["systemctl", "mask", GREEN_UNIT]).expect_success();
    assert_deploy_fails(
        &host,
        "v2",
        &format!("Unit {GREEN_UNIT} is masked; `systemctl unmask {GREEN_UNIT}`"),
    );
    host.run(&["systemctl", "unmask", GREEN_UNIT]).expect_success();
    host.write_template("EnvironmentFile=\nEnvironmentFile=/etc/fixed.env\nExecStart=/bin/false\n");
    let reads = format!(
        "{GREEN_UNIT} does not read /var/lib/rollbackd/weather/green.env, so every slot would be the same \
         release; add EnvironmentFile=/var/lib/rollbackd/weather/%i.env to [Service] of the template, \
         then `systemctl daemon-reload`"
    );
    assert_deploy_fails(&host, "v3", &reads);
    host.write_template("");
    assert_deploy_fails(&host, "v4", &format!("see `systemd-analyze verify {GREEN_UNIT}`"));
    host.write_template("ExecStart=/opt/nowhere\n");
    assert_deploy_fails(&host, "v5", &format!("{GREEN_UNIT} ended: exit code 203"));
    host.write_template(DEMO_SERVICE);
    host.deploy("v6", &[]).expect_success();
    host.wait_for_phase("baking");
    host.rollback(&[]);
    assert_eq!(load.stop().bad, Vec::<String>::new());
}

#[test]
fn missing_polkit_blocks_starts_but_not_traffic_switches() {
    let host = Host::with_units(DEMO_SERVICE, SETTINGS);
    host.deploy("v1", &["--wait"]).expect_success();
    let load = VersionPoller::start(host.listen);
    let rule = "/usr/share/polkit-1/rules.d/rollbackd.rules";
    host.machine.shell(&format!("mv {rule} /root/rule"));
    let refused = format!(
        "failed to start {GREEN_UNIT}: Interactive authentication required; polkit lets the daemon act only on the units of its configuration: polkitd must \
         run with {rule}, and `rollbackd check --manages {GREEN_UNIT}` must succeed"
    );
    // polkitd notices a moment later that the rule is gone.
    sleep(Duration::from_secs(1));
    assert_deploy_fails(&host, "v2", &refused);
    host.run(&["rollbackd", "check", "--manages", GREEN_UNIT, "/etc/rollbackd/config.toml"])
        .expect_success();
    host.run(&["rollbackd", "check", "--manages", "ssh.service", "/etc/rollbackd/config.toml"])
        .expect_code(1);
    host.machine.shell(&format!("mv /root/rule {rule}"));
    sleep(Duration::from_secs(1));
    host.deploy("v3", &[]).expect_success();
    host.wait_for_phase("baking");
    host.machine.shell("systemctl mask --now --quiet polkit.service");
    host.rollback(&["--cut"]);
    wait_until("v1 has the traffic", || host.status()["active"] == "v1");
    host.wait_for_timeline("recovered");
    host.wait_for_log(&format!(
        "failed to stop {GREEN_UNIT}: Unit polkit.service is masked; polkit lets the daemon act only on \
         the units of its configuration: polkitd must run with"
    ));
    host.machine.shell("systemctl unmask --quiet polkit.service");
    assert_eq!(load.stop().bad, Vec::<String>::new());
}

#[test]
fn missing_dbus_blocks_starts_but_not_traffic_switches() {
    let host = Host::with_units(DEMO_SERVICE, SETTINGS);
    host.deploy("v1", &["--wait"]).expect_success();
    host.deploy("v2", &[]).expect_success();
    host.wait_for_phase("baking");
    let load = VersionPoller::start(host.listen);
    let run = host.invocation(BLUE_UNIT);
    let stop = "systemctl stop dbus.socket dbus.service";
    host.machine.shell(stop);
    host.rollback(&["--cut"]);
    wait_until("v1 has the traffic", || host.status()["active"] == "v1");
    host.wait_for_timeline("recovered");
    let absent = "D-Bus does not answer (";
    let help = "D-Bus must run: install dbus, and see `systemctl status dbus`";
    let done = host.deploy("v3", &["--wait"]).expect_code(4);
    done.expect_text("failed to ").expect_text(help);
    host.wait_for_log(absent);
    assert_still_serving(&host);
    assert_eq!(load.stop().bad, Vec::<String>::new());
    // A daemon that starts without it serves the running releases.
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    host.run(&["systemctl", "start", "rollbackd"]).expect_success();
    wait_until("v1 answers", || serving_version(host.listen) == Ok("v1".to_owned()));
    host.wait_for_log("cannot follow the unit");
    host.machine.shell("systemctl start dbus.socket dbus.service");
    // The daemon watches it again, and did not restart it.
    assert_eq!(host.invocation(BLUE_UNIT), run);
    sleep(Duration::from_secs(3));
    host.machine.shell(&format!("kill -KILL $(systemctl show {BLUE_UNIT} --value -p MainPID)"));
    host.wait_for_timeline(&format!("{BLUE_UNIT} ended: killed by signal 9"));
    wait_until("v1 answers", || serving_version(host.listen) == Ok("v1".to_owned()));
    host.deploy("v4", &[]).expect_success();
    host.wait_for_phase("baking");
}

#[test]
fn stalled_or_full_journal_does_not_block() {
    let host = Host::with_units(DEMO_SERVICE, SETTINGS);
    host.deploy("v1", &["--wait"]).expect_success();
    host.machine.shell("systemctl kill --kill-who=main --signal=STOP systemd-journald");
    host.deploy_faulty("v2", "total", 2_000);
    host.wait_for_phase("baking");
    let load = VersionPoller::start(host.listen);
    host.wait_for_timeline("recovered");
    load.stop();
    host.machine.shell("systemctl kill --kill-who=main --signal=CONT systemd-journald");
    assert_still_serving(&host);
    let lost = host.status()["journal_lost"].clone();
    println!("stopped: {lost} messages lost\n{}", host.timeline());
    host.machine.shell("(yes flood | timeout 8 systemd-cat) >/dev/null 2>&1 &");
    host.deploy_faulty("v3", "total", 2_000);
    host.wait_for_phase("baking");
    let load = VersionPoller::start(host.listen);
    let told = host.wait_for_timeline("recovered");
    load.stop();
    assert_still_serving(&host);
    println!("flooded: {} messages lost in all\n{told}", host.status()["journal_lost"]);
    let kinds = |deploy: &str| {
        let entries = host.journal(&["ROLLBACKD_SERVICE=weather", deploy]);
        entries.iter().filter_map(|it| it["ROLLBACKD_EVENT"].as_str()).count()
    };
    println!("in the journal: {} and {}", kinds("ROLLBACKD_DEPLOY=2"), kinds("ROLLBACKD_DEPLOY=3"));
}

#[test]
fn second_daemon_missing_socket_unit_and_full_disk_do_not_interrupt_service() {
    let host = Host::installed_with_units(Machine::boot_with_disk(16), DEMO_SERVICE, SETTINGS);
    host.run(&["systemctl", "enable", "--now", "rollbackd"]).expect_success();
    host.deploy("v1", &["--wait"]).expect_success();
    let load = VersionPoller::start(host.listen);
    let second = host.run_as_user("rollbackd", &["rollbackd", "run", "/etc/rollbackd/config.toml"]);
    println!("{second:?}");
    second.expect_code(10).expect_text("/var/lib/rollbackd");
    assert_still_serving(&host);
    host.machine.shell("rm /lib/systemd/system/rollbackd.socket && systemctl daemon-reload");
    host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
    assert_still_serving(&host);
    let full =
        || host.machine.run(&["dd", "if=/dev/zero", "of=/var/lib/rollbackd/ballast", "bs=4k"]);
    full().expect_code(1);
    let refused = host.deploy("v2", &["--wait"]);
    println!("{refused:?}");
    assert_ne!(refused.code, 0);
    refused
        .expect_text("cannot write the timeline, so no decision is made")
        .expect_text("No space left on device");
    assert_eq!(load.stop().bad, Vec::<String>::new());
    // The unit of the active release dies.
    host.machine.shell(&format!("kill -KILL $(systemctl show {BLUE_UNIT} --value -p MainPID)"));
    wait_until("v1 is started again", || serving_version(host.listen) == Ok("v1".to_owned()));
    host.machine.shell("rm /var/lib/rollbackd/ballast");
    host.deploy("v3", &[]).expect_success();
    host.wait_for_phase("baking");
    host.rollback(&["--cut"]);
    host.wait_for_phase("steady");
    assert_still_serving(&host);
}

#[test]
fn changed_artifact_blocks_rollback_unless_forced() {
    let host = Host::with_units(ARTIFACT_SERVICE, SETTINGS);
    let [v1, v2] = ["v1", "v2"].map(|version| host.install_artifact(version));
    host.deploy("v1", &["--artifact", &v1, "--wait"]).expect_success();
    host.deploy("v2", &["--artifact", &v2]).expect_success();
    host.wait_for_phase("baking");
    host.machine.shell("cd /opt/weather/v1 && cp server new && echo x >>new && mv new server");
    let order = ["rollbackd", "rollback", "weather", "--because", "a test"];
    let refused = host.run(&order);
    println!("{refused:?}");
    refused
        .expect_code(11)
        .expect_text("/opt/weather/v1 changed since the deploy: recorded tree-sha256:");
    let told = host.timeline();
    println!("{told}");
    for what in [", now tree-sha256:", "newest file in it: server", "the traffic stays on v2"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert_eq!(host.status()["active"], "v2");
    let pages = host.journal(&["PRIORITY=2"]);
    let says = |it: &&Value| it["MESSAGE"].as_str().is_some_and(|it| it.contains("changed since"));
    assert!(pages.iter().any(|it| says(&it)), "{pages:#?}");
    // A daemon that starts reports it, too.
    let before = pages.len();
    host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
    wait_until("the error is reported again", || before < host.journal(&["PRIORITY=2"]).len());
    let insists: CommandOutput = host.run(&[&order[..], &["--force"]].concat());
    insists.expect_success();
    wait_for(WAIT_MAX, "v1 has the traffic", || (host.status()["active"] == "v1").then_some(()));
}
