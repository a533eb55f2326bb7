//! The comparison of labelled deploys as text: a table, and the sums of each configuration.

use std::fmt;

use crate::backtest::comparison::{Comparison, Row, Share, Sums};
use crate::backtest::result::Decided;
use crate::incident::{ReleaseLabel, format_percent};

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_config = self.sums.len() > 1;
        let mut table = vec![headings(with_config)];
        table.extend(self.deploys.iter().map(|row| cells(row, with_config)));
        let columns = table.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = table.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for line in &table {
            let padded: Vec<_> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", padded.join("  ").trim_end())?;
        }
        self.sums.iter().try_for_each(|sums| write!(f, "\n{sums}"))
    }
}

fn headings(with_config: bool) -> Vec<String> {
    let mut headings = vec!["deploy", "releases", "review", "then", "failed"];
    if with_config {
        headings.push("configuration");
    }
    headings.extend(["now", "failed", "change"]);
    headings.into_iter().map(str::to_owned).collect()
}

fn cells(row: &Row, with_config: bool) -> Vec<String> {
    let mut cells = vec![
        format!("{} {}", row.service, row.deploy),
        format!("{} -> {}", row.from.as_deref().unwrap_or("?"), row.to),
        match row.label {
            ReleaseLabel::Good => format!("{} (good)", row.review),
            ReleaseLabel::Bad => format!("{} (bad)", row.review),
        },
        decided(&row.then),
        row.then.failed_requests.to_string(),
    ];
    if with_config {
        cells.push(row.config.clone());
    }
    cells.extend([
        decided(&row.now),
        row.now.failed_requests.to_string(),
        row.change.label().to_owned(),
    ]);
    cells
}

fn decided(it: &Decided) -> String {
    match it.at_second {
        Some(at) => format!("{} ({at:.1} s)", it.outcome),
        None => it.outcome.clone(),
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, alarms_avoided, still_found, .. } = self;
        writeln!(f, "{config}:")?;
        writeln!(
            f,
            "  good releases  {}: {alarms_avoided} false alarms avoided, {} new",
            self.good_releases, self.new_false_alarms
        )?;
        writeln!(
            f,
            "  bad releases   {}: {still_found} still found, {} found now only; failed requests {} then, {} \
             now",
            self.bad_releases, self.newly_found, self.failed_then, self.failed_now
        )?;
        if self.not_recorded > 0 {
            writeln!(
                f,
                "  left out       {}: the recording ends before the verdict then",
                self.not_recorded
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, of, low, high } = self;
        write!(f, "{count} of {of}")?;
        if *of > 0 {
            let (low, high) = (format_percent(*low), format_percent(*high));
            write!(f, " (95 % interval {low} to {high})")?;
        }
        Ok(())
    }
}
