//! Compares recorded traffic with the traffic that each objective needs to be tested.

use std::path::Path;
use std::time::Duration;

use crate::config::{Service, Settings};
use crate::judge::{Indicator, Objective, detectability};
use crate::model::{Counts, Observation};
use crate::record;
use crate::record::SignalLog;

/// Newest recordings of a service that are read.
const RECORDINGS_MAX: usize = 5;
/// A shorter recording does not show the traffic.
const OBSERVED_TIME_MIN: Duration = Duration::from_secs(30);
/// A regression has this many times the allowed error rate, and at most half of all requests.
const REGRESSION_FACTOR: f64 = 10.0;

/// Returns a warning for each objective that the recorded traffic cannot test within the bake.
/// Without recordings there is none.
pub(crate) fn undetectable_objectives(settings: &Settings) -> Vec<String> {
    let services = settings.services.values();
    services.flat_map(|it| service_warnings(it, &settings.state_dir.join(&it.name))).collect()
}

fn service_warnings(service: &Service, dir: &Path) -> Vec<String> {
    let newest =
        record::list_signal_logs(dir).unwrap_or_default().into_iter().rev().take(RECORDINGS_MAX);
    let (mut total_counts, mut observed_time) = (Counts::default(), Duration::ZERO);
    for recorded in newest.filter_map(|(_, path)| record::read_recording(&path).ok()) {
        let (counts, time) = trial_traffic(&recorded);
        total_counts += counts;
        observed_time += time;
    }
    if observed_time < OBSERVED_TIME_MIN {
        return Vec::new();
    }
    let limits = &service.slo;
    let warning_for = |objective| {
        let judged_requests =
            |about: Indicator| about.count(&total_counts).0 as f64 / observed_time.as_secs_f64();
        let &Objective { indicator: about, error_budget: budget, .. } = objective;
        let (rate, bad) = (judged_requests(about), (budget * REGRESSION_FACTOR).min(0.5));
        let needed = detectability::expected_detection(limits, objective, rate, bad);
        if rate <= 0.0 || needed.is_some_and(|needed| needed <= limits.bake) {
            return None;
        }
        let detection_time =
            needed.map_or("more than a day".to_owned(), |it| format!("~{}", format_minutes(it)));
        let help = match needed {
            Some(needed) => {
                format!("write bake = \"{}m\" or longer, or", needed.as_secs() / 60 + 1)
            }
            None => "send more traffic, or".to_owned(),
        };
        Some(format!(
            "warning: service.{}, {}: at {} requests/min a {} % regression needs {detection_time}; the bake \
             is {}\n  help: {help} accept that the bake detects only worse regressions",
            service.name,
            about.name(),
            format_number(rate * 60.0),
            format_number(bad * 100.0),
            config_duration(limits.bake),
        ))
    };
    limits.objectives.iter().filter_map(warning_for).collect()
}

/// The requests of the new release, and the time that they cover.
fn trial_traffic(recorded: &SignalLog) -> (Counts, Duration) {
    let mut sum = (Counts::default(), Duration::ZERO);
    for (_, signal) in recorded.signals() {
        if let Observation::Block(span, counts) = signal.observation
            && signal.release == recorded.header.release
        {
            sum.0 += counts;
            sum.1 += Duration::from_millis(u64::from(span));
        }
    }
    sum
}

fn format_minutes(time: Duration) -> String {
    format!("{} min", time.as_secs().div_ceil(60))
}

/// Formats a duration as a configuration writes it.
fn config_duration(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

fn format_number(value: f64) -> String {
    let text = if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
