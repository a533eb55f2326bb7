//! About how many different sources sent a request lately. No source is stored: a hash sets one of 4,096
//! bits.
//!
//! The number is estimated by linear counting (Whang, Vander-Zanden and Taylor, ACM TODS 15(2), 1990):
//! where k of m bits are set, -m ln(1 - k / m) sources are the likeliest. With 4,096 bits it is exact for a
//! few dozen, and within 3 % for 3,000.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const WORDS: usize = 64;
const BITS: usize = WORDS * 64;

/// Hashes that were inserted since the call of [`Self::age`] before the last one.
#[derive(Debug)]
pub(super) struct ActiveSet {
    generations: [[AtomicU64; WORDS]; 2],
    current: AtomicUsize,
}

impl Default for ActiveSet {
    fn default() -> Self {
        let words = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { generations: [words(), words()], current: AtomicUsize::new(0) }
    }
}

impl ActiveSet {
    /// Adds a hash, uniform in 64 bits.
    pub(super) fn insert(&self, hash: u64) {
        let word = usize::try_from(hash >> 58).unwrap_or_default();
        let bit = 1_u64 << (hash >> 52 & 63);
        if let Some(word) = self.generation(0).and_then(|words| words.get(word)) {
            // A shared line is read, and written once a source.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Begins a generation, and forgets the one before the last.
    pub(super) fn age(&self) {
        let words = self.generation(1).into_iter().flatten();
        words.for_each(|word| word.store(0, Ordering::Relaxed));
        self.current.fetch_xor(1, Ordering::Relaxed);
    }

    /// About how many there are.
    pub(super) fn len(&self) -> u64 {
        Self::len_together(&[self])
    }

    /// About how many there are in these sets, each source once.
    pub(super) fn len_together(sets: &[&Self]) -> u64 {
        let generations = || sets.iter().flat_map(|set| &set.generations);
        let word = |index: usize| {
            let words = generations().filter_map(|words| words.get(index));
            words.fold(0, |all, word| all | word.load(Ordering::Relaxed))
        };
        estimate((0..WORDS).map(|index| word(index).count_ones()).sum())
    }

    /// The current generation at 0, the one before it at 1.
    fn generation(&self, back: usize) -> Option<&[AtomicU64; WORDS]> {
        self.generations.get((self.current.load(Ordering::Relaxed) ^ back) & 1)
    }
}

/// The likeliest number of sources that set this number of bits.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the bits are few, and the estimate is positive"
)]
fn estimate(set: u32) -> u64 {
    let bits = BITS as f64;
    // A full set says no more than one with a free bit.
    let free = (bits - f64::from(set)).max(1.0);
    (bits * (bits / free).ln()).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hash of a source (splitmix64).
    fn hash(source: u64) -> u64 {
        let mut it = source.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    proptest! {
        #[test]
        fn the_number_is_about_right(count in 0_u64..4_000, times in 1_u64..4, first in any::<u64>()) {
            let set = ActiveSet::default();
            for _ in 0..times {
                (0..count).for_each(|source| set.insert(hash(first.wrapping_add(source))));
            }
            let is = set.len();
            prop_assert!(is.abs_diff(count) * 10 <= count + 20, "{} of {}", is, count);
        }
    }

    #[test]
    fn it_counts_each_once_and_forgets_after_two_generations() {
        let set = ActiveSet::default();
        for _ in 0..3 {
            (1..4).for_each(|source| set.insert(hash(source)));
        }
        assert_eq!(set.len(), 3);
        let other = ActiveSet::default();
        (2..6).for_each(|source| other.insert(hash(source)));
        assert_eq!(ActiveSet::len_together(&[&set, &other]), 5);
        set.age();
        set.insert(hash(1));
        assert_eq!(set.len(), 3);
        set.age();
        assert_eq!(set.len(), 1);
        set.age();
        assert_eq!(set.len(), 0);
        // More than it can tell apart.
        (0..100_000).for_each(|source| set.insert(hash(source)));
        assert!(20_000 < set.len());
    }
}
