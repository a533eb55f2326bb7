//! How a delivery ends, and when a failed one is repeated.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

/// After this time a notice is given up.
pub(super) const DELIVERY_TIME: Duration = Duration::from_hours(24);
/// The first wait after a failed delivery; each further one is twice as long.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait, and what a receiver can ask for.
const BACKOFF_MAX: Duration = Duration::from_mins(5);
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The receiver has it; what it answered.
    Accepted(String),
    /// It may work later; why it failed, and how long the receiver asks to wait.
    Failed { because: String, wait: Option<Duration> },
    /// It will never work; why.
    Rejected(String),
}

impl Delivery {
    /// A failure that may pass.
    pub(super) fn failed(because: impl Into<String>) -> Self {
        Self::Failed { because: because.into(), wait: None }
    }
}

/// The wait after `failures` failed deliveries of a notice. It differs a little from notice to notice, so
/// that many hosts do not come back together.
pub(super) fn backoff(failures: u32, asked: Option<Duration>, id: &str) -> Duration {
    if let Some(asked) = asked {
        return asked.clamp(BACKOFF_MIN, RETRY_AFTER_MAX);
    }
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = doubled.min(BACKOFF_MAX);
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((id, failures));
    // Up to a quarter less.
    wait - wait.mul_f64((hash % 256) as f64 / 1024.0)
}

/// The wait that a `Retry-After` header asks for: seconds, or a date (RFC 9110, 10.2.3). `now_ms` is the
/// time since 1970.
pub(super) fn parse_retry_after(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_millisecond();
    Some(Duration::from_millis(u64::try_from(date).ok()?.saturating_sub(now_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_five_minutes_and_a_receiver_may_ask_for_more() {
        let waits: Vec<_> = (1..=20).map(|failures| backoff(failures, None, "id")).collect();
        assert!(waits[0] >= Duration::from_millis(750) && waits[0] <= BACKOFF_MIN);
        assert!(waits.iter().all(|it| *it <= BACKOFF_MAX), "{waits:?}");
        assert!(waits[19] > Duration::from_mins(3));
        assert_ne!(backoff(5, None, "a"), backoff(5, None, "b"));
        let hour = Duration::from_hours(1);
        assert_eq!(backoff(1, Some(hour * 5), "id"), hour);
        assert_eq!(backoff(1, Some(Duration::ZERO), "id"), BACKOFF_MIN);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after(" 120 ", 0), Some(Duration::from_secs(120)));
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        let ms = 1_445_412_480_000;
        assert_eq!(parse_retry_after(date, ms - 5_000), Some(Duration::from_secs(5)));
        assert_eq!(parse_retry_after(date, ms + 5_000), Some(Duration::ZERO));
        for wrong in ["", "soon", "-1", "Wed, 99 Oct 2015 07:28:00 GMT"] {
            assert_eq!(parse_retry_after(wrong, 0), None, "{wrong}");
        }
    }
}
