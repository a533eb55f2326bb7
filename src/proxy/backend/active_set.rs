//! About how many different sources sent a request lately, at the cost of one bit each.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Words of a generation: 256 bits.
const WORDS: usize = 4;

/// Hashes that were inserted since the call of [`Self::age`] before the last one. Two of them may share a
/// bit, so their number is an estimate from below: it is there to tell one source from several.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ActiveSet {
    generations: [[AtomicU64; WORDS]; 2],
    current: AtomicUsize,
}

impl ActiveSet {
    /// Adds a hash, uniform in 64 bits.
    pub(in crate::proxy) fn insert(&self, hash: u64) {
        let word = usize::try_from(hash >> 62).unwrap_or_default();
        let bit = 1_u64 << (hash >> 56 & 63);
        if let Some(word) = self.generation(0).and_then(|words| words.get(word)) {
            // A shared line is read, and written once a source.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    /// Begins a generation, and forgets the one before the last.
    pub(in crate::proxy) fn age(&self) {
        let words = self.generation(1).into_iter().flatten();
        words.for_each(|word| word.store(0, Ordering::Relaxed));
        self.current.fetch_xor(1, Ordering::Relaxed);
    }

    /// How many there are, at least.
    pub(in crate::proxy) fn len(&self) -> u16 {
        let [first, second] = &self.generations;
        let both = first.iter().zip(second);
        let bits =
            both.map(|(a, b)| (a.load(Ordering::Relaxed) | b.load(Ordering::Relaxed)).count_ones());
        u16::try_from(bits.sum::<u32>()).unwrap_or(u16::MAX)
    }

    /// The current generation at 0, the one before it at 1.
    fn generation(&self, back: usize) -> Option<&[AtomicU64; WORDS]> {
        self.generations.get((self.current.load(Ordering::Relaxed) ^ back) & 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_each_once_and_forgets_after_two_generations() {
        let set = ActiveSet::default();
        for _ in 0..3 {
            [1_u64 << 56, 2 << 56, 255 << 56].iter().for_each(|hash| set.insert(*hash));
        }
        assert_eq!(set.len(), 3);
        set.age();
        set.insert(1 << 56);
        assert_eq!(set.len(), 3);
        set.age();
        assert_eq!(set.len(), 1);
        set.age();
        assert_eq!(set.len(), 0);
    }
}
