//! How fast a client must send a body.

use std::time::Duration;

/// A client that is too slow in one of these spans, in which the proxy waits for it, is given up.
const PACE_SPAN: Duration = Duration::from_secs(30);

/// How much of a span has passed, and how much it brought.
#[derive(Debug, Default)]
pub(super) struct Pace {
    span_bytes: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// At least `min_rate` bytes a second.
    pub(super) fn new(min_rate: u64) -> Self {
        let span_bytes = min_rate.saturating_mul(PACE_SPAN.as_secs());
        Self { span_bytes, ..Self::default() }
    }

    /// How long the client may take for the next piece.
    pub(super) fn remaining(&self) -> Duration {
        PACE_SPAN.saturating_sub(self.waited)
    }

    /// How long the client has taken for less than enough.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// A piece arrived after this wait.
    pub(super) fn add(&mut self, waited: Duration, bytes: usize) {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.bytes >= self.span_bytes {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_do_not_extend_the_time() {
        let (mut pace, second) = (Pace::new(64), Duration::from_secs(1));
        for _ in 0..30 {
            assert!(!pace.remaining().is_zero());
            pace.add(second, 1);
        }
        assert!(pace.remaining().is_zero());
    }

    #[test]
    fn enough_bytes_start_a_new_span() {
        let mut pace = Pace::new(64);
        pace.add(Duration::from_secs(29), 64 * 30 - 1);
        assert_eq!(pace.remaining(), Duration::from_secs(1));
        pace.add(Duration::ZERO, 1);
        assert_eq!(pace.remaining(), PACE_SPAN);
    }
}
