//! The only place that reads the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Moment;

/// A monotonic clock that starts at the wall's Unix time, or at a later moment that was recorded
/// already. A jump of the wall afterwards does not move it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started_at: Instant,
    origin: Moment,
}

impl Clock {
    /// Starts the clock, never before `not_before`.
    #[expect(clippy::disallowed_methods, reason = "the clock is where time enters")]
    pub fn start(not_before: Moment) -> Self {
        Self { started_at: Instant::now(), origin: Self::wall_moment().max(not_before) }
    }

    /// The moment now.
    pub fn now(&self) -> Moment {
        self.origin + self.started_at.elapsed()
    }

    /// The wall's time, to compare it with the stamps of other programs. This clock may be ahead of it:
    /// see [`Self::start`].
    #[expect(clippy::disallowed_methods, reason = "the clock is where time enters")]
    pub fn wall_moment() -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Moment(0) + wall
    }

    /// The wall's time: RFC 3339, UTC, microseconds. For people; nothing is decided by it.
    pub fn wall_time(&self) -> String {
        format!("{:.6}", jiff::Timestamp::now())
    }
}

/// The runtime's monotonic time, for time-outs and measured durations; a test can pause it.
/// Decisions use [`Clock::now`], which is recorded.
#[must_use]
pub fn monotonic() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The kernel's monotonic clock, on which systemd stamps the start of units. It does not count the time of
/// a suspended host.
#[must_use]
pub fn time_since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_never_starts_before_what_was_recorded() {
        // The wall was set back by an hour while the daemon was down.
        let recorded = Clock::start(Moment(0)).now() + Duration::from_hours(1);
        let clock = Clock::start(recorded);
        let (first, second) = (clock.now(), clock.now());
        assert!(recorded <= first && first <= second, "{recorded} {first} {second}");
        assert!(first.since(recorded) < Duration::from_secs(10), "it goes on from there");
    }

    #[test]
    fn a_clock_starts_at_the_wall_when_nothing_later_was_recorded() {
        let clock = Clock::start(Moment(1));
        assert!(Moment(0) + Duration::from_hours(24 * 365 * 50) < clock.now());
    }
}
