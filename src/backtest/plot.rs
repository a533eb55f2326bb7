//! Plots the evidence over time in ASCII: 72 columns, 12 lines.
//!
//! The vertical axis is the logarithm of the e-value, because evidence multiplies. It is scaled so
//! that the limit of each configuration is the same line.

use std::fmt::Write as _;
use std::time::Duration;

use crate::model::Evidence;

const COLUMNS: usize = 64;
const ROWS: usize = 9;
/// The row of the limit, counted from the bottom.
const LIMIT_ROW: usize = 7;
const MARKERS: [char; 2] = ['o', 'x'];
const BOTH_MARKER: char = '*';

/// The highest evidence in each column, as a share of the limit. None: no signal.
#[derive(Debug)]
pub(crate) struct EvidenceCurve {
    length: Duration,
    columns: [Option<f64>; COLUMNS],
}

impl EvidenceCurve {
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, columns: [None; COLUMNS] }
    }

    /// Adds the evidence at a time after the begin of the bake.
    pub(crate) fn record(&mut self, after: Duration, evidence: &Evidence) {
        let share = after.as_secs_f64() / self.length.as_secs_f64().max(0.001);
        let column = ((share * COLUMNS as f64).ceil() as usize).clamp(1, COLUMNS) - 1;
        let progress = if evidence.threshold > 1.0 && evidence.e_value > 1.0 {
            evidence.e_value.ln() / evidence.threshold.ln()
        } else {
            0.0
        };
        if let Some(column) = self.columns.get_mut(column) {
            *column = Some(column.map_or(progress, |before| before.max(progress)));
        }
    }

    /// The row of a column, counted from the bottom.
    fn row(&self, column: usize) -> Option<usize> {
        let progress = (*self.columns.get(column)?)?;
        Some(((progress * LIMIT_ROW as f64).floor() as usize).min(ROWS - 1))
    }
}

/// Draws the curves of up to two configurations.
pub(crate) fn render(names: &[&str], curves: &[EvidenceCurve], length: Duration) -> String {
    let legend: Vec<_> =
        names.iter().zip(MARKERS).map(|(name, mark)| format!("{mark} {name}")).collect();
    let mut text = format!("evidence (log)  {}", legend.join("  "));
    if names.len() > 1 {
        text.push_str("  * both");
    }
    text = text.chars().take(COLUMNS + 8).collect();
    text.push('\n');
    for row in (0..ROWS).rev() {
        let label = match row {
            LIMIT_ROW => "limit",
            0 => "e <= 1",
            _ => "",
        };
        let line: String = (0..COLUMNS).map(|column| cell(row, column, curves)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{label:>6} |{}", line.trim_end());
    }
    let _ = writeln!(text, "{:>6} +{}", "", "-".repeat(COLUMNS));
    let end = format!("{} s", length.as_secs_f64().round());
    let _ = write!(text, "{:>8}{:>width$}", "0", end, width = COLUMNS);
    text
}

fn cell(row: usize, column: usize, curves: &[EvidenceCurve]) -> char {
    let in_cell = |curve: &EvidenceCurve| curve.row(column) == Some(row);
    let mut markers =
        curves.iter().zip(MARKERS).filter(|(curve, _)| in_cell(curve)).map(|(_, mark)| mark);
    match (markers.next(), markers.next()) {
        (Some(_), Some(_)) => BOTH_MARKER,
        (Some(mark), None) => mark,
        (None, _) if row == LIMIT_ROW => '-',
        (None, _) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_72_columns_and_12_lines() {
        let mut curve = EvidenceCurve::new(Duration::from_secs(100));
        for second in (0..=100).filter(|second| !(40..60).contains(second)) {
            let e = 10_f64.powi(second / 10);
            let evidence = Evidence { e_value: e, threshold: 1000.0, ..Evidence::default() };
            curve.record(Duration::from_secs(u64::try_from(second).unwrap()), &evidence);
        }
        let text = render(&["a.toml"], &[curve], Duration::from_secs(100));
        assert_eq!(text.lines().count(), 12);
        assert!(text.lines().all(|line| line.len() <= 72), "{text}");
        let dots = text.lines().skip(1).flat_map(str::chars).filter(|it| *it == 'o').count();
        assert!((48..=54).contains(&dots), "a gap is a gap: {dots}\n{text}");
    }
}
