//! How fast a client must send a body.

use std::time::Duration;

/// A body must bring at least [`PACE_BYTES`] in each of these spans, in which the proxy waits for it.
const PACE_SPAN: Duration = Duration::from_secs(30);
/// About 64 bytes a second: less holds a place without need.
const PACE_BYTES: usize = 2 * 1024;

/// How much of a span has passed, and how much it brought.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// How long the client may take for the next piece.
    pub(super) fn remaining(&self) -> Duration {
        PACE_SPAN.saturating_sub(self.waited)
    }

    /// A piece arrived after this wait.
    pub(super) fn add(&mut self, waited: Duration, bytes: usize) {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= PACE_BYTES {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_do_not_extend_the_time() {
        let (mut pace, second) = (Pace::default(), Duration::from_secs(1));
        for _ in 0..30 {
            assert!(!pace.remaining().is_zero());
            pace.add(second, 1);
        }
        assert!(pace.remaining().is_zero());
    }

    #[test]
    fn enough_bytes_start_a_new_span() {
        let mut pace = Pace::default();
        pace.add(Duration::from_secs(29), PACE_BYTES - 1);
        assert_eq!(pace.remaining(), Duration::from_secs(1));
        pace.add(Duration::ZERO, 1);
        assert_eq!(pace.remaining(), PACE_SPAN);
    }
}
