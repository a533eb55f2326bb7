//! The evidence over time, in plain characters, 72 columns and 12 lines.
//!
//! Upwards goes the logarithm of the e-value, since that is how evidence adds up; the line is the
//! limit, whatever its value in each configuration.

use std::fmt::Write as _;
use std::time::Duration;

use crate::model::Evidence;

const COLUMNS: usize = 64;
const ROWS: usize = 9;
/// The row of the limit, counted from the bottom.
const LIMIT: usize = 7;
const MARKS: [char; 2] = ['o', 'x'];
const BOTH: char = '*';

/// How far the evidence came, at most, in each column. None: nothing was heard then.
#[derive(Debug)]
pub(super) struct Track {
    length: Duration,
    columns: [Option<f64>; COLUMNS],
}

impl Track {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, columns: [None; COLUMNS] }
    }

    /// The evidence, so long after the opening.
    pub(super) fn mark(&mut self, after: Duration, evidence: &Evidence) {
        let share = after.as_secs_f64() / self.length.as_secs_f64().max(0.001);
        let column = ((share * COLUMNS as f64).ceil() as usize).clamp(1, COLUMNS) - 1;
        let far = if evidence.threshold > 1.0 && evidence.e > 1.0 {
            evidence.e.ln() / evidence.threshold.ln()
        } else {
            0.0
        };
        if let Some(column) = self.columns.get_mut(column) {
            *column = Some(column.map_or(far, |before| before.max(far)));
        }
    }

    /// Rows above the bottom.
    fn height(&self, column: usize) -> Option<usize> {
        let far = (*self.columns.get(column)?)?;
        Some(((far * LIMIT as f64).floor() as usize).min(ROWS - 1))
    }
}

/// Draws the tracks of up to two configurations.
pub(super) fn draw(names: &[&str], tracks: &[Track], length: Duration) -> String {
    let legend: Vec<_> =
        names.iter().zip(MARKS).map(|(name, mark)| format!("{mark} {name}")).collect();
    let mut text = format!("evidence (log)  {}", legend.join("  "));
    if names.len() > 1 {
        text.push_str("  * both");
    }
    text = text.chars().take(COLUMNS + 8).collect();
    text.push('\n');
    for row in (0..ROWS).rev() {
        let label = match row {
            LIMIT => "limit",
            0 => "e <= 1",
            _ => "",
        };
        let line: String = (0..COLUMNS).map(|column| cell(row, column, tracks)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{label:>6} |{}", line.trim_end());
    }
    let _ = writeln!(text, "{:>6} +{}", "", "-".repeat(COLUMNS));
    let end = format!("{} s", length.as_secs_f64().round());
    let _ = write!(text, "{:>8}{:>width$}", "0", end, width = COLUMNS);
    text
}

fn cell(row: usize, column: usize, tracks: &[Track]) -> char {
    let here = |track: &Track| track.height(column) == Some(row);
    let mut marks = tracks.iter().zip(MARKS).filter(|(track, _)| here(track)).map(|(_, mark)| mark);
    match (marks.next(), marks.next()) {
        (Some(_), Some(_)) => BOTH,
        (Some(mark), None) => mark,
        (None, _) if row == LIMIT => '-',
        (None, _) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_72_columns_and_12_lines() {
        let mut track = Track::new(Duration::from_secs(100));
        for second in (0..=100).filter(|second| !(40..60).contains(second)) {
            let e = 10_f64.powi(second / 10);
            let evidence = Evidence { e, threshold: 1000.0, ..Evidence::default() };
            track.mark(Duration::from_secs(u64::try_from(second).unwrap()), &evidence);
        }
        let text = draw(&["a.toml"], &[track], Duration::from_secs(100));
        assert_eq!(text.lines().count(), 12);
        assert!(text.lines().all(|line| line.len() <= 72), "{text}");
        let dots = text.lines().skip(1).flat_map(str::chars).filter(|it| *it == 'o').count();
        assert!((48..=54).contains(&dots), "a gap is a gap: {dots}\n{text}");
    }
}
