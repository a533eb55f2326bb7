//! The error rate of both releases, short enough for a notice.

use serde::{Deserialize, Serialize};

use crate::incident::document::ErrorRate;
use crate::incident::text::clean_name;
use crate::incident::traffic::Point;

/// Columns of a chart.
const COLUMNS_MAX: u64 = 40;
/// The time of a column where there is one point only.
const COLUMN_MS: u64 = 1_000;
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
        // As wide as the points, or a multiple: a column between two points would be empty.
        let gap = gap(&rate.trial).unwrap_or(COLUMN_MS);
        let column_ms = gap.saturating_mul((last / gap + 1).div_ceil(COLUMNS_MAX));
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

/// The smallest time between two points.
fn gap(points: &[Point]) -> Option<u64> {
    let gaps = points.iter().zip(points.iter().skip(1)).map(|(a, b)| b.ms.saturating_sub(a.ms));
    gaps.filter(|it| *it > 0).min()
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
        let seconds = (0..9).map(|it| point(it * 1_000, 10, 1)).collect();
        let short = ErrorRateChart::of(&ErrorRate { trial: seconds, ..ErrorRate::default() });
        assert_eq!(short.unwrap().new, [Some(10); 9], "no empty columns between the points");
        let at_the_end = ErrorRate { trial: vec![point(u64::MAX, 1, 1)], ..ErrorRate::default() };
        assert!(ErrorRateChart::of(&at_the_end).unwrap().new.len() <= 40);
    }
}
