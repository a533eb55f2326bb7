//! Releases that are instances of a template unit, started by systemd at the daemon's word.

use std::time::Duration;

use serde_json::json;

use crate::crowd::Crowd;
use crate::host::Host;
use crate::slow_call;
use crate::template::{BLUE, DEMO, GREEN, SEALED, SETTINGS};
use crate::time::{epoch_ms, pause, soon, until};
use crate::web::{Load, ask};

#[test]
fn sessions_of_real_clients_outlive_deploys_rollbacks_and_the_daemon() {
    let host = Host::with_units(SEALED, &SETTINGS.replace("10m", "4s"));
    let [v1, v2] = ["v1", "v2"].map(|version| host.unpack(version));
    host.deploy("v1", &["--artifact", &v1, "--wait"]).good();
    let early = Crowd::start(host.listen, 5, 100);
    host.deploy("v2", &["--artifact", &v2]).good();
    host.wait_for_phase("baking");
    let late = Crowd::start(host.listen, 5, 100);
    host.tells("accepted");
    let told = host.run(&["rollbackd", "timeline", "weather", "--json"]).good().out;
    assert!(told.contains("\"artifact\":\"/opt/weather/v2\""), "{told}");
    assert!(told.contains("\"digest\":\"tree-sha256:"), "it is sealed: {told}");
    host.roll_back(&[]);
    soon("v1 has the traffic", || host.status()["active"] == "v1");
    let told = host.tells("recovered");
    println!("{told}");
    pause(Duration::from_secs(1));
    // Its sessions are at v1, which nobody starts again.
    let before = (host.invocation(BLUE), host.property("MainPID"));
    host.run(&["systemctl", "restart", "rollbackd"]).good();
    assert_ne!(host.property("MainPID"), before.1);
    pause(Duration::from_secs(1));
    for seen in [early.stop(), late.stop()] {
        println!("{seen}");
        assert_eq!(seen["failures"], json!([]), "{seen:#}");
    }
    assert_eq!(host.invocation(BLUE), before.0, "adopted, not started");
    soon("v2 is stopped", || !host.is_up(GREEN));
}

#[test]
fn units_go_on_without_a_daemon_and_are_taken_over_by_the_next_one() {
    let host = Host::with_units(DEMO, SETTINGS);
    host.deploy("v1", &["--wait"]).good();
    host.deploy("v2", &[]).good();
    host.wait_for_phase("baking");
    let runs = [BLUE, GREEN].map(|unit| host.invocation(unit));
    host.run(&["systemctl", "stop", "rollbackd"]).good();
    assert_eq!(ask(host.slots[0]), Ok("v1".to_owned()));
    assert_eq!(ask(host.slots[1]), Ok("v2".to_owned()));
    host.run(&["systemctl", "start", "rollbackd"]).good();
    host.wait_for_phase("baking");
    assert_eq!(ask(host.listen), Ok("v2".to_owned()));
    host.roll_back(&["--cut"]);
    host.wait_for_phase("steady");
    assert_eq!(host.invocation(BLUE), runs[0], "adopted, not started");
    soon("v2 is stopped", || host.property_of(GREEN, "ActiveState") == "inactive");
    // What a crash, or a person, left in a slot that nobody needs.
    host.run(&["systemctl", "stop", "rollbackd"]).good();
    host.run(&["systemctl", "start", GREEN]).good();
    host.run(&["systemctl", "start", "rollbackd"]).good();
    soon("it is stopped", || host.property_of(GREEN, "ActiveState") == "inactive");
    host.logs("stops a unit that no release needs");
    assert_eq!(host.invocation(BLUE), runs[0], "adopted, not started");
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
    let told = host.timeline();
    assert!(!told.contains("somebody else"), "{told}");
}

#[test]
fn a_daemon_that_is_killed_in_a_rollback_finishes_it() {
    let host = Host::with_units(
        DEMO,
        &SETTINGS.replace("drain_timeout = \"2s\"", "drain_timeout = \"1s\""),
    );
    host.deploy("v1", &["--wait"]).good();
    host.deploy("v2", &[]).good();
    host.wait_for_phase("baking");
    let runs = host.invocation(BLUE);
    // It keeps the drain waiting.
    let port = host.listen;
    let call = std::thread::spawn(move || slow_call(port, 3_000));
    soon("it is open", || {
        let releases = host.status()["releases"].clone();
        releases.as_array().into_iter().flatten().any(|it| it["in_flight"] == 1)
    });
    let before = host.property("MainPID");
    host.roll_back(&["--no-wait"]);
    soon("the drain", || host.status()["phase"] == "emptying");
    let begun = epoch_ms();
    host.kill_daemon("KILL");
    host.started_again(Duration::from_secs(3), &before);
    until(Duration::from_secs(3), "the rollback is complete", || {
        let told = host.timeline();
        (told.contains("drained") || told.contains("cut off")).then_some(())
    });
    println!("killed to complete: {} ms, of a drain of 1 s", epoch_ms() - begun);
    println!("{}", host.tells("recovered"));
    println!("killed to recovered: {} ms", epoch_ms() - begun);
    assert_eq!((host.status()["active"].as_str(), host.invocation(BLUE)), (Some("v1"), runs));
    drop(call);
}

#[test]
fn a_warm_release_makes_room_and_has_its_share_back_before_it_takes_over() {
    let host = Host::with_units(&format!("CPUWeight=300\n{DEMO}"), SETTINGS);
    let weights = |unit| ["CPUWeight", "IOWeight"].map(|name| host.property_of(unit, name));
    let own = ["300".to_owned(), "[not set]".to_owned()];
    host.deploy("v1", &["--wait"]).good();
    host.deploy("v2", &[]).good();
    host.wait_for_phase("baking");
    soon("v1 makes room", || weights(BLUE) == ["20", "20"]);
    assert_eq!(weights(GREEN), own);
    // The next daemon knows what the unit had by itself.
    host.run(&["systemctl", "restart", "rollbackd"]).good();
    host.wait_for_phase("baking");
    assert_eq!(weights(BLUE), ["20", "20"]);
    let watch = "busctl monitor --json=short org.freedesktop.systemd1 >/root/bus 2>/dev/null";
    host.machine.sh(&format!("({watch} & echo $! >/root/monitor); sleep 1"));
    host.roll_back(&["--cut"]);
    host.wait_for_phase("steady");
    soon("v1 has its share back", || weights(BLUE) == own);
    host.machine.sh("kill $(cat /root/monitor)");
    let calls = host.machine.sh("grep SetUnitProperties /root/bus");
    let call: serde_json::Value = serde_json::from_str(calls.lines().next().unwrap()).unwrap();
    let given = call["timestamp-realtime"].as_u64().unwrap();
    let entries = host.run(&["rollbackd", "timeline", "weather", "--json"]).good().out;
    let entries = entries.lines().map(|it| serde_json::from_str::<serde_json::Value>(it).unwrap());
    let back: Vec<_> = entries.filter(|it| it["kind"] == "switched").collect();
    let switched = back.last().unwrap()["at"].as_str().unwrap();
    let switched = host.machine.sh(&format!("date -d {switched} +%s%6N")).parse::<u64>().unwrap();
    println!("asked for its share {} us before the traffic came", switched as i64 - given as i64);
    assert!(given < switched, "the share came after the traffic: {call}");
}

#[test]
fn what_people_do_to_units_is_in_the_timeline() {
    let host = Host::with_units(DEMO, SETTINGS);
    host.deploy("v1", &["--wait"]).good();
    let run = host.invocation(BLUE);
    host.run(&["systemctl", "stop", BLUE]).good();
    host.tells(&format!("{BLUE} was stopped by somebody else: it is needed, and is started again"));
    soon("it answers again", || ask(host.listen).is_ok());
    assert_ne!(host.invocation(BLUE), run);
    host.run(&["systemctl", "restart", BLUE]).good();
    host.tells(&format!("{BLUE} was started again by somebody else"));
    soon("it answers again", || ask(host.listen).is_ok());
    host.run(&["systemctl", "kill", "--kill-who=main", "--signal=KILL", BLUE]).good();
    host.tells(&format!("{BLUE} ended: killed by signal 9 (see `journalctl -u {BLUE}`)"));
    soon("it answers again", || ask(host.listen).is_ok());
    host.run(&["rollbackd", "hold", "weather", "--because", "repairs"]).good();
    host.run(&["systemctl", "stop", BLUE]).good();
    host.tells("was stopped by somebody else: the service is held, so it stays down");
    pause(Duration::from_secs(2));
    assert!(!host.is_up(BLUE), "a hold keeps it down");
    host.run(&["rollbackd", "resume", "weather", "--because", "repaired"]).good();
    soon("it answers again", || ask(host.listen).is_ok());
    println!("{}", host.timeline());
}

#[test]
fn another_program_in_the_active_slot_is_found_and_rolled_back_when_it_fails() {
    let host = Host::with_units(DEMO, &SETTINGS.replace("10m", "4s"));
    host.deploy("v1", &["--wait"]).good();
    let load = Load::start(host.listen);
    host.deploy("v2", &[]).good();
    host.tells("accepted");
    let other = "[Service]\nExecStart=\n\
        ExecStart=/usr/bin/env DEMO_FAULT=total /usr/bin/rollbackd demo-server\n";
    host.machine.write(&format!("etc/systemd/system/{GREEN}.d/other.conf"), other);
    host.run(&["systemctl", "daemon-reload"]).good();
    assert_eq!(host.status()["phase"], "steady");
    let began = epoch_ms();
    host.run(&["systemctl", "restart", GREEN]).good();
    let told = host.tells("v1 has the traffic");
    println!("exchanged to rolled back: {} ms\n{told}", epoch_ms() - began);
    for what in
        ["found", "in place of v2 another release runs", "DEMO_FAULT=total", "v1 can take over"]
    {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(!host.journal(&["ROLLBACKD_EVENT=found"]).is_empty());
    host.tells("recovered");
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
    println!("{:?}", load.stop().good);
}
