//! What can be wrong with a host: what the operator is told, and that clients notice nothing of it.

use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::machine::{Done, Machine};
use crate::template::{BLUE, DEMO, GREEN, SEALED, SETTINGS};
use crate::time::{pause, soon, until};
use crate::web::{Load, ask};

/// A deploy that comes to nothing and says why; v1 goes on.
#[track_caller]
fn fails(host: &Host, version: &str, why: &str) {
    let done = host.deploy(version, &["--wait"]).ends(4);
    assert!(done.out.contains(why) || done.err.contains(why), "not {why:?} in {done:#?}");
    goes_on(host);
}

#[track_caller]
fn goes_on(host: &Host) {
    assert_eq!(host.status()["active"], "v1");
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn what_is_wrong_with_a_unit_is_said_with_what_helps() {
    let host = Host::with_units(DEMO, SETTINGS);
    let template = "/etc/systemd/system/mcp-weather@.service";
    let without = |what: &str| host.machine.sh(&format!("{what} && systemctl daemon-reload"));
    without(&format!("mv {template} /root/template"));
    let done = host.deploy("v0", &["--wait"]).ends(4);
    done.says(&format!(
        "failed to start {BLUE}: Unit {BLUE} not found; install {template}, then `systemctl daemon-reload`"
    ));
    without(&format!("mv /root/template {template}"));
    host.deploy("v1", &["--wait"]).good();
    let load = Load::start(host.listen);
    host.run(&["systemctl", "mask", GREEN]).good();
    fails(&host, "v2", &format!("Unit {GREEN} is masked; `systemctl unmask {GREEN}`"));
    host.run(&["systemctl", "unmask", GREEN]).good();
    host.template("EnvironmentFile=\nEnvironmentFile=/etc/fixed.env\nExecStart=/bin/false\n");
    let reads = format!(
        "{GREEN} does not read /var/lib/rollbackd/weather/green.env, so every slot would be the same \
         release; add EnvironmentFile=/var/lib/rollbackd/weather/%i.env to [Service] of the template, \
         then `systemctl daemon-reload`"
    );
    fails(&host, "v3", &reads);
    host.template("");
    fails(&host, "v4", &format!("see `systemd-analyze verify {GREEN}`"));
    host.template("ExecStart=/opt/nowhere\n");
    fails(&host, "v5", &format!("{GREEN} ended: exit code 203"));
    host.template(DEMO);
    host.deploy("v6", &[]).good();
    host.wait_for_phase("baking");
    host.roll_back(&[]);
    assert_eq!(load.stop().bad, Vec::<String>::new());
}

#[test]
fn without_polkit_nothing_is_started_and_traffic_moves_all_the_same() {
    let host = Host::with_units(DEMO, SETTINGS);
    host.deploy("v1", &["--wait"]).good();
    let load = Load::start(host.listen);
    let rule = "/usr/share/polkit-1/rules.d/rollbackd.rules";
    host.machine.sh(&format!("mv {rule} /root/rule"));
    let refused = format!(
        "failed to start {GREEN}: Interactive authentication required; polkit lets the daemon act on the units of its configuration only: polkitd has to \
         run, with the rule {rule}, and `rollbackd check --manages {GREEN}` has to succeed"
    );
    // polkitd notices a moment later that the rule is gone.
    pause(Duration::from_secs(1));
    fails(&host, "v2", &refused);
    host.run(&["rollbackd", "check", "--manages", GREEN, "/etc/rollbackd/config.toml"]).good();
    host.run(&["rollbackd", "check", "--manages", "ssh.service", "/etc/rollbackd/config.toml"])
        .ends(1);
    host.machine.sh(&format!("mv /root/rule {rule}"));
    pause(Duration::from_secs(1));
    host.deploy("v3", &[]).good();
    host.wait_for_phase("baking");
    host.machine.sh("systemctl mask --now --quiet polkit.service");
    host.roll_back(&["--cut"]);
    soon("v1 has the traffic", || host.status()["active"] == "v1");
    host.tells("recovered");
    host.logs(&format!(
        "failed to stop {GREEN}: Unit polkit.service is masked; polkit lets the daemon act on the \
         units of its configuration only: polkitd has to run, with the rule"
    ));
    host.machine.sh("systemctl unmask --quiet polkit.service");
    assert_eq!(load.stop().bad, Vec::<String>::new());
}

#[test]
fn without_dbus_nothing_is_started_and_traffic_moves_all_the_same() {
    let host = Host::with_units(DEMO, SETTINGS);
    host.deploy("v1", &["--wait"]).good();
    host.deploy("v2", &[]).good();
    host.wait_for_phase("baking");
    let load = Load::start(host.listen);
    let run = host.invocation(BLUE);
    let stop = "systemctl stop dbus.socket dbus.service";
    host.machine.sh(stop);
    host.roll_back(&["--cut"]);
    soon("v1 has the traffic", || host.status()["active"] == "v1");
    host.tells("recovered");
    let absent = "D-Bus does not answer (";
    let help = "D-Bus has to run: install dbus, and look at `systemctl status dbus`";
    let done = host.deploy("v3", &["--wait"]).ends(4);
    done.says("failed to ").says(help);
    host.logs(absent);
    goes_on(&host);
    assert_eq!(load.stop().bad, Vec::<String>::new());
    // A daemon that starts without it serves what runs.
    host.run(&["systemctl", "stop", "rollbackd"]).good();
    host.run(&["systemctl", "start", "rollbackd"]).good();
    soon("v1 answers", || ask(host.listen) == Ok("v1".to_owned()));
    host.logs("the unit is not followed");
    host.machine.sh("systemctl start dbus.socket dbus.service");
    // It is followed again, and was not touched.
    assert_eq!(host.invocation(BLUE), run);
    pause(Duration::from_secs(3));
    host.machine.sh(&format!("kill -KILL $(systemctl show {BLUE} --value -p MainPID)"));
    host.tells(&format!("{BLUE} ended: killed by signal 9"));
    soon("v1 answers", || ask(host.listen) == Ok("v1".to_owned()));
    host.deploy("v4", &[]).good();
    host.wait_for_phase("baking");
}

#[test]
fn a_journal_that_stands_still_or_overflows_keeps_nobody_waiting() {
    let host = Host::with_units(DEMO, SETTINGS);
    host.deploy("v1", &["--wait"]).good();
    host.machine.sh("systemctl kill --kill-who=main --signal=STOP systemd-journald");
    host.deploy_bad("v2", "total", 2_000);
    host.wait_for_phase("baking");
    let load = Load::start(host.listen);
    host.tells("recovered");
    load.stop();
    host.machine.sh("systemctl kill --kill-who=main --signal=CONT systemd-journald");
    goes_on(&host);
    let lost = host.status()["journal_lost"].clone();
    println!("stopped: {lost} messages lost\n{}", host.timeline());
    host.machine.sh("(yes flood | timeout 8 systemd-cat) >/dev/null 2>&1 &");
    host.deploy_bad("v3", "total", 2_000);
    host.wait_for_phase("baking");
    let load = Load::start(host.listen);
    let told = host.tells("recovered");
    load.stop();
    goes_on(&host);
    println!("flooded: {} messages lost in all\n{told}", host.status()["journal_lost"]);
    let kinds = |deploy: &str| {
        let entries = host.journal(&["ROLLBACKD_SERVICE=weather", deploy]);
        entries.iter().filter_map(|it| it["ROLLBACKD_EVENT"].as_str()).count()
    };
    println!("in the journal: {} and {}", kinds("ROLLBACKD_DEPLOY=2"), kinds("ROLLBACKD_DEPLOY=3"));
}

#[test]
fn a_second_daemon_a_missing_socket_unit_and_a_full_disk_take_nothing_away() {
    let host = Host::units_on(Machine::boot_with_disk(16), DEMO, SETTINGS);
    host.run(&["systemctl", "enable", "--now", "rollbackd"]).good();
    host.deploy("v1", &["--wait"]).good();
    let load = Load::start(host.listen);
    let second = host.run_as("rollbackd", &["rollbackd", "run", "/etc/rollbackd/config.toml"]);
    println!("{second:?}");
    second.ends(10).says("/var/lib/rollbackd");
    goes_on(&host);
    host.machine.sh("rm /lib/systemd/system/rollbackd.socket && systemctl daemon-reload");
    host.run(&["systemctl", "restart", "rollbackd"]).good();
    goes_on(&host);
    let full =
        || host.machine.run(&["dd", "if=/dev/zero", "of=/var/lib/rollbackd/ballast", "bs=4k"]);
    full().ends(1);
    let refused = host.deploy("v2", &["--wait"]);
    println!("{refused:?}");
    assert_ne!(refused.code, 0);
    refused
        .says("failed to write the timeline, nothing is decided")
        .says("No space left on device");
    assert_eq!(load.stop().bad, Vec::<String>::new());
    // The unit of the active release dies, and is needed all the more.
    host.machine.sh(&format!("kill -KILL $(systemctl show {BLUE} --value -p MainPID)"));
    soon("v1 is started again", || ask(host.listen) == Ok("v1".to_owned()));
    host.machine.sh("rm /var/lib/rollbackd/ballast");
    host.deploy("v3", &[]).good();
    host.wait_for_phase("baking");
    host.roll_back(&["--cut"]);
    host.wait_for_phase("steady");
    goes_on(&host);
}

#[test]
fn what_changed_since_it_was_deployed_is_not_gone_back_to_unless_somebody_insists() {
    let host = Host::with_units(SEALED, SETTINGS);
    let [v1, v2] = ["v1", "v2"].map(|version| host.unpack(version));
    host.deploy("v1", &["--artifact", &v1, "--wait"]).good();
    host.deploy("v2", &["--artifact", &v2]).good();
    host.wait_for_phase("baking");
    host.machine.sh("cd /opt/weather/v1 && cp server new && echo x >>new && mv new server");
    let order = ["rollbackd", "rollback", "weather", "--because", "a test"];
    let refused = host.run(&order);
    println!("{refused:?}");
    refused.ends(11).says("/opt/weather/v1 changed since it was deployed: it was tree-sha256:");
    let told = host.timeline();
    println!("{told}");
    for what in [", it is tree-sha256:", "newest file in it: server", "the traffic stays on v2"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert_eq!(host.status()["active"], "v2");
    let pages = host.journal(&["PRIORITY=2"]);
    let says = |it: &&Value| it["MESSAGE"].as_str().is_some_and(|it| it.contains("changed since"));
    assert!(pages.iter().any(|it| says(&it)), "{pages:#?}");
    // A daemon that starts says it, too.
    let before = pages.len();
    host.run(&["systemctl", "restart", "rollbackd"]).good();
    soon("it is said again", || before < host.journal(&["PRIORITY=2"]).len());
    let insists: Done = host.run(&[&order[..], &["--force"]].concat());
    insists.good();
    until(Duration::from_secs(10), "v1 has the traffic", || {
        (host.status()["active"] == "v1").then_some(())
    });
}
