//! Deploys that succeed, and deploys that fail.

use crate::support::{DaemonHarness, SERVICE, VersionPoller, serving_version, wait_until};

#[test]
fn healthy_release_is_accepted_and_the_previous_one_stays_warm() {
    let host = DaemonHarness::with_v1("bake = \"5s\"");
    assert_eq!(host.status()["active"], "v1");
    let load = VersionPoller::start(host.listen);
    let done = host.deploy("v2", &["--wait"]).expect_code(0);
    let done = done.expect_text(&["deployed", "ready", "switched", "accepted"]);
    assert!(done.err.is_empty(), "{}", done.err);
    let seen = load.stop();
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    assert!(seen.good.contains_key("v2"), "{:?}", seen.good);
    let status = host.status();
    assert_eq!((&status["active"], &status["warm"]), (&"v2".into(), &"v1".into()));
    assert_eq!(host.release_processes().len(), 2);
    assert_eq!(host.kinds(2), ["deployed", "ready", "switched", "accepted"]);
}

#[test]
fn removed_tools_are_reported_and_refused_with_strict() {
    let host = DaemonHarness::with_v1("bake = \"5s\"");
    let deploy = |more: &[&str]| {
        host.deploy("v2", &[&["--set", "DEMO_WITHOUT=echo", "--wait"], more].concat())
    };
    // No client called it yet.
    deploy(&["--strict"]).expect_code(13).expect_text(&["ready", "; without tool echo;"]);
    host.deploy("v3", &["--wait"]).expect_code(13).expect_text(&["; adds tool echo"]);
    assert_eq!(serving_version(host.listen), Ok("v3".to_owned()));
    let why = "drops tool echo (1 call in the last hour)";
    deploy(&["--strict"]).expect_code(4).expect_text(&["failed", why, "; --strict refuses it"]);
    assert_eq!(host.status()["active"], "v3");
    deploy(&[]).expect_code(13).expect_text(&[
        "ready",
        &format!("WARNING, it {why}"),
        "switched",
        "accepted",
    ]);
    let entries = host.run_cli(&["timeline", SERVICE, "--json"]).expect_code(0).json_lines();
    let ready = entries.iter().find(|it| it["kind"] == "ready").unwrap();
    assert_eq!(ready["data"]["changes"]["removed"]["tool"][0], "echo", "{ready}");
    assert_eq!(ready["data"]["changes"]["breaking"][0]["calls"], 1, "{ready}");
}

fn assert_rolled_back(fault: &str, words: &[&str]) {
    let host = DaemonHarness::with_v1("");
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", fault, 2_000, &[]).expect_code(3).expect_text(words);
    drop(load);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    let status = host.status();
    assert_eq!((&status["phase"], &status["active"]), (&"steady".into(), &"v1".into()));
    wait_until("the bad release is stopped", || host.release_processes().len() == 1);
    let kinds = host.kinds(2);
    let milestones = ["deployed", "ready", "switched", "detected", "decided", "recovered"];
    for kind in milestones {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
}

#[test]
fn total_failure_is_rolled_back() {
    assert_rolled_back("total", &["detected", "decided", "switched", "recovered"]);
}

#[test]
fn crash_loop_is_rolled_back() {
    assert_rolled_back("crash-loop", &["detected", "decided", "recovered"]);
}

#[test]
fn release_that_never_becomes_ready_gets_no_traffic() {
    let host = DaemonHarness::with_v1("start_timeout = \"3s\"");
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 0, &[]).expect_code(4).expect_text(&[
        "v2 never became ready: not ready within 3 s, its last probe: ",
        "; v1 passes its probes; v1 kept the traffic",
    ]);
    let seen = load.stop();
    assert_eq!(seen.good.keys().collect::<Vec<_>>(), ["v1"]);
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    assert_eq!(host.kinds(2), ["deployed", "failed"]);
    wait_until("the failed release is stopped", || host.release_processes().len() == 1);
}

#[test]
fn release_that_exits_immediately_fails_the_deploy_immediately() {
    let script = r#"if [ "$ROLLBACKD_VERSION" = v2 ]; then echo no config file >&2; exit 7; fi; exec "$0" demo-server"#;
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]");
    let host = DaemonHarness::with_v1(&format!("{command}\nstart_timeout = \"30s\""));
    host.deploy("v2", &["--wait"]).expect_code(4).expect_text(&[
        "v2 never became ready: its process ended: exit code 7 (output: ",
        "output-green.log); v1 kept the traffic",
    ]);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    wait_until("its output is in the log", || host.log().contains("no config file"));
}

#[test]
fn foreign_process_on_the_slot_port_is_not_the_release() {
    // It answers the probes long before the release finds that its port is in use.
    let script = r#"sleep 2; exec "$0" demo-server"#;
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let mut host =
        DaemonHarness::new(&format!("command = [\"/bin/sh\", \"-c\", {script:?}, {program:?}]"));
    let port = host.blue.to_string();
    let mut stranger = std::process::Command::new(program);
    stranger.arg("demo-server").env("PORT", port).env("ROLLBACKD_VERSION", "stranger");
    let mut stranger = stranger.spawn().unwrap();
    wait_until("the stranger listens", || {
        std::net::TcpStream::connect(("127.0.0.1", host.blue)).is_ok()
    });
    host.start();
    let done = host.deploy("v1", &["--wait"]);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    done.expect_code(4)
        .expect_text(&["is taken: another process listens there", "nothing has the traffic"]);
}

#[test]
fn first_release_that_cannot_start_reports_why() {
    let mut host = DaemonHarness::new("command = [\"/nowhere/server\"]");
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(4).expect_text(&[
        "/nowhere/server",
        "No such file",
        "nothing has the traffic",
    ]);
    assert_eq!(host.phase(), "empty");
}

#[test]
fn environment_reaches_the_release_and_its_output_the_log() {
    let script = r#"echo "hello $GREETING $KEPT $ROLLBACKD_VERSION $ROLLBACKD_ARTIFACT $1 $2"; exec "$0" demo-server"#;
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let arguments = format!("{script:?}, {program:?}, \"{{version}}\", \"{{slot}}\"");
    let settings = format!(
        "artifact = \"word\"\ncommand = [\"/bin/sh\", \"-c\", {arguments}]\nenv = {{ KEPT = \"kept\", GREETING = \"no\" }}"
    );
    let mut host = DaemonHarness::new(&settings);
    host.start();
    host.deploy("v1", &["--wait", "--artifact", "/opt/one", "--set", "GREETING=big world"])
        .expect_code(0);
    wait_until("its words are in the log", || {
        host.log().contains("hello big world kept v1 /opt/one v1 blue")
    });
    let log = host.log();
    let line = log.lines().find(|line| line.contains("hello big world")).unwrap();
    assert!(line.contains(SERVICE) && line.contains("v1"), "no name in {line}");
    host.deploy("v2", &["--set", "novalue"]).expect_code(2).expect_text(&["KEY=VALUE"]);
}

#[test]
fn deploy_without_wait_returns_immediately_and_json_is_valid() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0).expect_text(&["deploy 2: v2 deployed by "]);
    host.wait_for_phase("baking");
    let done = host.run_cli(&["rollback", SERVICE, "--because", "changed my mind", "--json"]);
    let lines = done.expect_code(0).json_lines();
    assert_eq!(lines[0]["answer"], "accepted");
    let kinds: Vec<_> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(kinds.last(), Some(&"recovered"), "{lines:?}");
}
