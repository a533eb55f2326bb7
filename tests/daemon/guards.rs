//! Guards that refuse an action of the daemon or of an operator; and rollbacks by an operator.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::support::{DaemonHarness, SERVICE, VersionPoller, serving_version, wait_until};

const OBSERVE_MODE: &str = "mode = \"observe\"";

#[test]
fn concurrent_deploy_is_rejected_as_busy() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.deploy("v3", &["--wait"]).expect_code(6).expect_text(&["busy: deploy 2 is not over"]);
    assert_eq!(host.status()["deploy"], 2);
}

#[test]
fn unknown_service_error_lists_the_services() {
    let host = DaemonHarness::with_v1("");
    let verbs: [&[&str]; 5] = [
        &["deploy", "wether", "v2"],
        &["status", "wether"],
        &["timeline", "wether"],
        &["hold", "wether"],
        &["rollback", "wether", "--because", "x"],
    ];
    for verb in verbs {
        host.run_cli(verb)
            .expect_code(7)
            .expect_text(&["no service wether; did you mean weather? there are weather"]);
    }
    host.run_cli(&["timeline", SERVICE, "--deploy", "9"])
        .expect_code(7)
        .expect_text(&["no timeline of deploy 9: there is only deploy 1"]);
}

/// A script is not asked for a reason.
#[test]
fn rollback_without_a_reason_says_so_in_the_timeline() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.run_cli(&["rollback", SERVICE, "--cut"])
        .expect_code(0)
        .expect_text(&["no reason given", "=> rolled back (exit code 0)"]);
    host.run_cli(&["status"]).expect_code(0).expect_text(&["rolled back from v2 to v1 in "]);
}

#[test]
fn interrupted_wait_says_that_the_deploy_goes_on() {
    let host = DaemonHarness::with_v1("");
    let waiting = host.spawn_cli(&["deploy", SERVICE, "v2", "--wait"]);
    wait_until("the wait", || waiting.output_so_far().contains("switched"));
    waiting.interrupt();
    let done = waiting.wait().expect_code(130);
    done.expect_text(&["deploy 2 of weather goes on", "`rollbackd status weather`"]);
    assert_eq!(host.phase(), "baking");
}

#[test]
fn invalid_arguments_are_rejected_before_deploy() {
    let host = DaemonHarness::with_v1("");
    let (long, lines) = ("v".repeat(10_000), "a\nb\u{1b}[31m");
    let wrong: [(&[&str], &str); 9] = [
        (&["deploy", SERVICE, ""], "is not a valid version"),
        (&["deploy", SERVICE, "../../x"], "is not a valid version"),
        (&["deploy", SERVICE, &long], "is not a valid version"),
        (&["deploy", SERVICE, "v2", "--artifact", "../../x"], "contains `..`"),
        (&["deploy", SERVICE, "v2", "--set", "PORT=1"], "set by the daemon"),
        (&["deploy", SERVICE, "v2", "--set", "A=1", "--set", "A=2"], "A is set twice"),
        (&["hold", SERVICE, "--because", lines], "write one plain line"),
        (&["hold", SERVICE, "--because", ""], "the reason is empty"),
        (&["rollback", SERVICE, "--because", &"x".repeat(64 * 1024)], "65536 characters"),
    ];
    for (verb, why) in wrong {
        host.run_cli(verb).expect_code(2).expect_text(&[why]);
    }
    assert_eq!((host.phase().as_str(), host.entries(1).len()), ("steady", 4));
}

#[test]
fn malformed_control_request_gets_an_error_reply() {
    let host = DaemonHarness::with_v1("");
    let nul = br#"{"verb":"deploy","service":"weather","version":"a\u0000"}"#;
    for bytes in [b"\xff\xfe\x00".as_slice(), &[b'x'; 65_536], nul] {
        let mut socket = UnixStream::connect(host.socket()).unwrap();
        socket.write_all(&[bytes, b"\n"].concat()).unwrap();
        let mut answer = String::new();
        // A daemon that closes with unread input may reset the connection, after its reply.
        let _: std::io::Result<usize> = socket.read_to_string(&mut answer);
        assert!(answer.contains("\"malformed\""), "{answer}");
    }
}

#[test]
fn rolled_back_release_is_quarantined_until_an_option_allows_it() {
    let host = DaemonHarness::with_v1("");
    // With the same settings it is the same release.
    let set = ["--set", "DEMO_FAULT=total", "--set", "DEMO_FAULT_AT=99999999999999"];
    host.deploy("v2", &set).expect_code(0);
    host.wait_for_phase("baking");
    host.run_cli(&["rollback", SERVICE, "--cut", "--because", "looks odd"]).expect_code(0);
    host.deploy("v2", &[&["--wait"], &set[..]].concat()).expect_code(5).expect_text(&[
        "refused: v2",
        "quarantine",
        "--allow-quarantined",
    ]);
    assert!(!host.status()["quarantine"].as_array().unwrap().is_empty());
    let other = host.deploy("v2", &[&["--over-breach", "--json"], &set[..]].concat());
    assert_eq!(other.expect_code(5).json_lines()[0]["waiver"], "quarantined");
    host.deploy("v2", &[&["--force"], &set[..]].concat())
        .expect_code(0)
        .expect_text(&["needed --allow-quarantined"]);
    host.wait_for_phase("baking");
    assert_eq!(host.status()["quarantine"], serde_json::Value::Null);
}

#[test]
fn a_fix_over_a_breach_goes_back_to_the_accepted_release() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.run_cli(&["hold", SERVICE, "--because", "looking"]).expect_code(0);
    host.deploy("v3", &[]).expect_code(6).expect_text(&["busy: ", "--over-breach"]);
    let load = VersionPoller::start(host.listen);
    host.spawn_faulty_deploy("v3", "total", 3_000, &["--over-breach"])
        .wait()
        .expect_code(0)
        .expect_text(&["traffic first back to v1; needed --over-breach; held"]);
    host.wait_for_phase("baking");
    let status = host.status();
    assert_eq!((&status["active"], &status["warm"]), (&"v3".into(), &"v1".into()));
    host.run_cli(&["resume", SERVICE])
        .expect_code(0)
        .expect_text(&["the evidence about v3 starts again"]);
    wait_until("the rollback", || host.status()["active"] == "v1" && host.phase() == "steady");
    drop(load);
}

#[test]
fn a_deploy_of_the_active_release_changes_nothing() {
    let host = DaemonHarness::with_v1("");
    let unchanged = host.deploy("v1", &["--wait"]).expect_code(0);
    unchanged.expect_text(&["v1 (deploy 1) is active already", "--restart"]);
    let json = host.deploy("v1", &["--json"]).expect_code(0).json_lines();
    assert_eq!((&json[0]["answer"], &json[0]["deploy"]), (&"unchanged".into(), &1.into()));
    assert_eq!(host.status()["deploy"], 1);
    host.deploy("v1", &["--restart"]).expect_code(0).expect_text(&["v1 (deploy 2) deployed"]);
    host.wait_for_phase("baking");
    host.run_cli(&["status", SERVICE])
        .expect_code(0)
        .expect_text(&["active v1 (deploy 2)", "warm v1 (deploy 1)"]);
}

#[test]
fn a_deploy_without_a_net_needs_the_operators_word() {
    let host = DaemonHarness::with_v1("rollbacks_per_day = 1");
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &[]).expect_code(3);
    host.run_cli(&["status", SERVICE]).expect_code(0).expect_text(&[
        "automatic rollbacks in 24 h: 1 of 1: none is left for 24.0 h",
        "--without-net",
    ]);
    host.deploy("v3", &["--over-breach", "--allow-quarantined"])
        .expect_code(5)
        .expect_text(&["refused: rollback limit: 1 of 1 in 24 h", "--without-net"]);
    assert_eq!(host.status()["active"], "v1");
    host.deploy("v3", &["--without-net"])
        .expect_code(0)
        .expect_text(&["needed --without-net; rollbacks in 24 h: 1 of 1"]);
    drop(load);
}

#[test]
fn used_or_unknown_slot_is_rejected() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &["--slot", "blue"])
        .expect_code(5)
        .expect_text(&["slot blue has the traffic"]);
    host.deploy("v2", &["--slot", "red"])
        .expect_code(5)
        .expect_text(&["no slot red; there are blue, green"]);
}

#[test]
fn breach_during_hold_is_acted_on_after_resume() {
    let host = DaemonHarness::with_v1("");
    host.run_cli(&["hold", SERVICE, "--because", "I am debugging"]).expect_code(0);
    host.run_cli(&["status"]).expect_code(0).expect_text(&["HELD: I am debugging ("]);
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &[])
        .expect_code(11)
        .expect_text(&["no rollback: hold"]);
    assert_eq!(host.status()["active"], "v2");
    host.run_cli(&["resume", SERVICE, "--because", "done"]).expect_code(0);
    wait_until("the rollback", || host.status()["active"] == "v1" && host.phase() == "steady");
    host.run_cli(&["resume", SERVICE]).expect_code(5).expect_text(&["refused: no hold is set"]);
    drop(load);
}

#[test]
fn frozen_deploy_is_never_rolled_back_automatically() {
    let host = DaemonHarness::with_v1("");
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &["--freeze"])
        .expect_code(11)
        .expect_text(&["no rollback: freeze"]);
    drop(load);
    let status = host.status();
    assert_eq!(status["active"], "v2");
    assert!(status["hold"].as_str().unwrap().contains("`rollbackd resume`"), "{status}");
}

#[test]
fn observe_mode_records_and_does_not_act() {
    let host = DaemonHarness::with_v1(OBSERVE_MODE);
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &[])
        .expect_code(11)
        .expect_text(&["no rollback: observe mode"]);
    drop(load);
    let status = host.status();
    assert_eq!((&status["active"], &status["mode"]), (&"v2".into(), &"observe".into()));
}

#[test]
fn rollback_limit_pages_the_operator_instead() {
    let host = DaemonHarness::with_v1("rollbacks_per_day = 1");
    let load = VersionPoller::start(host.listen);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    // The limit is for the daemon: a rollback by an operator does not count.
    host.run_cli(&["rollback", SERVICE, "--cut", "--because", "told so"]).expect_code(0);
    host.deploy_faulty("v3", "total", 3_000, &[]).expect_code(3);
    host.deploy_faulty("v4", "total", 3_000, &["--without-net"])
        .expect_code(11)
        .expect_text(&["no rollback: rollback limit"]);
    drop(load);
    wait_until("a page", || host.log().contains("page=true"));
}

#[test]
fn breach_of_the_first_release_has_no_rollback_target() {
    let mut host = DaemonHarness::new("");
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0).expect_text(&["accepted: the first release"]);
    host.run_cli(&["rollback", SERVICE, "--because", "why not"])
        .expect_code(5)
        .expect_text(&["refused: there is no previous release to roll back to"]);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn operator_rolls_back_by_drain_or_cut() {
    let host = DaemonHarness::with_v1("");
    for (version, cut) in [("v2", false), ("v3", true)] {
        host.deploy(version, &[]).expect_code(0);
        host.wait_for_phase("baking");
        assert_eq!(serving_version(host.listen), Ok(version.to_owned()));
        let mut verb = vec!["rollback", SERVICE, "--because", "told so"];
        let (strategy, end) = if cut { ("; cut (", "cut ") } else { ("; drain (", "drained ") };
        verb.extend(cut.then_some("--cut"));
        host.run_cli(&verb).expect_code(0).expect_text(&[
            "requested by ",
            "told so",
            strategy,
            end,
            "recovered",
        ]);
        assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    }
    wait_until("the others are stopped", || host.release_processes().len() == 1);
}

#[test]
fn operator_abort_keeps_the_traffic_on_the_active_release() {
    let host = DaemonHarness::with_v1("start_timeout = \"60s\"");
    let deploy = host.spawn_faulty_deploy("v2", "total", 0, &["--wait"]);
    host.wait_for_phase("starting");
    host.run_cli(&["rollback", SERVICE, "--because", "wrong one"])
        .expect_code(0)
        .expect_text(&["v2 aborted by ", "v1 kept the traffic"]);
    deploy.wait().expect_code(4);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
}

#[test]
fn rollback_with_no_wait_returns_immediately() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.run_cli(&["rollback", SERVICE, "--because", "x", "--no-wait"])
        .expect_code(0)
        .expect_text(&["deploy 2: requested by "]);
    wait_until("the end of it", || host.phase() == "steady");
    host.run_cli(&["rollback", SERVICE, "--because", "again"]).expect_code(5);
}
