//! What keeps the daemon, or a person, from doing something; and rollbacks that a person orders.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::support::{Host, Load, SERVICE, ask, soon};

const OBSERVE: &str = "mode = \"observe\"";

#[test]
fn a_second_deploy_meanwhile_is_told_busy() {
    let host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.deploy("v3", &["--wait"]).expect(6).says(&["busy: deploy 2 is not over"]);
    assert_eq!(host.status()["deploy"], 2);
}

#[test]
fn an_unknown_service_is_told_which_ones_there_are() {
    let host = Host::with_v1("");
    let verbs: [&[&str]; 5] = [
        &["deploy", "wether", "v2"],
        &["status", "wether"],
        &["timeline", "wether"],
        &["hold", "wether"],
        &["rollback", "wether", "--because", "x"],
    ];
    for verb in verbs {
        host.verb(verb).expect(7).says(&["no service wether; there are weather"]);
    }
    host.verb(&["timeline", SERVICE, "--deploy", "9"]).expect(7).says(&["no timeline of deploy 9"]);
}

#[test]
fn what_can_not_be_a_version_a_setting_or_a_reason_is_refused_before_anything_happens() {
    let host = Host::with_v1("");
    let (long, lines) = ("v".repeat(10_000), "a\nb\u{1b}[31m");
    let wrong: [(&[&str], &str); 9] = [
        (&["deploy", SERVICE, ""], "can not be a version"),
        (&["deploy", SERVICE, "../../x"], "can not be a version"),
        (&["deploy", SERVICE, &long], "can not be a version"),
        (&["deploy", SERVICE, "v2", "--artifact", "../../x"], "climbs out"),
        (&["deploy", SERVICE, "v2", "--set", "PORT=1"], "set by the daemon"),
        (&["deploy", SERVICE, "v2", "--set", "A=1", "--set", "A=2"], "A is set twice"),
        (&["hold", SERVICE, "--because", lines], "write one plain line"),
        (&["hold", SERVICE, "--because", ""], "the reason is empty"),
        (&["rollback", SERVICE, "--because", &"x".repeat(64 * 1024)], "65536 characters"),
    ];
    for (verb, why) in wrong {
        host.verb(verb).expect(2).says(&[why]);
    }
    assert_eq!((host.phase().as_str(), host.entries(1).len()), ("steady", 4));
}

#[test]
fn bytes_that_are_no_request_get_an_answer_that_says_so() {
    let host = Host::with_v1("");
    let nul = br#"{"verb":"deploy","service":"weather","version":"a\u0000"}"#;
    for bytes in [b"\xff\xfe\x00".as_slice(), &[b'x'; 65_536], nul] {
        let mut socket = UnixStream::connect(host.socket()).unwrap();
        socket.write_all(&[bytes, b"\n"].concat()).unwrap();
        let mut answer = String::new();
        // A daemon that hangs up with something unread may reset; what it said comes first.
        let _: std::io::Result<usize> = socket.read_to_string(&mut answer);
        assert!(answer.contains("\"malformed\""), "{answer}");
    }
}

#[test]
fn what_was_rolled_back_is_in_quarantine_until_forced() {
    let host = Host::with_v1("");
    // Only then is it the same release again, settings included.
    let set = ["--set", "DEMO_FAULT=total", "--set", "DEMO_FAULT_AT=99999999999999"];
    host.deploy("v2", &set).expect(0);
    host.wait_for_phase("baking");
    host.verb(&["rollback", SERVICE, "--cut", "--because", "looks odd"]).expect(0);
    host.deploy("v2", &[&["--wait"], &set[..]].concat()).expect(5).says(&[
        "refused: v2",
        "quarantine",
        "--force",
    ]);
    assert!(!host.status()["quarantine"].as_array().unwrap().is_empty());
    host.deploy("v2", &[&["--force"], &set[..]].concat()).expect(0);
    host.wait_for_phase("baking");
}

#[test]
fn a_slot_in_use_or_unknown_is_refused() {
    let host = Host::with_v1("");
    host.deploy("v2", &["--slot", "blue"]).expect(5).says(&["slot blue has the traffic"]);
    host.deploy("v2", &["--slot", "red"]).expect(5).says(&["no slot red; there are blue, green"]);
}

#[test]
fn a_breach_while_held_is_blocked_and_acted_on_after_resume() {
    let host = Host::with_v1("");
    host.verb(&["hold", SERVICE, "--because", "I am debugging"]).expect(0);
    host.verb(&["status"]).expect(0).says(&["HELD: I am debugging (uid"]);
    let load = Load::start(host.listen);
    host.deploy_bad("v2", "total", 1_500, &[]).expect(11).says(&["no rollback: hold"]);
    assert_eq!(host.status()["active"], "v2");
    host.verb(&["resume", SERVICE, "--because", "done"]).expect(0);
    soon("the rollback", || host.status()["active"] == "v1" && host.phase() == "steady");
    host.verb(&["resume", SERVICE]).expect(5).says(&["refused: nothing is held"]);
    drop(load);
}

#[test]
fn a_frozen_deploy_never_goes_back_by_itself() {
    let host = Host::with_v1("");
    let load = Load::start(host.listen);
    host.deploy_bad("v2", "total", 1_500, &["--freeze"]).expect(11).says(&["no rollback: freeze"]);
    drop(load);
    let status = host.status();
    assert_eq!(status["active"], "v2");
    assert!(status["hold"].as_str().unwrap().contains("a person has to look"), "{status}");
}

#[test]
fn observing_writes_down_and_does_nothing() {
    let host = Host::with_v1(OBSERVE);
    let load = Load::start(host.listen);
    host.deploy_bad("v2", "total", 1_500, &[]).expect(11).says(&["no rollback: observe mode"]);
    drop(load);
    let status = host.status();
    assert_eq!((&status["active"], &status["mode"]), (&"v2".into(), &"observe".into()));
}

#[test]
fn at_the_limit_of_rollbacks_a_person_is_woken_instead() {
    let host = Host::with_v1("rollbacks_per_day = 1");
    let load = Load::start(host.listen);
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    // The limit is for the daemon: what a person orders does not count.
    host.verb(&["rollback", SERVICE, "--cut", "--because", "told so"]).expect(0);
    host.deploy_bad("v3", "total", 1_500, &[]).expect(3);
    host.deploy_bad("v4", "total", 1_500, &[]).expect(11).says(&["no rollback: rollback limit"]);
    drop(load);
    assert!(host.log().contains("page=true"), "nobody was paged");
}

#[test]
fn a_breach_of_the_first_release_has_nowhere_to_go() {
    let mut host = Host::new("");
    host.start();
    host.deploy("v1", &["--wait"]).expect(0).says(&["accepted: the first release"]);
    host.verb(&["rollback", SERVICE, "--because", "why not"])
        .expect(5)
        .says(&["refused: there is no previous release to go back to"]);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn a_person_rolls_back_by_drain_or_by_cut() {
    let host = Host::with_v1("");
    for (version, cut) in [("v2", false), ("v3", true)] {
        host.deploy(version, &[]).expect(0);
        host.wait_for_phase("baking");
        assert_eq!(ask(host.listen), Ok(version.to_owned()));
        let mut verb = vec!["rollback", SERVICE, "--because", "told so"];
        let (strategy, end) = if cut { ("; cut: ", "cut ") } else { ("; drain: ", "drained ") };
        verb.extend(cut.then_some("--cut"));
        host.verb(&verb).expect(0).says(&["ordered by uid", "told so", strategy, end, "recovered"]);
        assert_eq!(ask(host.listen), Ok("v1".to_owned()));
    }
    soon("the others are stopped", || host.running().len() == 1);
}

#[test]
fn a_deploy_that_is_given_up_by_a_person_leaves_the_traffic() {
    let host = Host::with_v1("start_timeout = \"60s\"");
    let deploy = host.begin_bad("v2", "total", 0, &["--wait"]);
    host.wait_for_phase("starting");
    host.verb(&["rollback", SERVICE, "--because", "wrong one"])
        .expect(0)
        .says(&["v2 given up by uid", "v1 kept the traffic"]);
    deploy.done().expect(4);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
}

#[test]
fn a_rollback_without_waiting_returns_at_once() {
    let host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    host.verb(&["rollback", SERVICE, "--because", "x", "--no-wait"])
        .expect(0)
        .says(&["deploy 2: ordered by uid"]);
    soon("the end of it", || host.phase() == "steady");
    host.verb(&["rollback", SERVICE, "--because", "again"]).expect(5);
}
