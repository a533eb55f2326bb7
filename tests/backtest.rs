//! Runs `rollbackd backtest` as a command.
//!
//! Each `tests/backtest/NAME.txt` starts with a command line, followed by its expected output.
//! `UPDATE=1` rewrites the output.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rollbackd::judge::{Indicator, Judge, Objective, SloSettings};
use rollbackd::model::{Counts, Moment, Observation, ProbeResult, ReleaseNumber, Signal};
use rollbackd::record::{SignalLogHeader, SignalLogWriter, read_signal_log};
use serde_json::Value;

#[path = "backtest/fake_prometheus.rs"]
mod fake_prometheus;
#[path = "backtest/labelled.rs"]
mod labelled;

#[test]
fn every_command_matches_its_golden_output() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backtest");
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut goldens: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "txt")).collect();
    goldens.sort();
    assert!(goldens.len() >= 12, "{} files", goldens.len());
    let mut wrong = Vec::new();
    for golden in goldens {
        let written = fs::read_to_string(&golden).unwrap();
        let command = written.lines().next().unwrap();
        let words: Vec<_> = command.strip_prefix("$ rollbackd ").unwrap().split(' ').collect();
        let told = format!("{command}\n{}", output_text(&run_command(&folder, &words)));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &told).unwrap();
        } else if written != told {
            wrong.push(format!("{} now:\n{told}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 writes them down", wrong.join("\n"));
}

#[test]
fn recorded_signals_replay_to_identical_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let opening = header();
    let mut live = judge(&opening);
    let (mut recording, _) =
        SignalLogWriter::open(folder.path(), ReleaseNumber(2), &opening).unwrap();
    for (now, signal) in recorded_signals() {
        recording.append(now, &signal);
        live.observe(now, &signal);
    }
    drop(recording);
    let recorded = read_signal_log(&folder.path().join("000002.signals")).unwrap();
    let mut replayed = judge(&recorded.header);
    recorded.signals().for_each(|(now, signal)| replayed.observe(now, &signal));
    let now = recorded.last_moment();
    assert_eq!(live.evidence().e_value.to_bits(), replayed.evidence().e_value.to_bits());
    assert!(live.evidence().e_value > 0.0, "there is something to compare");
    assert_eq!(live.evidence(), replayed.evidence());
    assert_eq!(live.verdict(now), replayed.verdict(now));
    assert_eq!(live.total(), replayed.total());
}

#[test]
fn replay_starts_at_a_deploy_or_a_date() {
    let host = backtest_dir();
    let path = host.path();
    let sources = |words: &[&str]| -> Vec<String> {
        let words =
            [&["backtest", "weather", "--json", "--current", "config.toml"], words].concat();
        let rows = json_output(&run_command(path, &words));
        rows.iter().map(|row| row["source"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(sources(&[]), ["weather deploy 2", "weather deploy 3", "weather deploy 4"]);
    assert_eq!(sources(&["--from", "3"]), ["weather deploy 3", "weather deploy 4"]);
    assert_eq!(sources(&["--from", "1970-01-02"]), ["weather deploy 3", "weather deploy 4"]);
    let words = ["backtest", "weather", "--json", "--current", "config.toml"];
    let rows = json_output(&run_command(path, &words));
    let [healthy, down, _] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(healthy["at_second"], Value::Null);
    assert_eq!((&down["verdict"], &down["severity"]), (&"breach".into(), &"down".into()));
    assert_eq!((&down["strategy"], &down["at_second"]), (&"cut".into(), &32.0.into()));
    let told =
        run_command(path, &["backtest", "weather/000009.signals", "--current", "config.toml"]);
    assert_eq!(told.status.code(), Some(1));
    let told =
        run_command(path, &["backtest", "weather", "--from", "9", "--current", "config.toml"]);
    assert_eq!(told.status.code(), Some(7), "{}", output_text(&told));
}

#[test]
fn check_reports_what_recorded_traffic_cannot_detect() {
    let host = backtest_dir();
    let told = output_text(&run_command(host.path(), &["check", "config.toml"]));
    assert!(told.contains("good, 1 service"), "{told}");
    assert!(told.contains("at 40 requests/min a 5 % regression needs"), "{told}");
    assert!(told.contains("the bake is 1m") && told.contains("help: "), "{told}");
    let fine = fs::read_to_string(host.path().join("config.toml")).unwrap();
    fs::write(host.path().join("config.toml"), fine.replace("1m", "30m")).unwrap();
    let told = output_text(&run_command(host.path(), &["check", "config.toml"]));
    assert!(!told.contains("regression"), "{told}");
}

#[test]
fn prometheus_counters_replay_with_gaps_and_resets() {
    let mut series = fake_prometheus::Series::new();
    let mut add = |name: &str, value: &dyn Fn(u32) -> String| {
        let sample = |step: u32| (1_000.0 + f64::from(step) * 5.0, value(step));
        series.insert(name.to_owned(), (0..120).map(sample).collect());
    };
    add("total", &|step| (500 * step).to_string());
    add("clean", &|_| "0".to_owned());
    add("bad", &|step| (step.saturating_sub(40) * 150).to_string());
    add("reset", &|step| if step < 30 { 500 * step } else { 500 * (step - 30) }.to_string());
    add("gap", &|step| if step % 3 == 1 { "NaN".to_owned() } else { (500 * step).to_string() });
    let url = format!("{}/prom", fake_prometheus::serve_prometheus(series));
    let ask = |words: &[&str]| {
        let fixed = ["backtest", "--prometheus", &url, "--start", "1000", "--end", "1595"];
        let words = [&fixed, ["--current", "current.toml", "--json"].as_slice(), words].concat();
        run_command(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backtest"), &words)
    };
    for total in ["total", "reset", "gap"] {
        let row = json_output(&ask(&["--total", total, "--bad", "clean"])).remove(0);
        assert_eq!(
            (&row["verdict"], &row["at_second"]),
            (&"healthy".into(), &Value::Null),
            "{row}"
        );
    }
    let old = ["--old-total", "total", "--old-bad", "clean"];
    let row = json_output(&ask(&[["--total", "total", "--bad", "bad"], old].concat())).remove(0);
    assert_eq!(row["verdict"], "breach", "{row}");
    assert!(row["at_second"].as_f64().unwrap() > 200.0, "{row}");
    for (total, told) in [
        ("none", "no series; correct it, or add `or vector(0)`"),
        ("many", "2 series; write sum(...) around it"),
        ("sum(", "parse error: unexpected end; correct the expression"),
    ] {
        let refused = ask(&["--total", total, "--bad", "clean"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(output_text(&refused).contains(told), "{}", output_text(&refused));
    }
    let refused = ask(&["--total", "total", "--bad", "clean", "--step", "10ms"]);
    assert!(output_text(&refused).contains("longer --step"), "{}", output_text(&refused));
}

/// A state directory with three recordings of one service: one is fine, one goes down, one is idle.
fn backtest_dir() -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    let state = host.path().join("state");
    let config = include_str!("backtest/current.toml");
    let config = format!("[daemon]\nstate_dir = {state:?}\n{config}bake = \"1m\"\n");
    fs::write(host.path().join("config.toml"), config).unwrap();
    for deploy in 2..=4_u32 {
        let opened = Moment(u64::from(deploy - 2) * 86_400_000 + 1_000);
        let opening = SignalLogHeader { release: ReleaseNumber(2), opened, ..header() };
        let dir = state.join("weather");
        let (mut recording, _) =
            SignalLogWriter::open(&dir, ReleaseNumber(deploy), &opening).unwrap();
        for tick in 1..=240_u64 {
            let now = opened + Duration::from_millis(250 * tick);
            let ok = u64::from(deploy != 4 && tick % 4 == 0);
            let counts = Counts { ok, with_latency: ok, ..Counts::default() };
            recording.append(
                now,
                &Signal { release: ReleaseNumber(2), observation: Observation::Block(250, counts) },
            );
            if tick % 4 == 0 {
                let down = deploy == 3 && 30 <= tick / 4;
                let reply = if down { ProbeResult::Refused } else { ProbeResult::Ok };
                recording.append(
                    now,
                    &Signal { release: ReleaseNumber(2), observation: Observation::Probe(reply) },
                );
            }
        }
    }
    host
}

fn header() -> SignalLogHeader {
    let opened = Moment(1_000);
    SignalLogHeader {
        release: ReleaseNumber(2),
        warm: Some(ReleaseNumber(1)),
        opened,
        ..SignalLogHeader::default()
    }
}

/// Every kind of signal, and an idle period in the middle.
fn recorded_signals() -> Vec<(Moment, Signal)> {
    let mut signals = Vec::new();
    for tick in 0..2_000_u64 {
        let now = Moment(1_250 + 250 * tick + tick % 5 / 4);
        let busy = !(500..1_500).contains(&tick);
        for release in [2, 1] {
            let bad = u64::from(busy && release == 2 && tick % 9 == 0);
            let ok = if busy { 1 + tick * 7 % 5 } else { 0 };
            let counts =
                Counts { ok, server_fault: bad, with_latency: ok, slow: bad, ..Counts::default() };
            let seen = Observation::Block(250, counts);
            signals.push((now, Signal { release: ReleaseNumber(release), observation: seen }));
        }
        if tick % 4 == 1 {
            let reply = if tick % 52 == 1 {
                ProbeResult::Unexpected("it said \"no\"".into())
            } else {
                ProbeResult::Ok
            };
            let signal =
                Signal { release: ReleaseNumber(2), observation: Observation::Probe(reply) };
            signals.push((now + Duration::from_millis(3), signal));
            let calls = vec![(("tools/call".into(), "forecast".into()), Counts::default())];
            signals.push((
                now,
                Signal { release: ReleaseNumber(2), observation: Observation::Calls(calls) },
            ));
            signals.push((
                now,
                Signal { release: ReleaseNumber(1), observation: Observation::Shadow(tick % 3, 0) },
            ));
        }
    }
    signals.sort_by_key(|(now, _)| *now);
    signals
}

/// Creates every judge of this test.
fn judge(opening: &SignalLogHeader) -> Judge {
    let objective =
        |about, budget| Objective { indicator: about, error_budget: budget, weight: 0.5 };
    let limits = SloSettings {
        objectives: vec![
            objective(Indicator::Availability, 0.005),
            objective(Indicator::Latency, 0.01),
        ],
        ..SloSettings::default()
    };
    Judge::new(opening.release, opening.warm, limits, opening.history.clone(), opening.opened)
}

fn run_command(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rollbackd"))
        .args(words)
        .current_dir(folder)
        .env_remove("ROLLBACKD_CONFIG")
        .output()
        .unwrap()
}

fn json_output(told: &Output) -> Vec<Value> {
    let text = String::from_utf8(told.stdout.clone()).unwrap();
    assert!(told.status.success(), "{}", output_text(told));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn output_text(told: &Output) -> String {
    let mut text = String::from_utf8_lossy(&told.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&told.stderr));
    let _ = writeln!(text, "exit {}", told.status.code().unwrap());
    text
}
