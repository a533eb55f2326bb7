//! The daemon dies at a random moment of a bad deploy, and finishes the rollback after its restart.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use rollbackd::model::TimelineEvent;

use crate::support::{
    DaemonHarness, Rng, SERVICE, VersionPoller, serving_version, sleep, wait_until,
};

/// Interruptions in each test.
const ROUNDS: u32 = 6;
/// When the new release goes wrong, and how long a deploy with its rollback takes at most.
const FAULT_AFTER_MS: u64 = 1_200;
const SCENARIO_MS: u64 = 4_200;

/// How the daemon ends in the middle of a deploy, and continues.
type Interruption = fn(&mut DaemonHarness);

fn kill_and_restart(host: &mut DaemonHarness) {
    host.kill();
    assert_one_process_per_release(host);
    host.start();
}

fn interrupt_repeatedly(seed: u64, fault: &str, interrupt: Interruption) {
    let mut dice = Rng(seed);
    let mut host = DaemonHarness::with_v1("");
    let first = host.release_process(1);
    for round in 0..ROUNDS {
        let version = format!("v{}", round + 2);
        let load = VersionPoller::start(host.listen);
        let deploy = host.spawn_faulty_deploy(&version, fault, FAULT_AFTER_MS, &["--wait"]);
        let mut wait = dice.below(SCENARIO_MS);
        // Some die again while they recover.
        for _ in 0..=dice.below(3) {
            println!("seed {seed} {fault} round {round}: ends {wait} ms on");
            // The fault comes at a random moment.
            sleep(Duration::from_millis(wait));
            interrupt(&mut host);
            wait = dice.below(900);
        }
        deploy.wait();
        wait_until("v1 has the traffic and rests", || {
            assert_one_process_per_release(&host);
            let status = host.status();
            status["active"] == "v1" && status["phase"] == "steady" && status["warm"].is_null()
        });
        load.stop();
        wait_until("the bad release is gone", || host.release_processes().len() == 1);
        assert_eq!(host.release_process(1), first, "v1 was adopted, not started again");
        for _ in 0..5 {
            assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
        }
        let newest = u32::try_from(host.status()["deploy"].as_u64().unwrap()).unwrap();
        assert_timeline_is_complete(&host, newest);
    }
}

fn assert_one_process_per_release(host: &DaemonHarness) {
    let mut slots: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for it in host.release_processes() {
        slots.entry(it.slot).or_default().push(it.number);
    }
    assert!(slots.values().all(|numbers| numbers.len() == 1), "more than one: {slots:?}");
}

fn assert_timeline_is_complete(host: &DaemonHarness, deploy: u32) {
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
fn sigkill_at_random_times_during_a_total_failure() {
    interrupt_repeatedly(1, "total", kill_and_restart);
}

#[test]
fn sigkill_at_other_random_times_during_a_total_failure() {
    interrupt_repeatedly(2, "total", kill_and_restart);
}

#[test]
fn sigkill_at_random_times_during_a_crash_loop() {
    interrupt_repeatedly(3, "crash-loop", kill_and_restart);
}

#[test]
fn sigkill_at_random_times_during_many_errors() {
    interrupt_repeatedly(4, "errors=60%", kill_and_restart);
}

#[test]
fn handover_at_random_times_during_a_total_failure() {
    interrupt_repeatedly(5, "total", DaemonHarness::wait_for_handover);
}

#[test]
fn handover_at_random_times_during_a_crash_loop() {
    interrupt_repeatedly(6, "crash-loop", DaemonHarness::wait_for_handover);
}

/// A release that ran all the while does not start: it is not excused as after a boot.
#[test]
fn a_release_that_failed_while_the_daemon_was_down_is_found_soon() {
    let mut host = DaemonHarness::with_v1("");
    // Longer than a release may take to start after a boot.
    let deploy = host.spawn_faulty_deploy("v2", "total", 11_000, &["--wait"]);
    host.wait_for_phase("baking");
    host.kill();
    wait_until("v2 fails", || serving_version(host.green).is_err());
    host.start();
    deploy.wait().expect_code(3);
    let entries = host.entries(2);
    let at = |kind: &str| entries.iter().find(|it| it.event.kind() == kind).unwrap().moment;
    let took = at("detected").since(at("restored"));
    assert!(took < Duration::from_secs(9), "{took:?}: {:?}", host.kinds(2));
}

#[test]
fn truncated_last_line_is_removed_and_recorded() {
    let mut host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.kill();
    let before = host.entries(2);
    let path = host.state().join(SERVICE).join("000002.jsonl");
    let torn = br#"{"seq":4,"at":"2026-01-01T00:00"#;
    OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();
    host.run_cli(&["timeline", SERVICE]).expect_code(0).expect_text(&["v2 has the traffic"]);
    host.start();
    host.wait_for_phase("baking");
    wait_until("v2 answers again", || serving_version(host.listen) == Ok("v2".to_owned()));
    let after = host.entries(2);
    assert_eq!(after[..before.len()], before[..]);
    let restored = &after[before.len()];
    let TimelineEvent::Restored { truncated_bytes, .. } = restored.event else {
        panic!("{restored:?}");
    };
    assert_eq!(truncated_bytes, torn.len() as u64);
    let said = format!("truncated an incomplete last line of {} bytes", torn.len());
    assert!(restored.because.contains(&said), "{}", restored.because);
    assert_eq!(restored.seq, before.last().unwrap().seq + 1);
}

#[test]
fn truncated_first_line_of_the_first_deploy_is_logged() {
    let mut host = DaemonHarness::new("");
    host.start();
    host.kill();
    let path = host.state().join(SERVICE).join("000001.jsonl");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, br#"{"seq":1,"#).unwrap();
    host.start();
    assert_eq!(host.phase(), "empty");
    host.deploy("v1", &["--wait"]).expect_code(0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    let text = "truncated an incomplete last line of 9 bytes";
    wait_until(text, || host.log().contains(text));
}

/// As if the wall clock had changed while the daemon was down: the moments in the timeline lie in the
/// future, or in the past.
fn clock_jumped(shift_ms: i64) {
    let mut host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
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
    // It has moments, too, and would say that the daemon ran for an hour.
    std::fs::remove_file(path.with_extension("signals")).unwrap();
    host.start();
    let status = host.status();
    assert_eq!(status["phase"], "baking");
    let left = status["remaining_s"].as_f64().unwrap();
    assert!((500.0..=601.0).contains(&left), "of 10 minutes {left} s are left");
    host.run_cli(&["rollback", SERVICE, "--cut", "--because", "x"]).expect_code(0);
    assert_timeline_is_complete(&host, 2);
}

#[test]
fn clock_set_back_moves_no_deadline() {
    clock_jumped(3_600_000);
}

#[test]
fn clock_set_forward_moves_no_deadline() {
    clock_jumped(-3_600_000);
}
