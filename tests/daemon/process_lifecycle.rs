//! Processes that die, processes that ignore SIGTERM, and fixes for a release on hold.

use std::time::Duration;

use crate::support::{
    DaemonHarness, SERVICE, VersionPoller, exists, serving_version, wait_for, wait_until,
};

#[test]
fn dead_active_release_is_restarted_and_recorded() {
    let host = DaemonHarness::with_v1("");
    let before = host.release_process(1);
    before.kill();
    wait_until("it runs again", || host.release_processes().iter().any(|it| it.pid != before.pid));
    wait_until("it answers", || serving_version(host.listen) == Ok("v1".to_owned()));
    host.run_cli(&["timeline", SERVICE]).expect_code(0).expect_text(&[
        "noted",
        "v1: its process ended: killed by signal 9 (output: ",
        "); restarting it",
    ]);
}

#[test]
fn both_releases_start_after_a_reboot() {
    let mut host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.kill();
    host.release_processes().iter().for_each(crate::support::ReleaseProcess::kill);
    wait_until("all is dead", || host.release_processes().is_empty());
    host.start();
    wait_until("v2 answers again", || serving_version(host.listen) == Ok("v2".to_owned()));
    wait_until("v1 is warm again", || serving_version(host.blue) == Ok("v1".to_owned()));
    assert_eq!(host.phase(), "baking");
    host.run_cli(&["rollback", SERVICE, "--cut", "--because", "x"]).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn release_that_ignores_sigterm_is_killed() {
    // The shell is the parent of the server and ignores SIGTERM for both.
    let script = r#"trap "" TERM; "$0" demo-server & while true; do sleep 1; done"#;
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]");
    let mut host = DaemonHarness::with_v1(&format!("{command}\nstop_timeout = \"1s\""));
    assert!(!host.release_processes().is_empty());
    assert_eq!(host.stop(), 0);
    assert_eq!(host.release_processes(), []);
}

#[test]
fn slow_orphan_does_not_delay_traffic() {
    let script = r#"trap "" TERM; "$0" demo-server & while true; do sleep 1; done"#;
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]");
    let mut host = DaemonHarness::with_v1(&format!("{command}\nstop_timeout = \"20s\""));
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.run_cli(&["rollback", SERVICE, "--cut", "--because", "x"]).expect_code(0);
    host.kill();
    assert!(host.release_processes().iter().any(|it| it.number == 2), "it takes its time to end");
    host.start();
    wait_for(Duration::from_secs(10), "v1 answers again", || serving_version(host.listen).ok());
    assert!(host.release_processes().iter().any(|it| it.number == 2), "it still takes its time");
    // The next release gets the slot when it is free, not before.
    host.configure(&format!("{command}\nstart_timeout = \"60s\""));
    host.reload();
    host.deploy("v3", &[]).expect_code(0);
    wait_until("v3 has the traffic", || serving_version(host.listen) == Ok("v3".to_owned()));
    assert!(host.release_processes().iter().all(|it| it.number != 2));
    host.kill();
}

#[test]
fn stop_during_a_deploy_ends_all_processes_and_start_resumes_it() {
    let mut host = DaemonHarness::with_v1("");
    let deploy = host.spawn_faulty_deploy("v2", "total", 0, &["--wait"]);
    host.wait_for_phase("starting");
    wait_until("v2 runs", || host.release_processes().len() == 2);
    assert_eq!(host.stop(), 0);
    deploy.wait().expect_code(1).expect_text(&["the end was not seen"]);
    assert_eq!(host.release_processes(), []);
    host.start();
    wait_until("v1 answers again", || serving_version(host.listen) == Ok("v1".to_owned()));
    wait_until("v2 is given up", || host.phase() == "steady");
    assert_eq!(host.kinds(2), ["deployed", "restored", "failed"]);
}

#[test]
fn held_trial_can_be_replaced_by_a_fix() {
    let host = DaemonHarness::with_v1("bake = \"5s\"");
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &["--freeze"]).expect_code(11);
    host.deploy("v3", &[]).expect_code(6);
    let fix = host.spawn_cli(&["deploy", SERVICE, "v3", "--over-breach", "--wait"]);
    wait_until("v3 has the traffic", || serving_version(host.listen) == Ok("v3".to_owned()));
    // The fix ends the hold that the daemon set.
    fix.wait().expect_code(0);
    drop(load);
    assert_eq!(host.status()["active"], "v3");
    wait_until("v1 gave its slot up", || host.release_processes().iter().all(|it| it.number != 1));
}

#[test]
fn bad_release_does_not_affect_other_services() {
    let mut host = DaemonHarness::new("");
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
        host.run_cli(&["deploy", service, "v1", "--wait"]).expect_code(0);
    }
    let maps = VersionPoller::start(listen);
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &[]).expect_code(3);
    drop(load);
    let seen = maps.stop();
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    host.run_cli(&["status"])
        .expect_code(0)
        .expect_text(&["maps  127.0.0.1", "weather  127.0.0.1"]);
    let pids: Vec<_> = host.release_processes().iter().map(|it| it.pid).collect();
    assert_eq!(host.stop(), 0);
    assert!(pids.into_iter().all(|pid| !exists(pid)));
}

#[test]
fn releases_run_as_another_user_are_adopted_and_stopped() {
    let mut host = DaemonHarness::new("");
    if !rustix::process::geteuid().is_root() {
        return println!("only root can become another user");
    }
    // The user cannot reach every folder.
    let folder = tempfile::tempdir().unwrap();
    let open = || std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open()).unwrap();
    let program = folder.path().join("rollbackd");
    std::fs::copy(env!("CARGO_BIN_EXE_rollbackd"), &program).unwrap();
    std::fs::set_permissions(&program, open()).unwrap();
    let command = format!("command = [{program:?}, \"demo-server\"]\nuser = \"nobody\"");
    host.configure(&command);
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    let release = host.release_process(1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", release.pid)).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    host.kill();
    host.start();
    wait_until("it answers", || serving_version(host.listen) == Ok("v1".to_owned()));
    assert_eq!(host.release_process(1), release, "it was adopted, not started again");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.run_cli(&["rollback", SERVICE, "--cut", "--because", "x"]).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    assert_eq!(host.stop(), 0);
    assert!(host.release_processes().is_empty(), "{:?}", host.release_processes());
}
