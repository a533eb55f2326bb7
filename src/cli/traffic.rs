//! Traffic that was recorded, against what the objectives need to be tested.

use std::path::Path;
use std::time::Duration;

use crate::config::{Service, Settings};
use crate::judge::{About, Objective, reach};
use crate::model::{Counts, Seen};
use crate::record::{self, Recorded};

/// The newest recordings of a service that are looked at.
const RECORDINGS: usize = 5;
/// Less time than this says nothing about the traffic.
const ENOUGH: Duration = Duration::from_secs(30);
/// A regression is this many times worse than what the objective allows, but not over a half.
const WORSE: f64 = 10.0;

/// Objectives that traffic like the recorded can not test within the bake, in words. Empty where
/// nothing was recorded.
pub(super) fn untestable(settings: &Settings) -> Vec<String> {
    let services = settings.services.values();
    services.flat_map(|it| of_service(it, &settings.state_dir.join(&it.name))).collect()
}

fn of_service(service: &Service, dir: &Path) -> Vec<String> {
    let newest = record::recordings(dir).unwrap_or_default().into_iter().rev().take(RECORDINGS);
    let (mut asked, mut seen) = (Counts::default(), Duration::ZERO);
    for recorded in newest.filter_map(|(_, path)| record::read_recording(&path).ok()) {
        let (counts, time) = on_trial(&recorded);
        asked += counts;
        seen += time;
    }
    if seen < ENOUGH {
        return Vec::new();
    }
    let limits = &service.judge;
    let warn = |objective| {
        let judge = |about: About| about.read(&asked).0 as f64 / seen.as_secs_f64();
        let &Objective { about, budget, .. } = objective;
        let (rate, bad) = (judge(about), (budget * WORSE).min(0.5));
        let needed = reach::expected(limits, objective, rate, bad);
        if rate <= 0.0 || needed.is_some_and(|needed| needed <= limits.bake) {
            return None;
        }
        let time = needed.map_or("more than a day".to_owned(), |it| format!("~{}", minutes(it)));
        let help = match needed {
            Some(needed) => {
                format!("write bake = \"{}m\" or longer, or", needed.as_secs() / 60 + 1)
            }
            None => "find more traffic, or".to_owned(),
        };
        Some(format!(
            "warning: service.{}, {}: at {} requests/min a {} % regression needs {time}; the bake \
             is {}\n  help: {help} accept that only worse ones are found within the bake",
            service.name,
            about.name(),
            number(rate * 60.0),
            number(bad * 100.0),
            written(limits.bake),
        ))
    };
    limits.objectives.iter().filter_map(warn).collect()
}

/// The requests of the release on trial, and the time in which they came.
fn on_trial(recorded: &Recorded) -> (Counts, Duration) {
    let mut sum = (Counts::default(), Duration::ZERO);
    for (_, signal) in recorded.signals() {
        if let Seen::Block(span, counts) = signal.seen
            && signal.release == recorded.opening.release
        {
            sum.0 += counts;
            sum.1 += Duration::from_millis(u64::from(span));
        }
    }
    sum
}

fn minutes(time: Duration) -> String {
    format!("{} min", time.as_secs().div_ceil(60))
}

/// As it would be written in a configuration.
fn written(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

fn number(value: f64) -> String {
    let text = if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
