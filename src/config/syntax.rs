//! A text that is not TOML: what is wrong with it, and which other problems are certain all the same.

use std::ops::Range;

use toml::de::DeTable;

use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::raw;

/// Each error of these is looked up in the whole text. A file with more is not a configuration.
const LOOKED_UP_MAX: usize = 50;

/// Reports the errors of the parser. A duplicate names the first.
pub(super) fn report(
    text: &str,
    root: &DeTable<'_>,
    errors: &[toml::de::Error],
    problems: &mut Problems,
) {
    for (index, error) in errors.iter().enumerate() {
        let at = error.span().unwrap_or(0..0);
        let what = format!("this is not TOML: {}", error.message());
        let is_duplicate = error.message().starts_with("duplicate");
        let help = if is_duplicate {
            "write it once"
        } else {
            "write `name = value`, with text in quotes, below a [section]"
        };
        let problem = Problem::error(ProblemCode::Syntax, at.clone(), what).help(help);
        let is_looked_up = is_duplicate && index < LOOKED_UP_MAX;
        let first = text.get(at.clone()).filter(|_| is_looked_up);
        let first = first.and_then(|name| {
            last_before(root, name.trim(), at.start).or_else(|| same_header_before(text, &at))
        });
        problems.push(match first {
            Some(first) => problem.related(first, "it is here first"),
            None => problem,
        });
    }
}

/// Reports the problems of what the parser could read. Its table can lack settings, and settings
/// below a broken header are in another table: only problems elsewhere that do not follow from
/// something missing are certain.
pub(super) fn check_rest(
    file_name: &str,
    text: &str,
    root: &DeTable<'_>,
    errors: &[toml::de::Error],
    problems: &mut Problems,
) {
    if LOOKED_UP_MAX < errors.len() {
        return;
    }
    let unreadable: Vec<_> =
        errors.iter().map(|error| unreadable_part(text, &error.span().unwrap_or(0..0))).collect();
    let mut found = Problems::new(file_name, text);
    let raw = raw::read(root, &mut found);
    raw::build_settings(&raw, &mut found);
    let is_readable = |at: &Range<usize>| {
        unreadable.iter().all(|part| at.end <= part.start || part.end <= at.start)
    };
    for problem in found.iter().filter(|it| is_certain(it.code)) {
        if problem.span.as_ref().is_some_and(is_readable) {
            problems.push(problem.clone());
        }
    }
}

fn is_certain(code: ProblemCode) -> bool {
    matches!(
        code,
        ProblemCode::UnknownKey
            | ProblemCode::WrongType
            | ProblemCode::BadValue
            | ProblemCode::OutOfRange
            | ProblemCode::BadName
            | ProblemCode::UnknownPlaceholder
            | ProblemCode::DuplicateAddress
    )
}

/// From the setting that contains the error to the next header.
fn unreadable_part(text: &str, error: &Range<usize>) -> Range<usize> {
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if error.start < at {
            if line.trim_start().starts_with('[') {
                return start..at;
            }
        } else if at <= error.start && begins_something(line) {
            start = at;
        }
        at += line.len();
    }
    start..text.len()
}

/// Whether a line begins a setting or a table, and is not inside a value.
fn begins_something(line: &str) -> bool {
    let line = line.trim_start();
    let name = line.split('=').next().unwrap_or_default().trim_end();
    let is_key = |it: char| it.is_alphanumeric() || matches!(it, '_' | '-' | '.' | '"' | '\'');
    line.starts_with('[') || (line.contains('=') && !name.is_empty() && name.chars().all(is_key))
}

/// The last key of this name that begins before `limit`, in any table.
fn last_before(table: &DeTable<'_>, name: &str, limit: usize) -> Option<Range<usize>> {
    let name = name.trim_matches(['"', '\'']);
    let mut last: Option<Range<usize>> = None;
    let mut tables = vec![table];
    while let Some(table) = tables.pop() {
        for (key, value) in table {
            let span = key.span();
            let is_later = last.as_ref().is_none_or(|last| last.start < span.start);
            if key.get_ref().as_ref() == name && span.start < limit && is_later {
                last = Some(span);
            }
            tables.extend(value.get_ref().as_table());
        }
    }
    last
}

/// The name in an earlier line that is the same header. The parser keeps the later one.
fn same_header_before(text: &str, name: &Range<usize>) -> Option<Range<usize>> {
    let before = text.get(..name.start)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(line_start..)?.lines().next()?;
    let indent = |line: &str| line.len() - line.trim_start().len();
    let offset = (name.start - line_start).checked_sub(indent(line))?;
    let mut at = 0;
    for earlier in text.get(..line_start)?.split_inclusive('\n') {
        if line.trim_start().starts_with('[') && earlier.trim() == line.trim() {
            let start = at + indent(earlier) + offset;
            return Some(start..start + name.len());
        }
        at += earlier.len();
    }
    None
}
