//! Formats moments as UTC. The wall's time enters as a [`Moment`], so that the room stays pure.

use crate::model::Moment;

/// Milliseconds of a day.
pub(super) const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// `2026-11-27 10:25:24Z`. The daemon's clock starts at the wall's time and then runs monotonically.
pub fn format_time(moment: Moment) -> String {
    let (seconds, time) = (moment.0 / 1000, moment.0 / 1000 % 86_400);
    let date = format_date(Moment(seconds * 1000));
    format!("{date} {:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// `2026-11-27`.
pub fn format_date(moment: Moment) -> String {
    let (year, month, day) = civil(moment.0 / MS_PER_DAY);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The moment at which a date begins; none if it is no date from 1970 on.
pub fn parse_date(text: &str) -> Option<Moment> {
    let mut parts = text.split('-');
    let mut next = |digits: usize| {
        let part = parts.next().filter(|it| it.len() == digits)?;
        part.parse::<u64>().ok().filter(|_| part.bytes().all(|it| it.is_ascii_digit()))
    };
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    if parts.next().is_some() || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let moment = Moment(days_from_civil(year, month, day)? * MS_PER_DAY);
    (civil(moment.0 / MS_PER_DAY) == (year, month, day)).then_some(moment)
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar: Howard Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

/// A duration in words that fit a sentence: `0.4 s`, `12 s`, `3 min`, `2.5 h`, `4 days`.
pub fn format_ms(ms: u64) -> String {
    format_seconds(ms as f64 / 1000.0)
}

/// The same of seconds.
pub fn format_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(format_time(Moment(1_700_000_000_123)), "2023-11-14 22:13:20Z");
        assert_eq!(format_time(Moment(0)), "1970-01-01 00:00:00Z");
        assert_eq!(parse_date("2024-02-29").map(format_date).as_deref(), Some("2024-02-29"));
        for wrong in
            ["2023-02-29", "2023-13-01", "2023-1-01", "23-01-01", "2023-01-01x", "+023-01-01"]
        {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_day_reads_back(days in 0_u64..2_900_000) {
            let moment = Moment(days * MS_PER_DAY);
            prop_assert_eq!(parse_date(&format_date(moment)), Some(moment));
        }
    }
}
