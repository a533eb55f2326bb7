//! Runs the judge on public data. packaging/manual/backtest.md has the results; `UPDATE=1` writes
//! them there. `tests/data/README.md` names the sources of the data.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rollbackd::judge::{Indicator, Judge, Objective, SloSettings};
use rollbackd::model::{Counts, Finding, History, Moment, Observation, ReleaseNumber, Signal};
use serde_json::Value;

#[path = "backtest/fake_prometheus.rs"]
mod fake_prometheus;

/// The page that contains the results.
const PAGE: &str = "packaging/manual/backtest.md";
/// The markers around the results.
const BEGIN: &str = "<!-- results: tests/public_data.rs -->\n```text\n";
const END: &str = "```\n<!-- end of results -->";
const COUNTERS: &str = include_str!("data/nginx-org-counters.csv");
const LATENCY: &str = include_str!("data/nab-ec2_request_latency_system_failure.csv");
const WINDOWS: &str = include_str!("data/nab-windows.json");
const SERIES: &str = "realKnownCause/ec2_request_latency_system_failure.csv";
/// The interval between two values.
const STEP: Duration = Duration::from_mins(5);
const DAY: usize = 288;

#[test]
fn results_match_the_manual() {
    let mut told = String::new();
    for zone in ["trac.nginx.org", "hg.nginx.org"] {
        zone_report(zone, &mut told);
    }
    for headroom in [1.0, 1.1, 1.25] {
        latency_report(headroom, &mut told);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{told}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, told, "UPDATE=1 writes it into {PAGE}");
    }
}

/// Splits the requests of a zone at random between two releases and reads their counters from
/// Prometheus: no breach is expected. Then makes a share of the new release's requests bad.
fn zone_report(zone: &str, report: &mut String) {
    let mut nulls = 0;
    for seed in 0..20 {
        let url = split_by_seed(zone, seed);
        let row = backtest(&url, None);
        assert!(row["at_second"].is_null(), "{zone}, seed {seed}: {row}");
        nulls += 1;
        if seed > 0 {
            continue;
        }
        for (what_if, must) in
            [("errors=100%@600s", true), ("errors=50%@600s", true), ("errors=20%@600s", false)]
        {
            let row = backtest(&url, Some(what_if));
            assert!(!must || row["found_after"].is_f64(), "{zone}, {what_if}: {row}");
            let found = match row["found_after"].as_f64() {
                Some(after) => format!("found {after:.0} s after it began"),
                None => "not found within the bake".to_owned(),
            };
            writeln!(report, "{zone}: {what_if}: {found}").unwrap();
        }
    }
    writeln!(report, "{zone}: dealt at random to two releases {nulls} times: no verdict").unwrap();
}

/// Each value is one request in a block of five minutes. It is slow above the threshold: the 99th
/// percentile of the first three days, times a headroom. The objective is 99 % fast requests.
fn latency_report(headroom: f64, report: &mut String) {
    let rows: Vec<(&str, f64)> = LATENCY
        .lines()
        .skip(1)
        .map(|line| line.split_once(',').unwrap())
        .map(|(time, value)| (time, value.parse().unwrap()))
        .collect();
    let mut first: Vec<f64> = rows.iter().take(3 * DAY).map(|(_, value)| *value).collect();
    first.sort_by(f64::total_cmp);
    let threshold = first[first.len() * 99 / 100] * headroom;
    let windows: Value = serde_json::from_str(WINDOWS).unwrap();
    let windows = windows[SERIES].as_array().unwrap();
    let inside = |time: &str| {
        windows
            .iter()
            .position(|it| it[0].as_str().unwrap() <= time && time <= it[1].as_str().unwrap())
    };
    let (mut judge, mut found) = (trial_judge(0), Vec::new());
    let slow = rows.iter().filter(|(_, value)| *value > threshold).count();
    for (index, (time, value)) in rows.iter().enumerate() {
        let end = Moment(0) + STEP * u32::try_from(index + 1).unwrap();
        let counts = Counts {
            ok: 1,
            with_latency: 1,
            slow: u64::from(*value > threshold),
            ..Counts::default()
        };
        let span = u32::try_from(STEP.as_millis()).unwrap();
        judge.observe(
            end,
            &Signal { release: ReleaseNumber(2), observation: Observation::Block(span, counts) },
        );
        if let Finding::Breach(_) = judge.verdict(end).finding {
            found.push(match inside(time) {
                Some(window) => format!("{} (window {})", time, window + 1),
                None => format!("{time} (outside of every window)"),
            });
            // After a rollback, another release would be on trial.
            judge = trial_judge(end.0);
        }
    }
    let percent = 100.0 * slow as f64 / rows.len() as f64;
    let times = format!("{headroom} x p99 = {threshold:.1}");
    let many = rows.len();
    writeln!(
        report,
        "latency, {times}: {slow} of {many} slow ({percent:.1} %), {} found",
        found.len()
    )
    .unwrap();
    found.iter().for_each(|found| writeln!(report, "  {found}").unwrap());
}

/// Creates every judge of this test.
fn trial_judge(opened: u64) -> Judge {
    let objectives =
        vec![Objective { indicator: Indicator::Latency, error_budget: 0.01, weight: 1.0 }];
    let limits = SloSettings { objectives, bake: STEP * 4_032, ..SloSettings::default() };
    Judge::new(ReleaseNumber(2), None, limits, History::default(), Moment(opened))
}

/// Splits the requests of a zone between two releases; returns the address of their Prometheus.
fn split_by_seed(zone: &str, seed: u64) -> String {
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut heads = move || {
        // xorshift64: the same split on every machine.
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance >> 63 == 0
    };
    let samples = COUNTERS.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    let mut last: Option<(u64, u64)> = None;
    let mut sums = [0_u64; 4];
    let mut series: [Vec<(f64, String)>; 4] = Default::default();
    for cells in samples.filter(|cells| cells[1] == "zone" && cells[2] == zone) {
        let (total, bad): (u64, u64) = (cells[3].parse().unwrap(), cells[8].parse().unwrap());
        let (before, bad_before) = last.replace((total, bad)).unwrap_or((total, bad));
        for request in 0..total - before {
            let side = if heads() { 0 } else { 2 };
            sums[side] += 1;
            sums[side + 1] += u64::from(request < bad - bad_before);
        }
        let at = cells[0].parse::<f64>().unwrap() / 1000.0;
        for (series, sum) in series.iter_mut().zip(sums) {
            series.push((at, sum.to_string()));
        }
    }
    let names = ["new", "new_bad", "old", "old_bad"].map(str::to_owned);
    format!("{}/prom", fake_prometheus::serve_prometheus(names.into_iter().zip(series).collect()))
}

fn backtest(url: &str, what_if: Option<&str>) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backtest");
    let told = Command::new(env!("CARGO_BIN_EXE_rollbackd"))
        .args(["backtest", "--json", "--current", "hour.toml", "--prometheus", url, "--step", "5s"])
        .args(["--total", "new", "--bad", "new_bad", "--old-total", "old", "--old-bad", "old_bad"])
        .args(["--start", "1446249500", "--end", "1446252053"])
        .args(what_if.into_iter().flat_map(|it| ["--what-if", it]))
        .current_dir(folder)
        .env_remove("ROLLBACKD_CONFIG")
        .output()
        .unwrap();
    serde_json::from_slice(&told.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&told.stderr)))
}
