//! Numbers and text from outside, as the page shows them.

use std::borrow::Cow;

/// A duration, in its unit.
pub(super) use crate::incident::utc::{format_ms as milliseconds, format_seconds as seconds};
use crate::model::escape_unsafe;

/// Characters of a text from outside that one place shows.
const TEXT_MAX: usize = 2_000;

/// Text from outside. The templates escape HTML; this escapes what changes the text around it, and
/// shortens what is too long.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(TEXT_MAX) {
        None => escape_unsafe(text),
        Some((end, _)) => {
            let shown = escape_unsafe(text.get(..end).unwrap_or_default());
            Cow::Owned(format!("{shown}..."))
        }
    }
}

/// A number with a separator at each thousand.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share from 0 to 1.
pub(super) fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".to_owned(),
        p if p < 10.0 => format!("{p:.2} %"),
        p => format!("{p:.1} %"),
    }
}

/// A number that may be very small or very large.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "more than can be counted".to_owned(),
        0.0 => "0".to_owned(),
        v if v < 0.001 => format!("{value:.1e}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 1e15 => count(value as u64),
        _ => format!("{value:.1e}"),
    }
}

/// Date and time to the second, of an RFC 3339 time in UTC.
pub(super) fn date_time(wall_time: &str) -> String {
    let plain = plain(wall_time);
    match (plain.get(..10), plain.get(11..19)) {
        (Some(date), Some(time)) => format!("{date} {time}"),
        _ => plain.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_unit_and_their_precision() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.005, 0.195].map(percent), ["0 %", "0.50 %", "19.5 %"]);
        assert_eq!(
            [0.42, 75.0, 600.0, 9_000.0, 864_000.0].map(seconds),
            ["0.4 s", "75 s", "10 min", "2.5 h", "10 days"]
        );
        assert_eq!(
            [0.0, 1e-9, 1.5, 1234.4, 1e20, f64::INFINITY].map(number),
            ["0", "1.0e-9", "1.50", "1,234", "1.0e20", "more than can be counted"]
        );
        assert_eq!(date_time("2026-11-27T11:12:03.123456Z"), "2026-11-27 11:12:03");
        assert_eq!(date_time("\u{202e}x"), "\\u{202e}x");
        assert!(plain(&"ä".repeat(5_000)).len() < 5_000);
    }
}
