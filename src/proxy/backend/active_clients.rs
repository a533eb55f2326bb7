//! How many clients without a session are active. No client is stored: a table has the second of the
//! last request of all clients whose hash falls on the same slot.
//!
//! The number is estimated by linear counting (Whang, Vander-Zanden and Taylor, ACM TODS 15(2), 1990):
//! where k of m slots are in use, -m ln(1 - k / m) clients are the likeliest. With 4,096 slots it is
//! exact for a few dozen clients, and within 3 % for 3,000.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A client or a session without a request for longer is not active.
pub(in crate::proxy) const ACTIVE_WITHIN: Duration = Duration::from_mins(5);

const SLOTS: usize = 4_096;

/// The seconds of the last requests, from 1; 0 where there was none.
#[derive(Debug)]
pub(super) struct ActiveClients(Box<[AtomicU32]>);

impl ActiveClients {
    /// No clients.
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU32::new(0)).collect())
    }

    /// A client with this hash sent a request in this second.
    pub(super) fn note(&self, client: u64, second: u64) {
        let slot = usize::try_from(client % SLOTS as u64).ok().and_then(|at| self.0.get(at));
        let second = u32::try_from(second).unwrap_or(u32::MAX).saturating_add(1);
        // Most requests of a busy client find their second: they only read.
        if let Some(slot) = slot.filter(|slot| slot.load(Ordering::Relaxed) != second) {
            slot.store(second, Ordering::Relaxed);
        }
    }

    /// About how many clients are active in this second.
    pub(super) fn count(&self, second: u64) -> u64 {
        let is_active = |slot: &&AtomicU32| {
            let seen = u64::from(slot.load(Ordering::Relaxed));
            0 < seen && second.saturating_sub(seen - 1) < ACTIVE_WITHIN.as_secs()
        };
        let in_use = self.0.iter().filter(is_active).count();
        estimate(in_use)
    }
}

/// The likeliest number of clients that use this number of slots.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the slots are few, and the estimate is positive"
)]
fn estimate(in_use: usize) -> u64 {
    let slots = SLOTS as f64;
    // A full table says no more than one with a free slot.
    let free = SLOTS.saturating_sub(in_use).max(1) as f64;
    (slots * (slots / free).ln()).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hash of a client (splitmix64).
    fn hash(client: u64) -> u64 {
        let mut it = client.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    proptest! {
        #[test]
        fn the_number_is_about_right(count in 0_u64..4_000, requests in 1_u64..4, first in any::<u64>()) {
            let clients = ActiveClients::new();
            for client in 0..count {
                for second in 0..requests {
                    clients.note(hash(first.wrapping_add(client)), 1_000 + second);
                }
            }
            let is = clients.count(1_002);
            let error = is.abs_diff(count);
            prop_assert!(error * 10 <= count + 20, "{} of {}", is, count);
        }
    }

    #[test]
    fn a_client_that_left_does_not_count() {
        let clients = ActiveClients::new();
        (0..30).for_each(|client| clients.note(hash(client), 1_000));
        (0..10).for_each(|client| clients.note(hash(client), 1_200));
        assert_eq!(clients.count(1_299), 30);
        assert_eq!(clients.count(1_300), 10);
        assert_eq!(clients.count(1_500), 0);
        // Before a request, and with more clients than it can tell apart.
        assert_eq!(ActiveClients::new().count(0), 0);
        (0..100_000).for_each(|client| clients.note(hash(client), 2_000));
        assert!(20_000 < clients.count(2_000));
    }
}
