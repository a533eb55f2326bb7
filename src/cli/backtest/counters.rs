//! Cumulative counters -> blocks. Between two samples lies one block, however long; a counter that
//! went back was reset, and then the new value is what is known to have been added.

use super::source::Block;

/// The counters of one release, sample by sample.
#[derive(Debug, Default)]
pub(super) struct Counters {
    last: Option<Sample>,
    /// Bad requests that were counted before the requests they belong to.
    carried: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: u64,
    total: f64,
    bad: f64,
}

impl Counters {
    /// Takes the counters as they stood at `at`, in milliseconds. What is not a number is no
    /// sample: the next one covers the gap.
    pub(super) fn take(&mut self, at: u64, total: f64, bad: f64) -> Option<Block> {
        let sane = |it: f64| it.is_finite() && it >= 0.0;
        if !sane(total) || !sane(bad) {
            return None;
        }
        let (total, bad) = (total.floor(), bad.floor());
        let last = self.last.replace(Sample { at, total, bad })?;
        let reset = total < last.total || bad < last.bad;
        let added = |now: f64, before: f64| (if reset { now } else { now - before }) as u64;
        let (total, bad) = (added(total, last.total), added(bad, last.bad));
        // A scrape between the two increments of one request.
        let bad = bad.saturating_add(if reset { 0 } else { self.carried });
        self.carried = bad.saturating_sub(total);
        let span = u32::try_from(at.saturating_sub(last.at)).unwrap_or(u32::MAX);
        Some(Block { span, total, bad: bad.min(total) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_one_block_and_resets_start_from_nothing() {
        let mut counters = Counters::default();
        let mut take =
            |at, total, bad| counters.take(at, total, bad).map(|it| (it.span, it.total, it.bad));
        assert_eq!(take(0, 100.0, 5.0), None, "nothing to compare with");
        assert_eq!(take(5_000, 110.0, 6.0), Some((5_000, 10, 1)));
        assert_eq!(take(10_000, f64::NAN, 6.0), None);
        assert_eq!(take(15_000, 130.0, f64::INFINITY), None);
        assert_eq!(take(20_000, 140.0, 6.0), Some((15_000, 30, 0)), "one block over the gap");
        assert_eq!(take(25_000, 3.0, 1.0), Some((5_000, 3, 1)), "the target was restarted");
        assert_eq!(take(30_000, 4.0, 4.0), Some((5_000, 1, 1)), "torn: more bad than there are");
        assert_eq!(take(35_000, 8.0, 4.0), Some((5_000, 4, 2)), "the rest is not forgotten");
        assert_eq!(take(40_000, -1.0, 0.0), None);
    }
}
