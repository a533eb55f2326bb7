//! `rollbackd backtest`, from the outside.
//!
//! Each `tests/backtest/NAME.txt` begins with a command line and goes on with what it prints;
//! `UPDATE=1` writes them anew.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rollbackd::judge::{About, Baseline, Judge, Limits, Objective};
use rollbackd::model::{Counts, Moment, Number, Reply, Seen, Signal};
use rollbackd::record::{Opening, Recording, read_recording};
use serde_json::Value;

#[path = "backtest/fake.rs"]
mod fake;

#[test]
fn every_command_prints_what_is_written_down() {
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
        let told = format!("{command}\n{}", tell(&run(&folder, &words)));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &told).unwrap();
        } else if written != told {
            wrong.push(format!("{} now:\n{told}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 writes them down", wrong.join("\n"));
}

#[test]
fn what_is_recorded_gives_the_same_evidence_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let opening = opening();
    let mut live = judge(&opening);
    let (mut recording, _) = Recording::open(folder.path(), Number(2), &opening).unwrap();
    for (now, signal) in signals() {
        recording.note(now, &signal);
        live.hear(now, &signal);
    }
    drop(recording);
    let recorded = read_recording(&folder.path().join("000002.signals")).unwrap();
    let mut replayed = judge(&recorded.opening);
    recorded.signals().for_each(|(now, signal)| replayed.hear(now, &signal));
    let now = recorded.last();
    assert_eq!(live.evidence().e.to_bits(), replayed.evidence().e.to_bits());
    assert!(live.evidence().e > 0.0, "there is something to compare");
    assert_eq!(live.evidence(), replayed.evidence());
    assert_eq!(live.verdict(now), replayed.verdict(now));
    assert_eq!(live.total(), replayed.total());
}

#[test]
fn recordings_of_a_service_are_replayed_from_a_deploy_or_a_date_on() {
    let host = host();
    let path = host.path();
    let sources = |words: &[&str]| -> Vec<String> {
        let words =
            [&["backtest", "weather", "--json", "--current", "config.toml"], words].concat();
        let rows = json(&run(path, &words));
        rows.iter().map(|row| row["source"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(sources(&[]), ["weather deploy 2", "weather deploy 3", "weather deploy 4"]);
    assert_eq!(sources(&["--from", "3"]), ["weather deploy 3", "weather deploy 4"]);
    assert_eq!(sources(&["--from", "1970-01-02"]), ["weather deploy 3", "weather deploy 4"]);
    let words = ["backtest", "weather", "--json", "--current", "config.toml"];
    let rows = json(&run(path, &words));
    let [healthy, down, _] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(healthy["at_second"], Value::Null);
    assert_eq!((&down["verdict"], &down["severity"]), (&"breach".into(), &"down".into()));
    assert_eq!((&down["strategy"], &down["at_second"]), (&"cut".into(), &32.0.into()));
    let told = run(path, &["backtest", "weather/000009.signals", "--current", "config.toml"]);
    assert_eq!(told.status.code(), Some(1));
    let told = run(path, &["backtest", "weather", "--from", "9", "--current", "config.toml"]);
    assert_eq!(told.status.code(), Some(7), "{}", tell(&told));
}

#[test]
fn check_says_what_traffic_like_the_recorded_can_not_test() {
    let host = host();
    let told = tell(&run(host.path(), &["check", "config.toml"]));
    assert!(told.contains("good, 1 service"), "{told}");
    assert!(told.contains("at 40 requests/min a 5 % regression needs"), "{told}");
    assert!(told.contains("the bake is 1m") && told.contains("help: "), "{told}");
    let fine = fs::read_to_string(host.path().join("config.toml")).unwrap();
    fs::write(host.path().join("config.toml"), fine.replace("1m", "30m")).unwrap();
    let told = tell(&run(host.path(), &["check", "config.toml"]));
    assert!(!told.contains("regression"), "{told}");
}

#[test]
fn counters_of_prometheus_are_replayed_with_their_gaps_and_resets() {
    let mut series = fake::Series::new();
    let mut add = |name: &str, value: &dyn Fn(u32) -> String| {
        let sample = |step: u32| (1_000.0 + f64::from(step) * 5.0, value(step));
        series.insert(name.to_owned(), (0..120).map(sample).collect());
    };
    add("total", &|step| (500 * step).to_string());
    add("clean", &|_| "0".to_owned());
    add("bad", &|step| (step.saturating_sub(40) * 150).to_string());
    add("reset", &|step| if step < 30 { 500 * step } else { 500 * (step - 30) }.to_string());
    add("gap", &|step| if step % 3 == 1 { "NaN".to_owned() } else { (500 * step).to_string() });
    let url = format!("{}/prom", fake::serve(series));
    let ask = |words: &[&str]| {
        let fixed = ["backtest", "--prometheus", &url, "--start", "1000", "--end", "1595"];
        let words = [&fixed, ["--current", "current.toml", "--json"].as_slice(), words].concat();
        run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backtest"), &words)
    };
    for total in ["total", "reset", "gap"] {
        let row = json(&ask(&["--total", total, "--bad", "clean"])).remove(0);
        assert_eq!(
            (&row["verdict"], &row["at_second"]),
            (&"healthy".into(), &Value::Null),
            "{row}"
        );
    }
    let old = ["--old-total", "total", "--old-bad", "clean"];
    let row = json(&ask(&[["--total", "total", "--bad", "bad"], old].concat())).remove(0);
    assert_eq!(row["verdict"], "breach", "{row}");
    assert!(row["at_second"].as_f64().unwrap() > 200.0, "{row}");
    for (total, told) in [
        ("none", "no series; correct it, or add `or vector(0)`"),
        ("many", "2 series; write sum(...) around it"),
        ("sum(", "parse error: unexpected end; correct the expression"),
    ] {
        let refused = ask(&["--total", total, "--bad", "clean"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(tell(&refused).contains(told), "{}", tell(&refused));
    }
    let refused = ask(&["--total", "total", "--bad", "clean", "--step", "10ms"]);
    assert!(tell(&refused).contains("longer --step"), "{}", tell(&refused));
}

/// A state folder with three recordings of one service: one is fine, one goes down, one is idle.
fn host() -> tempfile::TempDir {
    let host = tempfile::tempdir().unwrap();
    let state = host.path().join("state");
    let config = include_str!("backtest/current.toml");
    let config = format!("[daemon]\nstate_dir = {state:?}\n{config}bake = \"1m\"\n");
    fs::write(host.path().join("config.toml"), config).unwrap();
    for deploy in 2..=4_u32 {
        let opened = Moment(u64::from(deploy - 2) * 86_400_000 + 1_000);
        let opening = Opening { release: Number(2), opened, ..opening() };
        let dir = state.join("weather");
        let (mut recording, _) = Recording::open(&dir, Number(deploy), &opening).unwrap();
        for tick in 1..=240_u64 {
            let now = opened + Duration::from_millis(250 * tick);
            let ok = u64::from(deploy != 4 && tick % 4 == 0);
            let counts = Counts { ok, timed: ok, ..Counts::default() };
            recording.note(now, &Signal { release: Number(2), seen: Seen::Block(250, counts) });
            if tick % 4 == 0 {
                let down = deploy == 3 && 30 <= tick / 4;
                let reply = if down { Reply::Refused } else { Reply::Ok };
                recording.note(now, &Signal { release: Number(2), seen: Seen::Probe(reply) });
            }
        }
    }
    host
}

fn opening() -> Opening {
    let opened = Moment(1_000);
    Opening { release: Number(2), warm: Some(Number(1)), opened, ..Opening::default() }
}

/// Everything that can be heard, in no special order, and an idle stretch.
fn signals() -> Vec<(Moment, Signal)> {
    let mut signals = Vec::new();
    for tick in 0..2_000_u64 {
        let now = Moment(1_250 + 250 * tick + tick % 5 / 4);
        let busy = !(500..1_500).contains(&tick);
        for release in [2, 1] {
            let bad = u64::from(busy && release == 2 && tick % 9 == 0);
            let ok = if busy { 1 + tick * 7 % 5 } else { 0 };
            let counts =
                Counts { ok, server_fault: bad, timed: ok, slow: bad, ..Counts::default() };
            let seen = Seen::Block(250, counts);
            signals.push((now, Signal { release: Number(release), seen }));
        }
        if tick % 4 == 1 {
            let reply =
                if tick % 52 == 1 { Reply::Wrong("it said \"no\"".into()) } else { Reply::Ok };
            let signal = Signal { release: Number(2), seen: Seen::Probe(reply) };
            signals.push((now + Duration::from_millis(3), signal));
            let calls = vec![(("tools/call".into(), "forecast".into()), Counts::default())];
            signals.push((now, Signal { release: Number(2), seen: Seen::Calls(calls) }));
            signals.push((now, Signal { release: Number(1), seen: Seen::Shadow(tick % 3, 0) }));
        }
    }
    signals.sort_by_key(|(now, _)| *now);
    signals
}

/// The one place where this test makes a judge.
fn judge(opening: &Opening) -> Judge {
    let objective = |about, budget| Objective { about, budget, weight: 0.5 };
    let limits = Limits {
        objectives: vec![objective(About::Availability, 0.005), objective(About::Latency, 0.01)],
        max_false_rollback: 0.001,
        min_effect: 2.0,
        burst: Duration::from_secs(5),
        bake: Duration::from_mins(30),
        probes: 3,
        baseline: Baseline::Probes,
        shadow: true,
        scrape: None,
    };
    Judge::new(opening.release, opening.warm, limits, opening.history.clone(), opening.opened)
}

fn run(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rollbackd"))
        .args(words)
        .current_dir(folder)
        .env_remove("ROLLBACKD_CONFIG")
        .output()
        .unwrap()
}

fn json(told: &Output) -> Vec<Value> {
    let text = String::from_utf8(told.stdout.clone()).unwrap();
    assert!(told.status.success(), "{}", tell(told));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn tell(told: &Output) -> String {
    let mut text = String::from_utf8_lossy(&told.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&told.stderr));
    let _ = writeln!(text, "exit {}", told.status.code().unwrap());
    text
}
