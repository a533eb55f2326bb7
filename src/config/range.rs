//! Checks a value against its range, and returns the value or its default.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::value::{Raw, format_duration, format_percent};

/// The strictest objective: one error in 100 000 requests.
const ERROR_BUDGET_MIN: f64 = 1e-5;

/// The value of a setting; its default if it is missing or out of range.
pub(super) fn in_range<T: PartialOrd + Copy + ValueFormat>(
    name: &str,
    raw: &Raw<T>,
    default: T,
    range: RangeInclusive<T>,
    problems: &mut Problems,
) -> T {
    let Some(given) = raw else {
        return default;
    };
    let value = *given.get_ref();
    if range.contains(&value) {
        return value;
    }
    let (low, high) = (range.start().format_value(), range.end().format_value());
    let what = format!("`{name}` is {}, out of range: {low} to {high}", value.format_value());
    let help =
        format!("write a value from {low} to {high}; the default is {}", default.format_value());
    problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    default
}

/// As [`in_range`], for bytes.
pub(super) fn size_in_range(
    name: &str,
    raw: &Raw<u64>,
    default: u64,
    range: RangeInclusive<u64>,
    problems: &mut Problems,
) -> u64 {
    let raw = raw.as_ref().map(|it| Spanned::new(it.span(), Size(*it.get_ref())));
    let range = Size(*range.start())..=Size(*range.end());
    let Size(bytes) = in_range(name, &raw, Size(default), range, problems);
    bytes
}

/// The error budget of an objective; its default if it is missing or too strict.
pub(super) fn objective_budget(
    name: &str,
    raw: &Raw<f64>,
    default: f64,
    problems: &mut Problems,
) -> f64 {
    let Some(given) = raw else {
        return default;
    };
    let budget = *given.get_ref();
    if budget >= ERROR_BUDGET_MIN {
        return budget;
    }
    let good = format_percent(1.0 - budget);
    let what = format!(
        "`{name}` is {good}, which allows {} of the requests to fail: a single error \
         would be infinite evidence",
        format_percent(budget),
    );
    let help = format!("write at most \"{}\"", format_percent(1.0 - ERROR_BUDGET_MIN));
    problems.push(Problem::error(ProblemCode::UnreachableThreshold, given.span(), what).help(help));
    default
}

/// The first of the spans that exists, else `fallback`.
pub(super) fn first_span(
    spans: impl IntoIterator<Item = Option<Range<usize>>>,
    fallback: Range<usize>,
) -> Range<usize> {
    spans.into_iter().flatten().next().unwrap_or(fallback)
}

/// The span of a setting.
pub(super) fn span_of<T>(raw: &Raw<T>) -> Option<Range<usize>> {
    raw.as_ref().map(Spanned::span)
}

/// How a message shows a value.
pub(super) trait ValueFormat {
    fn format_value(&self) -> String;
}

impl ValueFormat for Duration {
    fn format_value(&self) -> String {
        format_duration(*self)
    }
}

impl ValueFormat for u64 {
    fn format_value(&self) -> String {
        group_thousands(self)
    }
}

/// A size, which a message shows in the largest unit that divides it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Size(u64);

impl ValueFormat for Size {
    fn format_value(&self) -> String {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit =
            units.into_iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        let (size, name) = unit.unwrap_or((1, "B"));
        format!("{}{name}", self.0 / size)
    }
}

impl ValueFormat for f64 {
    fn format_value(&self) -> String {
        self.to_string()
    }
}

/// Formats a whole number in groups of three digits.
pub(super) fn group_thousands(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Converts a number; one that is too large becomes the maximum.
pub(super) fn saturating_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
