//! A ramp with a real daemon under load: both releases serve, and a restart changes no arm.

use rollbackd::clock::Clock;
use rollbackd::demo::traffic::{TrafficGenerator, TrafficReport};
use rollbackd::model::{Moment, TimelineEvent};
use serde_json::Value;

use crate::support::{DaemonHarness, SERVICE, wait_until};

const RATE: u32 = 200;
const SETTINGS: &str = "bake = \"10m\"\nramp = [\"20%\", \"50%\"]\nramp_step = \"15s\"";

fn under_load(host: &mut DaemonHarness, act: impl FnOnce(&mut DaemonHarness)) -> TrafficReport {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Clock::start(Moment(0));
        let load = TrafficGenerator::start(([127, 0, 0, 1], host.listen).into(), RATE, clock);
        let begun = clock.now();
        tokio::task::block_in_place(|| act(host));
        load.stop(begun).await
    })
}

/// The requests of the control and of the trial.
fn requests(status: &Value) -> [u64; 2] {
    [0, 1].map(|arm| status["trial"]["arms"][arm]["requests"].as_u64().unwrap_or(0))
}

fn wait_for_both_arms(host: &DaemonHarness, [control, trial]: [u64; 2]) {
    wait_until("both releases have more requests", || {
        let now = requests(&host.status());
        control + 50 < now[0] && trial + 10 < now[1]
    });
}

#[test]
fn ramp_goes_on_after_a_handover_and_its_abort_fails_no_request() {
    let mut host = DaemonHarness::with_v1(SETTINGS);
    let report = under_load(&mut host, |host| {
        host.deploy("v2", &[]).expect_code(0);
        host.wait_for_phase("baking");
        wait_for_both_arms(host, [0, 0]);
        let status = host.status();
        assert_eq!((&status["active"], &status["trial"]["step"]), (&"v1".into(), &1.into()));
        host.wait_for_handover();
        wait_for_both_arms(host, requests(&status));
        assert!(host.kinds(2).contains(&"restored"), "{:?}", host.kinds(2));
        host.run_cli(&["abort", SERVICE, "--because", "enough seen"]).expect_code(0);
    });
    assert_eq!((report.failed, report.sessions.broken), (0, 0), "{report:?}");
    let status = host.status();
    assert_eq!((&status["active"], &status["trial"]), (&"v1".into(), &Value::Null));
}

#[test]
fn killed_daemon_continues_the_ramp_with_its_evidence() {
    let mut host = DaemonHarness::with_v1(SETTINGS);
    under_load(&mut host, |host| {
        host.deploy("v2", &[]).expect_code(0);
        host.wait_for_phase("baking");
        wait_until("the second step", || host.status()["trial"]["step"] == 2);
        let before = requests(&host.status());
        // The log of the bake is written once a second.
        wait_for_both_arms(host, [before[0] + 300, before[1] + 60]);
        host.kill();
        host.start();
        let after = host.status();
        assert_eq!(after["trial"]["step"], 2);
        let kept = requests(&after);
        assert!(before[0] <= kept[0] && before[1] <= kept[1], "{before:?}, {kept:?}");
        wait_for_both_arms(host, kept);
        host.run_cli(&["promote", SERVICE, "--because", "enough seen"]).expect_code(0);
    });
    let (status, kinds) = (host.status(), host.kinds(2));
    assert_eq!((&status["active"], &status["phase"]), (&"v2".into(), &"steady".into()));
    let after = kinds.iter().skip_while(|kind| **kind != "restored");
    assert!(
        after.clone().count() > 1 && !after.clone().any(|kind| *kind == "stepped"),
        "{kinds:?}"
    );
}

/// The numbers of users in the text of a verdict.
fn users(because: &str) -> Vec<u64> {
    let words = Vec::from_iter(because.split([' ', ';', ',']));
    let before = words.windows(2).filter(|pair| pair[1] == "users" || pair[1] == "user");
    before.filter_map(|pair| pair[0].parse().ok()).collect()
}

#[test]
fn broken_release_meets_few_users_and_goes_back() {
    let mut host = DaemonHarness::with_v1(SETTINGS);
    let report = under_load(&mut host, |host| {
        host.deploy_faulty("v2", "errors=100%", 0, &[]).expect_code(3);
    });
    let entries = host.entries(2);
    let detected = entries.iter().find(|it| matches!(it.event, TimelineEvent::Detected { .. }));
    let because = &detected.unwrap().because;
    assert!(because.contains("trial") && because.contains("control"), "{because}");
    // All requests outside of sessions come from one address and are one user: shares of requests
    // depend on the arm of that one.
    let [trial, control] = users(because).try_into().unwrap();
    assert!(trial < control, "{because}");
    assert_eq!((report.sessions.broken, &host.status()["active"]), (0, &"v1".into()), "{report:?}");
}
