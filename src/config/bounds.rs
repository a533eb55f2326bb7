//! A value inside of its bounds, or its default.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::problem::{Code, Problem, Problems};
use super::value::say;
use super::written::Set;

/// The value of a setting; its default if it is left out, or out of bounds, which is a problem.
pub(super) fn bounded<T: PartialOrd + Copy + Say>(
    name: &str,
    set: &Set<T>,
    default: T,
    bounds: RangeInclusive<T>,
    problems: &mut Problems,
) -> T {
    let Some(written) = set else {
        return default;
    };
    let value = *written.get_ref();
    if bounds.contains(&value) {
        return value;
    }
    let (low, high) = (bounds.start().say(), bounds.end().say());
    let what = format!("`{name}` is {}, outside of {low} to {high}", value.say());
    let help = format!("write a value from {low} to {high}; the default is {}", default.say());
    problems.push(Problem::error(Code::OutOfRange, written.span(), what).help(help));
    default
}

/// Where to point: at the first that is written, else at `otherwise`.
pub(super) fn spot(
    written: impl IntoIterator<Item = Option<Range<usize>>>,
    otherwise: Range<usize>,
) -> Range<usize> {
    written.into_iter().flatten().next().unwrap_or(otherwise)
}

/// Where a setting stands.
pub(super) fn span<T>(set: &Set<T>) -> Option<Range<usize>> {
    set.as_ref().map(toml::Spanned::span)
}

/// How a value is written in a message.
pub(super) trait Say {
    fn say(&self) -> String;
}

impl Say for Duration {
    fn say(&self) -> String {
        say(*self)
    }
}

impl Say for u64 {
    fn say(&self) -> String {
        grouped(self)
    }
}

impl Say for f64 {
    fn say(&self) -> String {
        self.to_string()
    }
}

/// A whole number with its thousands apart.
pub(super) fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut said = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            said.push(' ');
        }
        said.push(digit);
    }
    said
}
