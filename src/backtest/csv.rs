//! A CSV of counts: `second,new_total,new_bad,old_total,old_bad`, and where that is known, how many users
//! the bad requests were of: `,new_subjects_bad,old_subjects_bad`.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::backtest::source::{Block, Row, Source};
use crate::model::Moment;

const HEADER: [&str; 5] = ["second", "new_total", "new_bad", "old_total", "old_bad"];
/// Two more columns, which a file may have.
const SUBJECTS: [&str; 2] = ["new_subjects_bad", "old_subjects_bad"];
/// Largest file that is read.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Problems that are printed.
const SHOWN_MAX: usize = 20;
/// Largest count of requests in a second.
const COUNT_MAX: u64 = 1_000_000_000;
/// A day in the year 5138.
const SECOND_MAX: u64 = 99_999_999_999;

/// Every error in a file. Each of the first [`SHOWN_MAX`] is kept with its line.
#[derive(Debug, Default)]
struct CsvErrors {
    errors: Vec<CsvError>,
    omitted: usize,
}

#[derive(Debug)]
struct CsvError {
    line: usize,
    message: String,
}

/// Reads a file, from a second on.
pub(crate) fn load(path: &Path, from: u64) -> Result<Source, String> {
    let name = path.display().to_string();
    let mut text = String::new();
    let file = File::open(path);
    let read = file.and_then(|it| it.take(BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| {
        format!(
            "{name}: {error}; name a service of the configuration, or a CSV file that this user may read"
        )
    })?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("{name}: the file is larger than {} MiB; split it", BYTES_MAX >> 20));
    }
    let mut rows = parse(&text).map_err(|problems| format!("{name}: {problems}"))?;
    rows.retain(|(second, _)| from <= *second);
    let Some((first, _)) = rows.first() else {
        return Err(format!("{name}: no line from second {from} on; write a smaller --from"));
    };
    let opened = Moment(first * 1000);
    Ok(Source::from_rows(name, opened, rows.into_iter().map(|(_, row)| row).collect()))
}

fn parse(text: &str) -> Result<Vec<(u64, Row)>, CsvErrors> {
    let mut problems = CsvErrors::default();
    let mut rows: Vec<(u64, Row)> = Vec::new();
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end()));
    let header: Vec<_> = lines.next().map(|(_, line)| split_cells(line)).unwrap_or_default();
    let with_subjects: Vec<_> = HEADER.into_iter().chain(SUBJECTS).collect();
    let columns = match header.len() {
        5 => &HEADER[..],
        _ => &with_subjects,
    };
    if header != columns {
        let (least, more) = (HEADER.join(","), SUBJECTS.join(","));
        problems
            .add(1, format!("wrong header; write {least}, and after it {more} if you know them"));
        return Err(problems);
    }
    let mut previous = None;
    for (at, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let Some((second, row)) = parse_row(at, line, columns, &mut problems) else { continue };
        if let Some(before) = previous.filter(|before| second <= *before) {
            let sort = "sort by second, one line each";
            problems.add(at, format!("second {second} comes after {before}; {sort}"));
            continue;
        }
        previous = Some(second);
        rows.extend(row.map(|row| (second, row)));
    }
    if rows.is_empty() && problems.errors.is_empty() {
        problems.add(2, "no counts; write a line for each second".to_owned());
    }
    if problems.errors.is_empty() { Ok(rows) } else { Err(problems) }
}

/// Returns the second and its row; no row if a count is wrong.
fn parse_row(
    at: usize,
    line: &str,
    columns: &[&str],
    problems: &mut CsvErrors,
) -> Option<(u64, Option<Row>)> {
    let cells = split_cells(line);
    if cells.len() != columns.len() {
        let (found, wanted) = (cells.len(), columns.len());
        problems.add(at, format!("{found} values; write {wanted}: {}", columns.join(",")));
        return None;
    }
    let mut numbers = Vec::new();
    for (name, cell) in columns.iter().zip(cells) {
        let max = if *name == "second" { SECOND_MAX } else { COUNT_MAX };
        match parse_count(cell, max) {
            Ok(number) => numbers.push(number),
            Err(why) => problems.add(at, format!("{name} {why}")),
        }
    }
    let (&[second, new_total, new_bad, old_total, old_bad], subjects) =
        numbers.split_first_chunk()?;
    let of = |side: usize| subjects.get(side).copied();
    let new = Block { span: 1_000, total: new_total, bad: new_bad, users: of(0) };
    let old = Block { span: 1_000, total: old_total, bad: old_bad, users: of(1) };
    if subjects.len() + HEADER.len() != columns.len() {
        return None;
    }
    let are_valid = [("new", new), ("old", old)].map(|(side, block)| {
        let problem = impossible(side, block);
        let is_valid = problem.is_none();
        problem.into_iter().for_each(|problem| problems.add(at, problem));
        is_valid
    });
    let row = Row { end: Moment((second + 1) * 1000), new: Some(new), old: Some(old) };
    Some((second, (are_valid == [true, true]).then_some(row)))
}

/// Why the counts of one side cannot be true.
fn impossible(side: &str, block: Block) -> Option<String> {
    let Block { total, bad, users, .. } = block;
    if total < bad {
        return Some(format!(
            "{side}_bad {bad} is more than {side}_total {total}; the total includes the bad requests"
        ));
    }
    match users? {
        0 if 0 < bad => Some(format!(
            "{side}_subjects_bad is 0, and {bad} requests are bad; write how many users they were of"
        )),
        users if bad < users => Some(format!(
            "{side}_subjects_bad {users} is more than {side}_bad {bad}; each has a bad request"
        )),
        _ => None,
    }
}

fn split_cells(line: &str) -> Vec<&str> {
    line.split(',').map(str::trim).collect()
}

fn parse_count(cell: &str, max: u64) -> Result<u64, String> {
    if let Ok(number) = cell.parse() {
        return if number <= max {
            Ok(number)
        } else {
            Err(format!("{number} is too large; write at most {max}"))
        };
    }
    let excerpt: String = cell.chars().take(24).collect();
    Err(match cell.parse::<f64>() {
        _ if cell.is_empty() => {
            "is empty; write 0 for no requests, or leave the line out for missing data".to_owned()
        }
        Ok(it) if it.is_nan() => {
            "is not a number; leave the line out: a gap is missing data".to_owned()
        }
        Ok(it) if it < 0.0 => {
            format!("{excerpt} is negative; write the number of new requests in that second")
        }
        Ok(it) if it > max as f64 => format!("{excerpt} is too large; write at most {max}"),
        _ => format!("`{excerpt}` is not a whole number; write digits only"),
    })
}

impl CsvErrors {
    fn add(&mut self, line: usize, what: String) {
        if self.errors.len() < SHOWN_MAX {
            self.errors.push(CsvError { line, message: what });
        } else {
            self.omitted += 1;
        }
    }
}

impl fmt::Display for CsvErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len() + self.omitted;
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} problem{plural}")?;
        for CsvError { line, message } in &self.errors {
            write!(f, "\n  line {line}: {message}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n  and {} more", self.omitted)?;
        }
        Ok(())
    }
}
