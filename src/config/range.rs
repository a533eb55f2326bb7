//! A value inside of its bounds, or its default.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::raw::Raw;
use crate::config::value::format_duration;

/// The value of a setting; its default if it is left out, or out of bounds, which is a problem.
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
    let what = format!("`{name}` is {}, outside of {low} to {high}", value.format_value());
    let help =
        format!("write a value from {low} to {high}; the default is {}", default.format_value());
    problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    default
}

/// Where to point: at the first that is written, else at `fallback`.
pub(super) fn first_span(
    spans: impl IntoIterator<Item = Option<Range<usize>>>,
    fallback: Range<usize>,
) -> Range<usize> {
    spans.into_iter().flatten().next().unwrap_or(fallback)
}

/// Where a setting stands.
pub(super) fn span_of<T>(raw: &Raw<T>) -> Option<Range<usize>> {
    raw.as_ref().map(toml::Spanned::span)
}

/// How a value is written in a message.
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

impl ValueFormat for f64 {
    fn format_value(&self) -> String {
        self.to_string()
    }
}

/// A whole number with its thousands apart.
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
