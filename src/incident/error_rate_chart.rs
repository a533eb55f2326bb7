//! The error rate of both releases, short enough for a notice.

use serde::{Deserialize, Serialize};

use crate::incident::document::ErrorRate;
use crate::incident::text::clean_name;
use crate::incident::traffic::Point;

/// Columns of a chart.
const COLUMNS_MAX: u64 = 40;
/// The shortest time of a column: signals are counted four times a second.
const COLUMN_MS_MIN: u64 = 250;
/// Milestones that are named.
const MARKS_MAX: usize = 6;

/// The share of failed requests over the bake, in columns of the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRateChart {
    /// Milliseconds of one column.
    pub column_ms: u64,
    /// The new release: percent of its requests that failed; none in a column without requests.
    pub new: Vec<Option<u8>>,
    /// The previous release in the same time.
    pub previous: Vec<Option<u8>>,
    /// Milestones: name, and milliseconds since the bake began.
    pub marks: Vec<(String, u64)>,
}

impl ErrorRateChart {
    /// Sums up the points. None without traffic of the new release.
    pub(super) fn of(rate: &ErrorRate) -> Option<Self> {
        rate.trial.first()?;
        let last = rate.trial.iter().chain(&rate.control).map(|it| it.ms).max()?;
        let column_ms = (last / COLUMNS_MAX + 1).max(COLUMN_MS_MIN);
        let count = usize::try_from(last / column_ms + 1).ok()?;
        let columns = |points: &[Point]| columns(points, column_ms, count);
        let mut marks: Vec<_> =
            rate.marks.iter().map(|(name, at)| (clean_name(name), *at)).collect();
        marks.sort_by_key(|(_, at)| *at);
        marks.truncate(MARKS_MAX);
        Some(Self { column_ms, new: columns(&rate.trial), previous: columns(&rate.control), marks })
    }

    /// The highest share, in percent.
    pub fn peak(&self) -> u8 {
        self.new.iter().chain(&self.previous).flatten().copied().max().unwrap_or(0)
    }
}

fn columns(points: &[Point], column_ms: u64, count: usize) -> Vec<Option<u8>> {
    let mut sums = vec![(0_u64, 0_u64); count];
    for point in points {
        let at = usize::try_from(point.ms / column_ms).ok();
        if let Some(sum) = at.and_then(|at| sums.get_mut(at)) {
            *sum = (sum.0 + point.judged, sum.1 + point.bad);
        }
    }
    let percent = |(judged, bad): (u64, u64)| {
        let percent = (100 * bad).div_ceil(judged.max(1)).min(100);
        (judged > 0).then(|| u8::try_from(percent).unwrap_or(100))
    };
    sums.into_iter().map(percent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_become_at_most_forty_columns_and_no_failure_is_rounded_away() {
        let point = |ms, judged, bad| Point { ms, judged, bad };
        let trial: Vec<_> = (0..240).map(|it| point(it * 250, 10, u64::from(it == 100))).collect();
        let rate = ErrorRate { trial, control: vec![point(0, 5, 0)], marks: vec![] };
        let chart = ErrorRateChart::of(&rate).unwrap();
        assert!(chart.new.len() <= 40 && chart.new.len() == chart.previous.len());
        assert_eq!(chart.new.iter().flatten().filter(|it| **it > 0).count(), 1);
        assert_eq!(chart.peak(), 2, "1 of 60 is not 0 %");
        assert_eq!((chart.previous[0], chart.previous[1]), (Some(0), None));
        assert_eq!(ErrorRateChart::of(&ErrorRate::default()), None);
        let at_the_end = ErrorRate { trial: vec![point(u64::MAX, 1, 1)], ..ErrorRate::default() };
        assert!(ErrorRateChart::of(&at_the_end).unwrap().new.len() <= 40);
    }
}
