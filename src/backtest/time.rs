//! How the command line writes moments and durations.

use std::time::Duration;

use crate::model::Moment;

/// Parses seconds since 1970, a date (UTC) or an RFC 3339 time.
pub(crate) fn parse_moment(text: &str) -> Result<Moment, String> {
    let date = || {
        let date: jiff::civil::Date = text.parse().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|it| it.timestamp())
    };
    let seconds = || {
        let seconds: f64 = text.parse().ok()?;
        jiff::Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()
    };
    let time = text.parse::<jiff::Timestamp>().ok().or_else(date).or_else(seconds);
    let ms = time.and_then(|it| u64::try_from(it.as_millisecond()).ok());
    ms.map(Moment)
        .ok_or_else(|| "write 2026-11-23, 2026-11-23T10:00:00Z or seconds since 1970".to_owned())
}

/// Parses `500ms`, `120s`, `2m`, `1h`, or seconds without a unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|it: char| it.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim().parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|it| it.as_secs() < 366 * 86_400)
}

/// Parses the time between two samples: at least a millisecond.
pub(crate) fn parse_step(text: &str) -> Result<Duration, String> {
    let step = parse_duration(text).filter(|it| *it >= Duration::from_millis(1));
    step.ok_or_else(|| "write a time such as 5s or 1m".to_owned())
}
