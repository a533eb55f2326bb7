//! The only place that reads the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Moment;

/// A monotonic clock that starts at the wall's Unix time, or at a later moment that was recorded
/// already. A jump of the wall afterwards does not move it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    begun: Instant,
    origin: Moment,
}

impl Clock {
    /// Starts the clock, never before `recorded`.
    #[expect(clippy::disallowed_methods, reason = "the clock is where time enters")]
    pub fn start(recorded: Moment) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { begun: Instant::now(), origin: (Moment(0) + wall).max(recorded) }
    }

    /// The moment now.
    pub fn now(&self) -> Moment {
        self.origin + self.begun.elapsed()
    }

    /// The wall's time: RFC 3339, UTC, microseconds. For people; nothing is decided by it.
    pub fn wall(&self) -> String {
        format!("{:.6}", jiff::Timestamp::now())
    }
}
