//! Deploys that a review labelled, replayed: `rollbackd backtest --labelled`.
//!
//! The recordings are those of [`backtest_dir`], in which the release of deploy 2 is healthy and that of
//! deploy 3 is down from second 30 on, and one in which a fifth of the requests fails.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rollbackd::incident::{Author, Cause, IncidentEntry, IncidentEvent};
use rollbackd::model::{Counts, Moment, Observation, ReleaseNumber, Signal};
use rollbackd::record::{IncidentStore, SignalLogHeader, SignalLogWriter};
use serde_json::{Value, json};

use super::{backtest_dir, header, json_output, output_text, run_command};

/// Writes the timeline and the closed incident of a deploy that the daemon rolled back at a second of its
/// bake, or that an operator did.
fn label(host: &Path, deploy: u32, verdict: &str, found_at: Option<u64>) {
    let dir = host.join("state/weather");
    let opened = u64::from(deploy - 2) * 86_400_000 + 1_000;
    let moment = opened + 1_000 * found_at.unwrap_or(50);
    let release =
        |number: u32| json!({"version": format!("v{number}"), "number": number, "slot": "blue"});
    let line = |seq: u64, at: u64, kind: &str, data: Value| {
        json!({
            "seq": seq, "at": "2026-11-27T10:00:00.000000Z", "moment": at, "ms": at - opened,
            "service": "weather", "deploy": deploy, "because": "why", "kind": kind, "data": data,
        })
    };
    let verdict_then = json!({
        "release": 2, "finding": {"is": "breach", "severity": "degraded"}, "because": "why",
        "onset": moment, "failure_rate_lower": 0.1, "request_rate": 1.0,
    });
    let load = json!({
        "sessions": 9, "pinned": 2, "in_flight": 3, "request_rate": 50.0, "mean_session_s": 60.0,
    });
    let order = json!({"by": {"uid": 0, "pid": 1}, "strategy": null, "forced": false});
    let detected = match found_at {
        Some(_) => json!({"verdict": verdict_then, "load": load, "order": null}),
        None => json!({"verdict": null, "load": load, "order": order}),
    };
    let base = json!({"active": release(deploy - 1)});
    let by = json!({"uid": 0, "pid": 1});
    let deployed = json!({"release": release(deploy), "frozen": false, "forced": false, "by": by, "base": base});
    let timeline = [
        line(1, opened, "deployed", deployed),
        line(2, moment, "detected", detected),
        line(3, moment + 900, "recovered", Value::Null),
    ];
    let text: String = timeline.iter().map(|line| format!("{line}\n")).collect();
    fs::write(dir.join(format!("{deploy:06}.jsonl")), text).unwrap();
    let cause = found_at.map_or(Cause::OrderedRollback, |_| Cause::Rollback);
    let number = ReleaseNumber(deploy);
    let (service, because) = ("weather".to_owned(), "why".to_owned());
    let version = format!("v{deploy}");
    let by = Author { uid: 0, name: "root".to_owned() };
    let verdict = Some(verdict.parse().unwrap());
    for event in [
        IncidentEvent::Opened { service, deploy: number, version, cause, seq: 2, because },
        IncidentEvent::Closed { by, verdict, no_review: None },
    ] {
        let entry = IncidentEntry { wall_time: String::new(), moment: Moment(moment), event };
        IncidentStore::new(&dir).append(number, &entry).unwrap();
    }
}

/// Records deploy 5: from second 10 on, a fifth of 40 requests a second fails, and none of the previous
/// release.
fn record_failing(host: &Path) {
    let opened = Moment(3 * 86_400_000 + 1_000);
    let header = SignalLogHeader { opened, ..header() };
    let dir = host.join("state/weather");
    let (mut log, _) = SignalLogWriter::open(&dir, ReleaseNumber(5), &header).unwrap();
    for tick in 1..=120_u64 {
        let now = opened + Duration::from_millis(250 * tick);
        for release in [2, 1] {
            let server_fault = if release == 2 && tick > 40 { 2 } else { 0 };
            let ok = 10 - server_fault;
            let counts = Counts { ok, server_fault, with_latency: 10, ..Counts::default() };
            let observation = Observation::Block(250, counts);
            log.append(now, &Signal { release: ReleaseNumber(release), observation });
        }
    }
}

fn compare(host: &Path, words: &[&str]) -> std::process::Output {
    let fixed = ["backtest", "--labelled", "--current", "config.toml"];
    run_command(host, &[&fixed, words].concat())
}

#[test]
fn labelled_deploys_are_compared_with_what_happened() {
    let host = backtest_dir();
    label(host.path(), 2, "false-alarm", Some(20));
    record_failing(host.path());
    label(host.path(), 5, "right", Some(26));
    let expected = "\
deploy     releases  review              then                  failed  now                       failed  change
weather 2  v1 -> v2  false-alarm (good)  rolled back (20.0 s)  0       undecided                 0       false alarm avoided
weather 5  v4 -> v5  right (bad)         rolled back (26.0 s)  128     degraded, drain (15.8 s)  46      still found

config.toml:
  good releases  1: 1 of 1 (95 % interval 2.5 % to 100 %) false alarms avoided, 0 new
  bad releases   1: 1 of 1 (95 % interval 2.5 % to 100 %) still found, 0 found now only; failed requests 128 then, 46 now
exit 0
";
    assert_eq!(output_text(&compare(host.path(), &["weather"])), expected);
    assert_eq!(output_text(&compare(host.path(), &[])), expected, "all services");
    let [found] = json_output(&compare(host.path(), &["--json"])).try_into().unwrap();
    let found: Value = found;
    assert_eq!(found["schema"], "rollbackd.labelled/1");
    let changes: Vec<_> = (0..2).map(|row| &found["deploys"][row]["change"]).collect();
    assert_eq!(changes, ["alarm_avoided", "still_found"]);
    assert_eq!(found["deploys"][1]["then"]["at_second"], 26.0);
    assert_eq!(found["sums"][0]["still_found"]["count"], 1);
    let later = output_text(&compare(host.path(), &["--from", "3"]));
    assert!(later.contains("weather 5") && !later.contains("weather 2"), "{later}");
}

#[test]
fn a_regression_has_its_exit_code() {
    let host = backtest_dir();
    label(host.path(), 3, "not-the-deploy", None);
    let told = output_text(&compare(host.path(), &[]));
    assert!(told.contains("NEW FALSE ALARM") && told.ends_with("exit 3\n"), "{told}");
    label(host.path(), 2, "right", Some(20));
    let told = output_text(&compare(host.path(), &[]));
    assert!(told.contains("NO LONGER FOUND") && told.ends_with("exit 11\n"), "{told}");
    // The exit code is about the candidate, whose bake ends before the release is down.
    let config = fs::read_to_string(host.path().join("config.toml")).unwrap();
    let candidate = config.replace("bake = \"1m\"", "bake = \"20s\"");
    fs::write(host.path().join("candidate.toml"), candidate).unwrap();
    let both = ["--from", "3", "--config", "candidate.toml"];
    let expected = "\
deploy     releases  review                 then                        failed  configuration   now                 failed  change
weather 3  v2 -> v3  not-the-deploy (good)  rolled back by an operator  0       config.toml     down, cut (32.0 s)  0       NEW FALSE ALARM
weather 3  v2 -> v3  not-the-deploy (good)  rolled back by an operator  0       candidate.toml  undecided           0       no alarm

config.toml:
  good releases  1: 0 of 0 false alarms avoided, 1 new
  bad releases   0: 0 of 0 still found, 0 found now only; failed requests 0 then, 0 now

candidate.toml:
  good releases  1: 0 of 0 false alarms avoided, 0 new
  bad releases   0: 0 of 0 still found, 0 found now only; failed requests 0 then, 0 now
exit 0
";
    assert_eq!(output_text(&compare(host.path(), &both)), expected);
}

#[test]
fn what_cannot_be_replayed_has_a_reason() {
    let host = backtest_dir();
    let recording = host.path().join("state/weather/000003.signals");
    for (words, part, exit) in [
        (&[][..], "no labelled deploy of weather can be replayed", "exit 7\n"),
        (&["weather", "news"], "no service news; the configuration has weather", "exit 7\n"),
        (&["x.csv"], "no service x.csv", "exit 7\n"),
        (&["--what-if", "errors=5%@1s"], "cannot be used with", "exit 2\n"),
    ] {
        let told = output_text(&compare(host.path(), words));
        assert!(told.contains(part) && told.ends_with(exit), "{words:?}: {told}");
    }
    label(host.path(), 3, "right", Some(36));
    let whole = fs::read(&recording).unwrap();
    let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    fs::write(&recording, lines[..lines.len() / 4].concat()).unwrap();
    let told = output_text(&compare(host.path(), &[]));
    assert!(told.contains("not recorded so far") && told.ends_with("exit 0\n"), "{told}");
    assert!(told.contains("left out       1: the recording ends before"), "{told}");
    fs::write(&recording, [lines[0], b"garbage\n", lines[1]].concat()).unwrap();
    let told = output_text(&compare(host.path(), &[]));
    assert!(told.contains("line 2: this line is invalid") && told.ends_with("exit 1\n"), "{told}");
    fs::remove_file(&recording).unwrap();
    let told = output_text(&compare(host.path(), &[]));
    assert!(told.contains("1 labelled deploy without a recording"), "{told}");
    assert!(told.ends_with("exit 7\n"), "{told}");
}
