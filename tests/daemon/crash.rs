//! The daemon is killed at any moment of a deploy that goes wrong, and finishes it when it is back.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use rollbackd::model::Fact;

use crate::support::{Dice, Host, Load, SERVICE, ask, pause, soon};

/// Deaths in each of the tests.
const DEATHS: u32 = 6;
/// When the new release goes wrong, and how long a deploy with its rollback takes at most.
const WRONG_MS: u64 = 1_200;
const WHOLE_MS: u64 = 4_200;

/// How a daemon ends in the middle, and how it goes on.
type Ends = fn(&mut Host);

fn killed(host: &mut Host) {
    host.kill();
    one_process_each(host);
    host.start();
}

fn dies(seed: u64, fault: &str, ends: Ends) {
    let mut dice = Dice(seed);
    let mut host = Host::with_v1("");
    let first = host.process(1);
    for round in 0..DEATHS {
        let version = format!("v{}", round + 2);
        let load = Load::start(host.listen);
        let deploy = host.begin_bad(&version, fault, WRONG_MS, &["--wait"]);
        let mut wait = dice.below(WHOLE_MS);
        // Some die again while they take up the thread.
        for _ in 0..=dice.below(3) {
            println!("seed {seed} {fault} round {round}: ends {wait} ms on");
            pause(Duration::from_millis(wait));
            ends(&mut host);
            wait = dice.below(900);
        }
        deploy.done();
        soon("v1 has the traffic and rests", || {
            one_process_each(&host);
            let status = host.status();
            status["active"] == "v1" && status["phase"] == "steady" && status["warm"].is_null()
        });
        load.stop();
        soon("the bad release is gone", || host.running().len() == 1);
        assert_eq!(host.process(1), first, "v1 was adopted, not started again");
        for _ in 0..5 {
            assert_eq!(ask(host.listen), Ok("v1".to_owned()));
        }
        let newest = u32::try_from(host.status()["deploy"].as_u64().unwrap()).unwrap();
        timeline_is_whole(&host, newest);
    }
}

fn one_process_each(host: &Host) {
    let mut slots: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for it in host.running() {
        slots.entry(it.slot).or_default().push(it.number);
    }
    assert!(slots.values().all(|numbers| numbers.len() == 1), "more than one: {slots:?}");
}

fn timeline_is_whole(host: &Host, deploy: u32) {
    let entries = host.entries(deploy);
    let kinds = host.kinds(deploy);
    let seq: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
    let gapless: Vec<_> = (1..).take(seq.len()).collect();
    assert_eq!(seq, gapless, "{kinds:?}");
    assert!(entries.is_sorted_by_key(|entry| entry.moment), "{entries:#?}");
    assert_eq!(kinds[0], "deployed");
    let once = |kind: &str| kinds.iter().filter(|it| **it == kind).count() <= 1;
    for kind in ["ready", "detected", "decided", "recovered", "failed"] {
        assert!(once(kind), "{kind} twice in {kinds:?}");
    }
    let end = kinds.iter().rev().find(|kind| !matches!(**kind, "restored" | "noted")).unwrap();
    let ends: &[&str] = if deploy == 1 { &["accepted"] } else { &["recovered", "failed"] };
    assert!(ends.contains(end), "{kinds:?}");
    if let Some(at) = kinds.iter().position(|kind| *kind == "decided") {
        assert!(kinds[at..].contains(&"switched"), "{kinds:?}");
    }
}

#[test]
fn killed_at_any_moment_of_a_total_failure() {
    dies(1, "total", killed);
}

#[test]
fn killed_at_any_other_moment_of_a_total_failure() {
    dies(2, "total", killed);
}

#[test]
fn killed_at_any_moment_of_a_crash_loop() {
    dies(3, "crash-loop", killed);
}

#[test]
fn killed_at_any_moment_of_many_errors() {
    dies(4, "errors=60%", killed);
}

#[test]
fn handed_over_at_any_moment_of_a_total_failure() {
    dies(5, "total", Host::hand_over);
}

#[test]
fn handed_over_at_any_moment_of_a_crash_loop() {
    dies(6, "crash-loop", Host::hand_over);
}

#[test]
fn a_torn_last_line_is_cut_off_and_said() {
    let mut host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    host.kill();
    let before = host.entries(2);
    let path = host.state().join(SERVICE).join("000002.jsonl");
    let torn = br#"{"seq":4,"at":"2026-01-01T00:00"#;
    OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();
    host.verb(&["timeline", SERVICE]).expect(0).says(&["v2 has the traffic"]);
    host.start();
    host.wait_for_phase("baking");
    soon("v2 answers again", || ask(host.listen) == Ok("v2".to_owned()));
    let after = host.entries(2);
    assert_eq!(after[..before.len()], before[..]);
    let restored = &after[before.len()];
    assert_eq!(restored.fact, Fact::Restored { torn: torn.len() as u64 });
    let said = format!("an incomplete last line of {} bytes was cut off", torn.len());
    assert!(restored.because.contains(&said), "{}", restored.because);
    assert_eq!(restored.seq, before.last().unwrap().seq + 1);
}

#[test]
fn a_first_deploy_of_which_only_half_a_line_was_written_is_said_too() {
    let mut host = Host::new("");
    host.start();
    host.kill();
    let path = host.state().join(SERVICE).join("000001.jsonl");
    std::fs::write(&path, br#"{"seq":1,"#).unwrap();
    host.start();
    assert_eq!(host.phase(), "empty");
    host.deploy("v1", &["--wait"]).expect(0);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
    assert!(host.log().contains("an incomplete last line of 9 bytes was cut off"));
}

/// As if the wall had been set by so much while the daemon was down: what was written lies so much
/// in the future, or in the past.
fn the_wall_jumped(shift_ms: i64) {
    let mut host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    host.kill();
    let path = host.state().join(SERVICE).join("000002.jsonl");
    let shifted: String = host
        .entries(2)
        .into_iter()
        .map(|mut entry| {
            entry.moment.0 = entry.moment.0.checked_add_signed(shift_ms).unwrap();
            serde_json::to_string(&entry).unwrap() + "\n"
        })
        .collect();
    std::fs::write(&path, shifted).unwrap();
    host.start();
    let status = host.status();
    assert_eq!(status["phase"], "baking");
    let left = status["left_s"].as_f64().unwrap();
    assert!((500.0..=601.0).contains(&left), "of 10 minutes {left} s are left");
    host.verb(&["rollback", SERVICE, "--cut", "--because", "x"]).expect(0);
    timeline_is_whole(&host, 2);
}

#[test]
fn a_wall_that_was_set_back_moves_no_deadline() {
    the_wall_jumped(3_600_000);
}

#[test]
fn a_wall_that_was_set_forward_moves_no_deadline() {
    the_wall_jumped(-3_600_000);
}
