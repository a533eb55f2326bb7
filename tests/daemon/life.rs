//! Processes that die, that do not want to end, and fixes for a release that is held.

use std::time::Duration;

use crate::support::{Host, Load, SERVICE, ask, exists, soon, until};

#[test]
fn an_active_release_that_dies_is_started_again_and_that_is_noted() {
    let host = Host::with_v1("");
    let before = host.process(1);
    before.kill();
    soon("it runs again", || host.running().iter().any(|it| it.pid != before.pid));
    soon("it answers", || ask(host.listen) == Ok("v1".to_owned()));
    host.verb(&["timeline", SERVICE]).expect(0).says(&[
        "noted",
        "v1: its process ended: killed by signal 9 (output: ",
        "); it is started again",
    ]);
}

#[test]
fn after_a_reboot_both_releases_come_back() {
    let mut host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    host.kill();
    host.running().iter().for_each(crate::support::Running::kill);
    soon("all is dead", || host.running().is_empty());
    host.start();
    soon("v2 answers again", || ask(host.listen) == Ok("v2".to_owned()));
    soon("v1 is warm again", || ask(host.blue) == Ok("v1".to_owned()));
    assert_eq!(host.phase(), "baking");
    host.verb(&["rollback", SERVICE, "--cut", "--because", "x"]).expect(0);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn a_release_that_does_not_want_to_end_is_killed() {
    // The shell stays in front of the server and keeps SIGTERM from both of them.
    let script = r#"trap "" TERM; "$0" demo-server & while true; do sleep 1; done"#;
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]");
    let mut host = Host::with_v1(&format!("{command}\nstop_timeout = \"1s\""));
    assert!(!host.running().is_empty());
    assert_eq!(host.stop(), 0);
    assert_eq!(host.running(), []);
}

#[test]
fn what_is_left_over_and_slow_to_end_does_not_keep_the_traffic_waiting() {
    let script = r#"trap "" TERM; "$0" demo-server & while true; do sleep 1; done"#;
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]");
    let mut host = Host::with_v1(&format!("{command}\nstop_timeout = \"20s\""));
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    host.verb(&["rollback", SERVICE, "--cut", "--because", "x"]).expect(0);
    host.kill();
    assert!(host.running().iter().any(|it| it.number == 2), "it takes its time to end");
    host.start();
    until(Duration::from_secs(10), "v1 answers again", || ask(host.listen).ok());
    assert!(host.running().iter().any(|it| it.number == 2), "it still takes its time");
    // The next one gets the slot when it is free, not before.
    host.configure(&format!("{command}\nstart_timeout = \"60s\""));
    host.reload();
    host.deploy("v3", &[]).expect(0);
    soon("v3 has the traffic", || ask(host.listen) == Ok("v3".to_owned()));
    assert!(host.running().iter().all(|it| it.number != 2));
    host.kill();
}

#[test]
fn a_stop_in_the_middle_of_a_deploy_leaves_nothing_and_a_start_goes_on() {
    let mut host = Host::with_v1("");
    let deploy = host.begin_bad("v2", "total", 0, &["--wait"]);
    host.wait_for_phase("starting");
    soon("v2 runs", || host.running().len() == 2);
    assert_eq!(host.stop(), 0);
    deploy.done().expect(1).says(&["the end was not seen"]);
    assert_eq!(host.running(), []);
    host.start();
    soon("v1 answers again", || ask(host.listen) == Ok("v1".to_owned()));
    soon("v2 is given up", || host.phase() == "steady");
    assert_eq!(host.kinds(2), ["deployed", "restored", "failed"]);
}

#[test]
fn a_held_trial_can_be_followed_by_a_fix() {
    let host = Host::with_v1("bake = \"5s\"");
    let load = Load::start(host.listen);
    host.deploy_bad("v2", "total", 1_500, &["--freeze"]).expect(11);
    host.deploy("v3", &[]).expect(6);
    let fix = host.begin(&["deploy", SERVICE, "v3", "--force", "--wait"]);
    soon("v3 has the traffic", || ask(host.listen) == Ok("v3".to_owned()));
    // What the daemon held by itself is over with the fix.
    fix.done().expect(0);
    drop(load);
    assert_eq!(host.status()["active"], "v3");
    soon("v1 gave its slot up", || host.running().iter().all(|it| it.number != 1));
}

#[test]
fn a_bad_release_does_not_touch_another_service() {
    let mut host = Host::new("");
    let ports = [(); 3].map(|()| crate::support::free_port());
    let [listen, blue, green] = ports;
    let other = format!(
        "listen = \"127.0.0.1:{listen}\"\n\
         slots = {{ blue = \"127.0.0.1:{blue}\", green = \"127.0.0.1:{green}\" }}"
    );
    let text = host.daemon_section() + &host.service_section(SERVICE, "");
    host.write_config(&(text + &host.service_section("maps", &other)));
    host.start();
    for service in [SERVICE, "maps"] {
        host.verb(&["deploy", service, "v1", "--wait"]).expect(0);
    }
    let maps = Load::start(listen);
    let load = Load::start(host.listen);
    host.deploy_bad("v2", "total", 1_500, &[]).expect(3);
    drop(load);
    let seen = maps.stop();
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    host.verb(&["status"]).expect(0).says(&["maps  127.0.0.1", "weather  127.0.0.1"]);
    let pids: Vec<_> = host.running().iter().map(|it| it.pid).collect();
    assert_eq!(host.stop(), 0);
    assert!(pids.into_iter().all(|pid| !exists(pid)));
}
