//! What the judge decides now about labelled deploys, beside what happened then.

use std::time::Duration;

use serde::Serialize;

use crate::backtest::labelled::LabelledDeploy;
use crate::backtest::result::{Decided, ReplayResult, round_to_ms};
use crate::backtest::source::Source;
use crate::incident::ReleaseLabel;
use crate::judge::false_alarm_interval;
use crate::model::ReleaseNumber;

/// The form of the JSON. A later version only adds fields.
const SCHEMA: &str = "rollbackd.labelled/1";
/// A daemon that is killed loses the last second of a recording.
const UNRECORDED_MAX: Duration = Duration::from_secs(1);

/// Labelled deploys, replayed with each configuration.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    schema: &'static str,
    pub(super) deploys: Vec<Row>,
    /// By configuration, in the order in which they were named.
    pub(super) sums: Vec<Sums>,
}

/// One deploy with one configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) service: String,
    pub(super) deploy: ReleaseNumber,
    pub(super) from: Option<String>,
    pub(super) to: String,
    pub(super) label: ReleaseLabel,
    /// The verdict of the review.
    pub(super) review: String,
    pub(super) config: String,
    pub(super) then: Decided,
    pub(super) now: Decided,
    pub(super) because: String,
    pub(super) change: Change,
    /// Where the recording ends, in seconds from the begin of the bake.
    pub(super) recorded_s: f64,
}

/// How the verdict now differs from the one then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    /// A bad release, found then and now.
    StillFound,
    /// A bad release that is no longer found.
    NoLongerFound,
    /// A bad release that is found now only.
    NowFound,
    /// A bad release that is not found, as before.
    StillMissed,
    /// A good release without a verdict against it, as before.
    StillKept,
    /// A good release that would no longer be rolled back.
    AlarmAvoided,
    /// A good release that would be rolled back again.
    StillFalseAlarm,
    /// A good release that would be rolled back now only.
    NewFalseAlarm,
    /// The recording ends before the verdict then, without a verdict now.
    NotRecorded,
}

/// What changes with one configuration. An interval has 95 %, by Clopper and Pearson (1934).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Sums {
    pub(super) config: String,
    /// Of the good releases that were rolled back, or would have been.
    pub(super) alarms_avoided: Share,
    pub(super) new_false_alarms: u64,
    pub(super) good_releases: u64,
    /// Of the bad releases that were found then.
    pub(super) still_found: Share,
    pub(super) newly_found: u64,
    pub(super) bad_releases: u64,
    /// Failed requests of bad releases until the verdict, or in the whole recording.
    pub(super) failed_then: u64,
    pub(super) failed_now: u64,
    /// Deploys whose recording decides nothing.
    pub(super) not_recorded: u64,
}

/// A part of a whole, and the interval of the rate behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Share {
    pub(super) count: u64,
    pub(super) of: u64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// What is worse with a configuration than it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regression {
    /// A bad release is no longer found.
    NoLongerFound,
    /// A good release would be rolled back.
    NewFalseAlarm,
}

impl Comparison {
    /// Adds one replay of a deploy.
    pub(crate) fn add(&mut self, deploy: &LabelledDeploy, source: &Source, now: ReplayResult) {
        let row = Row::new(deploy, source, now);
        let known = self.sums.iter().position(|it| it.config == row.config);
        let at = known.unwrap_or_else(|| {
            self.sums.push(Sums { config: row.config.clone(), ..Sums::default() });
            self.sums.len() - 1
        });
        if let Some(sums) = self.sums.get_mut(at) {
            sums.add(&row);
        }
        self.deploys.push(row);
    }

    /// Whether there is no replay.
    pub(crate) fn is_empty(&self) -> bool {
        self.deploys.is_empty()
    }

    /// What is worse with the last configuration, which is the candidate where there is one. A bad release
    /// that is no longer found weighs more.
    pub(crate) fn regression(&self) -> Option<Regression> {
        let sums = self.sums.last()?;
        if sums.still_found.count < sums.still_found.of {
            return Some(Regression::NoLongerFound);
        }
        (sums.new_false_alarms > 0).then_some(Regression::NewFalseAlarm)
    }
}

impl Row {
    fn new(deploy: &LabelledDeploy, source: &Source, now: ReplayResult) -> Self {
        let opened = source.opening.opened;
        let found_at = deploy.past.found_at;
        let recorded = source.duration();
        let then = Decided {
            outcome: deploy.past.outcome.clone(),
            found: found_at.is_some(),
            at_second: found_at.map(|it| round_to_ms(it.since(opened).as_secs_f64())),
            failed_requests: source.failed_requests(found_at.unwrap_or(opened + recorded)),
        };
        let is_recorded = found_at.is_none_or(|it| it.since(opened) <= recorded + UNRECORDED_MAX);
        let change = change(deploy.label, then.found, now.is_breach(), is_recorded);
        let (config, because) = (now.config_name().to_owned(), now.because().to_owned());
        Self {
            service: deploy.service.clone(),
            deploy: deploy.number,
            from: deploy.from.clone(),
            to: deploy.to.clone(),
            label: deploy.label,
            review: deploy.review.clone(),
            config,
            then,
            now: now.into_decided(),
            because,
            change,
            recorded_s: round_to_ms(recorded.as_secs_f64()),
        }
    }
}

/// Compares the verdict now with the one then. `is_recorded`: the recording reaches the verdict then.
fn change(label: ReleaseLabel, then: bool, now: bool, is_recorded: bool) -> Change {
    match (label, then, now) {
        (_, true, false) if !is_recorded => Change::NotRecorded,
        (ReleaseLabel::Bad, true, true) => Change::StillFound,
        (ReleaseLabel::Bad, true, false) => Change::NoLongerFound,
        (ReleaseLabel::Bad, false, true) => Change::NowFound,
        (ReleaseLabel::Bad, false, false) => Change::StillMissed,
        (ReleaseLabel::Good, false, false) => Change::StillKept,
        (ReleaseLabel::Good, true, false) => Change::AlarmAvoided,
        (ReleaseLabel::Good, true, true) => Change::StillFalseAlarm,
        (ReleaseLabel::Good, false, true) => Change::NewFalseAlarm,
    }
}

impl Sums {
    fn add(&mut self, row: &Row) {
        if row.change == Change::NotRecorded {
            self.not_recorded += 1;
            return;
        }
        let (was_found, change) = (row.then.found, row.change);
        match row.label {
            ReleaseLabel::Good => {
                self.good_releases += 1;
                self.new_false_alarms += u64::from(change == Change::NewFalseAlarm);
                self.alarms_avoided.add(was_found, change == Change::AlarmAvoided);
            }
            ReleaseLabel::Bad => {
                self.bad_releases += 1;
                self.newly_found += u64::from(change == Change::NowFound);
                self.still_found.add(was_found, change == Change::StillFound);
                let (then, now) = (row.then.failed_requests, row.now.failed_requests);
                self.failed_then = self.failed_then.saturating_add(then);
                self.failed_now = self.failed_now.saturating_add(now);
            }
        }
    }
}

impl Default for Comparison {
    fn default() -> Self {
        Self { schema: SCHEMA, deploys: Vec::new(), sums: Vec::new() }
    }
}

impl Share {
    /// Adds one that may be part of the whole, and of the part.
    fn add(&mut self, is_whole: bool, is_part: bool) {
        self.of += u64::from(is_whole);
        self.count += u64::from(is_part);
        (self.low, self.high) = false_alarm_interval(self.count, self.of);
    }
}

impl Change {
    /// In words.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::StillFound => "still found",
            Self::NoLongerFound => "NO LONGER FOUND",
            Self::NowFound => "now found",
            Self::StillMissed => "still missed",
            Self::StillKept => "no alarm",
            Self::AlarmAvoided => "false alarm avoided",
            Self::StillFalseAlarm => "still a false alarm",
            Self::NewFalseAlarm => "NEW FALSE ALARM",
            Self::NotRecorded => "not recorded so far",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: ReleaseLabel, then: bool, now: bool, is_recorded: bool) -> Row {
        let decided = |found: bool, failed: u64| Decided {
            outcome: String::new(),
            found,
            at_second: None,
            failed_requests: failed,
        };
        Row {
            service: "weather".to_owned(),
            deploy: ReleaseNumber(7),
            from: None,
            to: "v7".to_owned(),
            label,
            review: "right".to_owned(),
            config: "now.toml".to_owned(),
            then: decided(then, 9),
            now: decided(now, 4),
            because: String::new(),
            change: change(label, then, now, is_recorded),
            recorded_s: 1.0,
        }
    }

    fn regression(rows: &[Row]) -> Option<Regression> {
        let mut comparison = Comparison::default();
        let mut sums = Sums::default();
        rows.iter().for_each(|row| sums.add(row));
        comparison.sums.push(sums);
        comparison.regression()
    }

    #[test]
    fn what_was_worse_before_is_no_regression() {
        use ReleaseLabel::{Bad, Good};
        for (label, then, now, expected, worse) in [
            (Bad, true, true, Change::StillFound, None),
            (Bad, true, false, Change::NoLongerFound, Some(Regression::NoLongerFound)),
            (Bad, false, true, Change::NowFound, None),
            (Bad, false, false, Change::StillMissed, None),
            (Good, true, true, Change::StillFalseAlarm, None),
            (Good, true, false, Change::AlarmAvoided, None),
            (Good, false, true, Change::NewFalseAlarm, Some(Regression::NewFalseAlarm)),
            (Good, false, false, Change::StillKept, None),
        ] {
            let row = row(label, then, now, true);
            assert_eq!(row.change, expected);
            assert_eq!(regression(&[row]), worse, "{expected:?}");
        }
        let both = [row(Good, false, true, true), row(Bad, true, false, true)];
        assert_eq!(regression(&both), Some(Regression::NoLongerFound));
    }

    #[test]
    fn a_recording_that_ends_before_the_verdict_decides_nothing() {
        for label in [ReleaseLabel::Good, ReleaseLabel::Bad] {
            let cut = row(label, true, false, false);
            assert_eq!(cut.change, Change::NotRecorded);
            let mut sums = Sums::default();
            sums.add(&cut);
            assert_eq!(sums, Sums { not_recorded: 1, ..Sums::default() });
            assert_eq!(regression(&[cut]), None);
            assert_ne!(row(label, true, true, false).change, Change::NotRecorded, "found sooner");
        }
    }

    #[test]
    fn the_sums_have_intervals() {
        let mut sums = Sums::default();
        for (count, now) in [(8, true), (2, false)] {
            for _ in 0..count {
                sums.add(&row(ReleaseLabel::Bad, true, now, true));
                sums.add(&row(ReleaseLabel::Good, true, !now, true));
            }
        }
        let found = sums.still_found;
        assert_eq!((found.count, found.of, sums.bad_releases), (8, 10, 10));
        // Clopper and Pearson: 8 of 10 is 44.4 % to 97.5 %.
        assert!(
            (found.low - 0.4439).abs() < 1e-4 && (found.high - 0.9748).abs() < 1e-4,
            "{found:?}"
        );
        assert_eq!((sums.alarms_avoided, sums.failed_then, sums.failed_now), (found, 90, 40));
    }
}
