//! Numbers by hash: a map whose keys are hashes already, so that they are mixed and not hashed again.
//!
//! Subjects are keyed hashes, which no client can choose to collide. The number of a call has no key
//! (FNV-1a), so a client can find names that share one: it stands beside a subject or counts such names as
//! one call, and the maps are bounded. The order of the entries is the same in every run, and nothing
//! depends on it.
#![expect(
    clippy::disallowed_types,
    reason = "the hasher has no random key: each run has one order"
)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Numbers by hash.
pub(super) type NumberMap = HashMap<u64, u16, BuildHasherDefault<Mixer>>;
/// Values by hash.
pub(super) type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Mixer>>;
/// Values by number.
pub(super) type ByNumber<T> = HashMap<u16, T, BuildHasherDefault<Mixer>>;
/// Values by the numbers of a subject and a call.
pub(super) type ByPair<T> = HashMap<(u16, u16), T, BuildHasherDefault<Mixer>>;

/// Mixes a key of 64 bits.
#[derive(Debug, Clone, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64((self.0 << 16) ^ u64::from(number));
    }

    /// The last step of SplitMix64.
    fn write_u64(&mut self, key: u64) {
        let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = key ^ (key >> 31);
    }
}
