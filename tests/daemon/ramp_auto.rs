//! Without a word in the configuration, a deploy chooses its ramp by the sessions that are there.

use rollbackd::model::{ActiveUsers, RampReason, TimelineEvent};
use serde_json::Value;

use crate::ramp::StickySession;
use crate::support::{DaemonHarness, SERVICE, wait_until};

/// The release that answers each session, under the id that its client has.
fn served_by(sessions: &[StickySession]) -> Vec<String> {
    let version = |it: &StickySession| it.call().unwrap_or_else(|answer| panic!("{answer}"));
    sessions.iter().map(version).collect()
}

fn open(host: &DaemonHarness, count: usize) -> Vec<StickySession> {
    let sessions: Vec<_> = (0..count).map(|_| StickySession::open(host.listen)).collect();
    assert!(served_by(&sessions).iter().all(|version| version == "v1"));
    sessions
}

/// What the deploy chose: the first step and the reason, as recorded when the release was ready.
fn recorded(host: &DaemonHarness) -> (Option<u32>, RampReason) {
    let entries = host.entries(2);
    let ready = entries.iter().find_map(|entry| match &entry.event {
        TimelineEvent::Ready { ramp, choice: Some(choice), .. } => {
            Some((ramp.map(|step| step.of), choice.reason))
        }
        _ => None,
    });
    ready.unwrap_or_else(|| panic!("{entries:?}"))
}

fn sessions_only(sessions: u64) -> ActiveUsers {
    ActiveUsers { sessions, clients: 0 }
}

/// Each session that was on v2 is still there.
fn assert_forward_only(before: &[String], after: &[String]) {
    let back = before.iter().zip(after).filter(|(was, is)| *was == "v2" && *is != "v2").count();
    assert_eq!(back, 0, "{before:?}, then {after:?}");
}

#[test]
fn enough_sessions_get_a_ramp_that_survives_a_kill_and_a_new_configuration() {
    let mut host = DaemonHarness::with_v1("");
    let sessions = open(&host, 40);
    let expected = "5 %, 25 %, 50 % of the users: 40 active sessions can move";
    assert_eq!(host.status()["ramp"], expected);
    host.run_cli(&["explain", SERVICE]).expect_code(0).expect_text(&["next deploy", expected]);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    assert_eq!(recorded(&host), (Some(3), RampReason::EnoughUsers(sessions_only(40))));
    let mut arms = Vec::new();
    wait_until("some of the users try it", || {
        arms = served_by(&sessions);
        arms.iter().any(|version| version == "v2")
    });
    assert!(arms.iter().any(|version| version == "v1"), "{arms:?}");

    host.kill();
    let config = std::fs::read_to_string(host.config()).unwrap();
    let section = format!("[service.{SERVICE}]");
    host.write_config(&config.replace(&section, &format!("{section}\nramp = [\"100%\"]")));
    host.start();
    let status = host.status();
    assert_eq!((&status["trial"]["of"], &status["ramp"]), (&3.into(), &expected.into()));
    let after = served_by(&sessions);
    assert_forward_only(&arms, &after);
    wait_until("the second step of the same ramp", || {
        assert_forward_only(&after, &served_by(&sessions));
        host.status()["trial"]["step"] == 2
    });
    host.run_cli(&["rollback", SERVICE, "--because", "enough seen"]).expect_code(0);
    host.wait_for_phase("steady");
    assert!(served_by(&sessions).iter().all(|version| version == "v1"), "all are back");
}

#[test]
fn sessions_of_an_automatic_ramp_follow_when_the_release_is_accepted() {
    let host = DaemonHarness::with_v1("");
    let sessions = open(&host, 20);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    assert_eq!(host.status()["trial"]["of"], 3);
    host.run_cli(&["promote", SERVICE, "--because", "enough seen"]).expect_code(0);
    assert!(served_by(&sessions).iter().all(|version| version == "v2"), "all follow");
}

#[test]
fn few_sessions_leave_a_deploy_as_it_was_without_a_ramp() {
    let host = DaemonHarness::with_v1("");
    let sessions = open(&host, 19);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    let status = host.status();
    assert_eq!((&status["active"], &status["trial"]), (&"v2".into(), &Value::Null));
    let why = "all users at once: 19 active sessions can move, a ramp needs 20";
    assert_eq!(status["ramp"], why);
    assert_eq!(
        recorded(&host),
        (None, RampReason::FewUsers { users: sessions_only(19), needed: 20 })
    );
    host.run_cli(&["explain", SERVICE]).expect_code(0).expect_text(&["chosen ramp", why]);
    host.run_cli(&["timeline", SERVICE]).expect_code(0).expect_text(&[why]);
    assert!(served_by(&[StickySession::open(host.listen)]).iter().all(|version| version == "v2"));
    host.run_cli(&["promote", SERVICE, "--because", "enough seen"]).expect_code(0);
    assert!(served_by(&sessions).iter().all(|version| version == "v1"), "they stay");
}
