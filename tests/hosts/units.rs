//! Releases that are instances of a template unit. The daemon asks systemd to start them.

use std::time::Duration;

use serde_json::json;

use crate::host::Host;
use crate::load_clients::LoadClients;
use crate::slow_call;
use crate::traffic::{VersionPoller, serving_version};
use crate::unit_template::{ARTIFACT_SERVICE, BLUE_UNIT, DEMO_SERVICE, GREEN_UNIT, SETTINGS};
use crate::wait::{epoch_ms, sleep, wait_until};

#[test]
fn real_client_sessions_survive_deploy_rollback_and_restart() {
    let host = Host::with_units(ARTIFACT_SERVICE, &SETTINGS.replace("10m", "4s"));
    let [v1, v2] = ["v1", "v2"].map(|version| host.install_artifact(version));
    host.deploy("v1", &["--artifact", &v1, "--wait"]).expect_success();
    let early = LoadClients::start(host.listen, 5, 100);
    host.deploy("v2", &["--artifact", &v2]).expect_success();
    host.wait_for_phase("baking");
    let late = LoadClients::start(host.listen, 5, 100);
    host.wait_for_timeline("accepted");
    let told = host.run(&["rollbackd", "timeline", "weather", "--json"]).expect_success().out;
    assert!(told.contains("\"artifact\":\"/opt/weather/v2\""), "{told}");
    assert!(told.contains("\"digest\":\"tree-sha256:"), "no digest: {told}");
    host.rollback(&[]);
    wait_until("v1 has the traffic", || host.status()["active"] == "v1");
    let told = host.wait_for_timeline("recovered");
    println!("{told}");
    host.wait_for_requests(30);
    // The sessions are on v1, which is not restarted.
    let before = (host.invocation(BLUE_UNIT), host.property("MainPID"));
    host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
    assert_ne!(host.property("MainPID"), before.1);
    host.wait_for_requests(30);
    for seen in [early.stop(), late.stop()] {
        println!("{seen}");
        assert_eq!(seen["failures"], json!([]), "{seen:#}");
    }
    assert_eq!(host.invocation(BLUE_UNIT), before.0, "adopted, not started");
    wait_until("v2 is stopped", || !host.is_active(GREEN_UNIT));
}

#[test]
fn units_keep_running_without_the_daemon_and_are_adopted() {
    let host = Host::with_units(DEMO_SERVICE, SETTINGS);
    host.deploy("v1", &["--wait"]).expect_success();
    host.deploy("v2", &[]).expect_success();
    host.wait_for_phase("baking");
    let runs = [BLUE_UNIT, GREEN_UNIT].map(|unit| host.invocation(unit));
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    assert_eq!(serving_version(host.slots[0]), Ok("v1".to_owned()));
    assert_eq!(serving_version(host.slots[1]), Ok("v2".to_owned()));
    host.run(&["systemctl", "start", "rollbackd"]).expect_success();
    host.wait_for_phase("baking");
    assert_eq!(serving_version(host.listen), Ok("v2".to_owned()));
    host.rollback(&["--cut"]);
    host.wait_for_phase("steady");
    assert_eq!(host.invocation(BLUE_UNIT), runs[0], "adopted, not started");
    wait_until("v2 is stopped", || host.property_of(GREEN_UNIT, "ActiveState") == "inactive");
    // A crash or an operator left a unit in a slot that no release needs.
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    host.run(&["systemctl", "start", GREEN_UNIT]).expect_success();
    host.run(&["systemctl", "start", "rollbackd"]).expect_success();
    wait_until("it is stopped", || host.property_of(GREEN_UNIT, "ActiveState") == "inactive");
    host.wait_for_log("stopping a unit that no release needs");
    assert_eq!(host.invocation(BLUE_UNIT), runs[0], "adopted, not started");
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    let told = host.timeline();
    assert!(!told.contains("somebody else"), "{told}");
}

#[test]
fn killed_daemon_finishes_its_rollback() {
    let host = Host::with_units(
        DEMO_SERVICE,
        &SETTINGS.replace("drain_timeout = \"2s\"", "drain_timeout = \"1s\""),
    );
    host.deploy("v1", &["--wait"]).expect_success();
    host.deploy("v2", &[]).expect_success();
    host.wait_for_phase("baking");
    let runs = host.invocation(BLUE_UNIT);
    // It holds up the drain.
    let port = host.listen;
    let call = std::thread::spawn(move || slow_call(port, 3_000));
    wait_until("it is open", || {
        let releases = host.status()["releases"].clone();
        releases.as_array().into_iter().flatten().any(|it| it["in_flight"] == 1)
    });
    let before = host.property("MainPID");
    host.rollback(&["--no-wait"]);
    wait_until("the drain", || host.status()["phase"] == "emptying");
    let begun = epoch_ms();
    host.signal_daemon("KILL");
    host.wait_for_restart(&before);
    wait_until("the rollback is complete", || {
        let told = host.timeline();
        told.contains("drained") || told.contains("cut off")
    });
    println!("killed to complete: {} ms, of a drain of 1 s", epoch_ms() - begun);
    println!("{}", host.wait_for_timeline("recovered"));
    println!("killed to recovered: {} ms", epoch_ms() - begun);
    assert_eq!((host.status()["active"].as_str(), host.invocation(BLUE_UNIT)), (Some("v1"), runs));
    drop(call);
}

#[test]
fn warm_unit_weights_are_lowered_and_restored_before_the_switch() {
    let host = Host::with_units(&format!("CPUWeight=300\n{DEMO_SERVICE}"), SETTINGS);
    let weights = |unit| ["CPUWeight", "IOWeight"].map(|name| host.property_of(unit, name));
    let own = ["300".to_owned(), "[not set]".to_owned()];
    host.deploy("v1", &["--wait"]).expect_success();
    host.deploy("v2", &[]).expect_success();
    host.wait_for_phase("baking");
    wait_until("v1 has the low weights", || weights(BLUE_UNIT) == ["20", "20"]);
    wait_until("v2 has its own weights", || weights(GREEN_UNIT) == own);
    // The restarted daemon restores the weights that the unit file gives.
    host.run(&["systemctl", "restart", "rollbackd"]).expect_success();
    host.wait_for_phase("baking");
    wait_until("v1 has the low weights again", || weights(BLUE_UNIT) == ["20", "20"]);
    host.rollback(&["--cut"]);
    host.wait_for_phase("steady");
    wait_until("v1 has its own weights back", || weights(BLUE_UNIT) == own);
    // systemd writes the weight there before it answers; a monitor of the bus would tell when it
    // came to run itself.
    let file = format!("/run/systemd/system.control/{BLUE_UNIT}.d/50-CPUWeight.conf");
    assert!(host.machine.shell(&format!("cat {file}")).contains("CPUWeight=300"));
    let given: u64 =
        host.machine.shell(&format!("stat -c %.3Y {file}")).replace('.', "").parse().unwrap();
    let switched = host.entry_ms("switched");
    println!("weights restored {} ms before the switch", switched as i64 - given as i64);
    let gave_up = host.log().contains("did not restore the weights");
    assert!(given <= switched || gave_up, "the weights were restored after the switch");
}

/// A unit that ran all the while does not start: it is not excused as after a boot.
#[test]
fn a_unit_that_stopped_answering_while_the_daemon_was_down_is_found_soon() {
    let host = Host::with_units(DEMO_SERVICE, &SETTINGS.replace("10s", "60s"));
    host.deploy("v1", &["--wait"]).expect_success();
    host.deploy("v2", &[]).expect_success();
    host.wait_for_phase("baking");
    let ready = host.entry_ms("ready");
    wait_until("v2 is older than a release that starts", || ready + 11_000 < epoch_ms());
    host.run(&["systemctl", "stop", "rollbackd"]).expect_success();
    host.run(&["systemctl", "kill", "--signal=STOP", GREEN_UNIT]).expect_success();
    host.run(&["systemctl", "start", "rollbackd"]).expect_success();
    host.wait_for_timeline("detected");
    let took = host.entry_ms("detected") - host.entry_ms("restored");
    assert!(took < 9_000, "{took} ms: {}", host.timeline());
}

#[test]
fn manual_unit_changes_are_recorded_in_the_timeline() {
    let host = Host::with_units(DEMO_SERVICE, SETTINGS);
    host.deploy("v1", &["--wait"]).expect_success();
    let run = host.invocation(BLUE_UNIT);
    host.run(&["systemctl", "stop", BLUE_UNIT]).expect_success();
    host.wait_for_timeline(&format!(
        "{BLUE_UNIT} was stopped by another party: restarting it, because it is needed"
    ));
    wait_until("it answers again", || serving_version(host.listen).is_ok());
    assert_ne!(host.invocation(BLUE_UNIT), run);
    host.run(&["systemctl", "restart", BLUE_UNIT]).expect_success();
    host.wait_for_timeline(&format!("{BLUE_UNIT} was started by another party"));
    wait_until("it answers again", || serving_version(host.listen).is_ok());
    host.run(&["systemctl", "kill", "--kill-who=main", "--signal=KILL", BLUE_UNIT])
        .expect_success();
    host.wait_for_timeline(&format!(
        "{BLUE_UNIT} ended: killed by signal 9 (see `journalctl -u {BLUE_UNIT}`)"
    ));
    wait_until("it answers again", || serving_version(host.listen).is_ok());
    host.run(&["rollbackd", "hold", "weather", "--because", "repairs"]).expect_success();
    host.run(&["systemctl", "stop", BLUE_UNIT]).expect_success();
    host.wait_for_timeline(
        "was stopped by another party: it stays stopped, because the service is held",
    );
    // In this time the daemon would have started it, as it does at once after the hold.
    sleep(Duration::from_secs(2));
    assert!(!host.is_active(BLUE_UNIT), "a hold keeps it down");
    host.run(&["rollbackd", "resume", "weather", "--because", "repaired"]).expect_success();
    wait_until("it answers again", || serving_version(host.listen).is_ok());
    println!("{}", host.timeline());
}

#[test]
fn replaced_program_in_the_active_slot_is_detected_and_rolled_back() {
    let host = Host::with_units(DEMO_SERVICE, &SETTINGS.replace("10m", "4s"));
    host.deploy("v1", &["--wait"]).expect_success();
    let load = VersionPoller::start(host.listen);
    host.deploy("v2", &[]).expect_success();
    host.wait_for_timeline("accepted");
    let other = "[Service]\nExecStart=\n\
        ExecStart=/usr/bin/env DEMO_FAULT=total /usr/bin/rollbackd demo-server\n";
    host.machine.write(&format!("etc/systemd/system/{GREEN_UNIT}.d/other.conf"), other);
    host.run(&["systemctl", "daemon-reload"]).expect_success();
    assert_eq!(host.status()["phase"], "steady");
    let began = epoch_ms();
    host.run(&["systemctl", "restart", GREEN_UNIT]).expect_success();
    let told = host.wait_for_timeline("v1 has the traffic");
    println!("exchanged to rolled back: {} ms\n{told}", epoch_ms() - began);
    for what in ["replaced", "runs in place of v2", "DEMO_FAULT=total", "v1 can take over"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(!host.journal(&["ROLLBACKD_EVENT=replaced"]).is_empty());
    host.wait_for_timeline("recovered");
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    println!("{:?}", load.stop().good);
}
