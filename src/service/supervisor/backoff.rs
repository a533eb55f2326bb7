//! How long a supervisor waits before it starts a release again.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;

/// The second restart in a row waits this long; each further one waits twice as long.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(250);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);
/// A release that ran this long is stable: the next restart is immediate again.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// The first restart is immediate, later ones wait twice as long each, up to a maximum.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    delay: Duration,
    running_since: Option<Instant>,
}

impl Backoff {
    /// The release runs from now on.
    pub(super) fn started(&mut self) {
        self.running_since = Some(monotonic());
    }

    /// The release ended: the time to wait before the next start.
    pub(super) fn schedule(&mut self) -> Duration {
        let was_stable =
            self.running_since.take().is_some_and(|since| STABLE_AFTER <= since.elapsed());
        let delay = if was_stable { Duration::ZERO } else { self.delay };
        self.delay = (delay * 2).clamp(RESTART_DELAY_MIN, RESTART_DELAY_MAX);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::default();
        let mut next = || {
            backoff.started();
            backoff.schedule().as_millis()
        };
        let delays: Vec<_> = (0..9).map(|_| next()).collect();
        assert_eq!(delays, [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }
}
