//! How large the answers to one call are, and how long they take: what is usual at one release, and what
//! is not at the next one.
//!
//! Sizes and times are kept in classes of powers of two. That is enough, because only what differs by a
//! multiple counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::UsualAnswers;

/// Classes of sizes: no content, then 1, 2 to 3, 4 to 7 bytes and so on; the last has all larger ones.
const SIZES: usize = 26;
/// Classes of times: 0, 1, 2 to 3, 4 to 7 ms and so on; the last has all longer ones.
const TIMES: usize = 20;
/// Answers from which their sizes and times are known.
const ANSWERS_MIN: u64 = 50;
/// At most one in so many answers is below the usual sizes.
const SMALLEST_ONE_IN: u64 = 100;
/// At most one in so many is above the usual times.
const LONGEST_ONE_IN: u64 = 20;
/// An answer is slower from this multiple of the usual time on, and never before the least time.
const TIME_FACTOR: u64 = 2;
const SLOWER_MILLIS_MIN: u64 = 200;
/// No time is slower than this.
const NOT_COMPARED: u64 = u64::MAX;

/// The answers to one call at one release.
#[derive(Debug)]
pub(super) struct AnswerProfile {
    sizes: [AtomicU64; SIZES],
    times: [AtomicU64; TIMES],
    /// How long clients waited that gave up. It is not known how long the answers would have taken.
    given_up: [AtomicU64; TIMES],
    /// The bounds by which answers are compared with those of the release before.
    bytes_min: AtomicU64,
    millis_max: AtomicU64,
}

/// What an answer is not, by the bounds of the release before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Unusual {
    /// It has far less content.
    pub(in crate::proxy) small: bool,
    /// It took far longer.
    pub(in crate::proxy) slower: bool,
}

impl AnswerProfile {
    /// Counts an answer with so many bytes of content, where it can have any, that took so long.
    pub(super) fn record(&self, content: Option<u64>, took: Duration) -> Unusual {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        increment(&self.times, millis);
        content.into_iter().for_each(|bytes| increment(&self.sizes, bytes));
        let millis_max = self.millis_max.load(Ordering::Relaxed);
        if millis_max == NOT_COMPARED {
            return Unusual::default();
        }
        let bytes_min = self.bytes_min.load(Ordering::Relaxed);
        let small = content.is_some_and(|bytes| bytes == 0 || bytes < bytes_min);
        Unusual { small, slower: millis_max < millis }
    }

    /// Counts a request that its client gave up after so long.
    pub(super) fn record_given_up(&self, waited: Duration) {
        increment(&self.given_up, u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    }

    /// Whether an answer after so long is slower.
    pub(super) fn is_slower(&self, waited: Duration) -> bool {
        let millis_max = self.millis_max.load(Ordering::Relaxed);
        millis_max != NOT_COMPARED && u128::from(millis_max) < waited.as_millis()
    }

    /// From now on answers are compared with these.
    pub(super) fn compare_with(&self, usual: Option<&UsualAnswers>) {
        let (bytes_min, millis_max) =
            usual.map_or((0, NOT_COMPARED), |it| (it.bytes_min, it.millis_max));
        self.bytes_min.store(bytes_min, Ordering::Relaxed);
        self.millis_max.store(millis_max, Ordering::Relaxed);
    }

    /// How many answers came within this time, and how many later, to the precision of a class.
    pub(super) fn count_before(&self, time: Duration) -> (u64, u64) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let times = read(&self.times);
        let (quick, late) = times.split_at(class_of(millis, TIMES) + 1);
        (quick.iter().sum(), late.iter().sum())
    }

    /// What is usual here; None after too few answers.
    pub(super) fn usual(&self) -> Option<UsualAnswers> {
        let (sizes, times) = (read(&self.sizes), read(&self.times));
        let (answers, timed) = (sizes.iter().sum::<u64>(), times.iter().sum::<u64>());
        if timed < ANSWERS_MIN {
            return None;
        }
        let (empty, with_content) = sizes.split_first()?;
        let smallest = first_above(with_content.iter(), SMALLEST_ONE_IN);
        // Half of the smallest that is usual: answers of one call differ.
        let bytes_min = smallest.map_or(0, |class| lower_edge(class + 1) / 2);
        // From above: all longer than this class are the few longest ones.
        let longest = first_above(times.iter().rev(), LONGEST_ONE_IN)?;
        let longest = lower_edge(TIMES - longest);
        let millis_max = longest.saturating_mul(TIME_FACTOR).max(SLOWER_MILLIS_MIN);
        let small = sizes.iter().enumerate().skip(1).filter(|it| lower_edge(it.0 + 1) <= bytes_min);
        let slower = |times: &[u64; TIMES]| -> u64 {
            let slower = times.iter().enumerate().filter(|it| millis_max <= lower_edge(it.0));
            slower.map(|it| it.1).sum()
        };
        let given_up = slower(&read(&self.given_up));
        Some(UsualAnswers {
            bytes_min,
            millis_max,
            answers,
            small: empty + small.map(|it| it.1).sum::<u64>(),
            timed: timed + given_up,
            slower: slower(&times) + given_up,
        })
    }
}

impl Default for AnswerProfile {
    fn default() -> Self {
        Self {
            sizes: [const { AtomicU64::new(0) }; SIZES],
            times: [const { AtomicU64::new(0) }; TIMES],
            given_up: [const { AtomicU64::new(0) }; TIMES],
            bytes_min: AtomicU64::new(0),
            millis_max: AtomicU64::new(NOT_COMPARED),
        }
    }
}

/// The class of a number, of so many: 0, then one for each power of two.
fn class_of(number: u64, classes: usize) -> usize {
    let class = usize::try_from(u64::BITS - number.leading_zeros()).unwrap_or(usize::MAX);
    class.min(classes - 1)
}

fn increment(classes: &[AtomicU64], number: u64) {
    if let Some(count) = classes.get(class_of(number, classes.len())) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The smallest number of a class.
fn lower_edge(class: usize) -> u64 {
    class.checked_sub(1).map_or(0, |power| 1_u64.checked_shl(power as u32).unwrap_or(u64::MAX))
}

/// The first class up to which more than one in so many were counted; None without any.
fn first_above<'a>(counts: impl Iterator<Item = &'a u64> + Clone, one_in: u64) -> Option<usize> {
    let all: u64 = counts.clone().sum();
    let mut so_far = 0_u64;
    counts.enumerate().find_map(|(class, count)| {
        so_far += count;
        (all < so_far.saturating_mul(one_in)).then_some(class)
    })
}

fn read<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|class| counts.get(class).map_or(0, |count| count.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn profile(answers: impl IntoIterator<Item = (u64, u64)>) -> AnswerProfile {
        let profile = AnswerProfile::default();
        for (bytes, millis) in answers {
            assert_eq!(profile.record(Some(bytes), ms(millis)), Unusual::default());
        }
        profile
    }

    #[test]
    fn what_is_usual_is_known_after_some_answers() {
        assert_eq!(profile((0..49).map(|_| (100, 10))).usual(), None);
        let usual = profile((0..200).map(|it| (100 + it, 10 + it % 20))).usual().unwrap();
        // Sizes from 64 bytes on are usual, and times below 32 ms.
        let bounds = (usual.bytes_min, usual.millis_max);
        assert_eq!(bounds, (32, SLOWER_MILLIS_MIN));
        assert_eq!((usual.answers, usual.small, usual.timed, usual.slower), (200, 0, 200, 0));
        // One empty answer in fifty, and one slow one.
        let some = profile((0..200).map(|it| if it % 50 == 0 { (0, 9_000) } else { (900, 200) }));
        let usual = some.usual().unwrap();
        assert_eq!((usual.bytes_min, usual.millis_max), (256, 512));
        assert_eq!((usual.small, usual.slower), (4, 4));
    }

    #[test]
    fn answers_are_compared_with_the_release_before() {
        let usual = profile((0..200).map(|_| (900, 200))).usual().unwrap();
        let next = AnswerProfile::default();
        assert_eq!(next.record(Some(0), ms(9_000)), Unusual::default(), "not compared yet");
        next.compare_with(Some(&usual));
        let of = |bytes, millis| {
            let Unusual { small, slower } = next.record(bytes, ms(millis));
            (small, slower)
        };
        assert_eq!(of(Some(300), 512), (false, false));
        assert_eq!(of(Some(255), 513), (true, true));
        assert_eq!(of(Some(0), 0), (true, false));
        assert_eq!(of(None, u64::MAX), (false, true));
        next.compare_with(None);
        assert_eq!(of(Some(0), 9_000), (false, false));
    }

    #[test]
    fn what_clients_gave_up_later_than_usual_is_slower() {
        let before = profile((0..200).map(|_| (900, 10)));
        assert!(!before.is_slower(ms(9_000)), "not compared yet");
        (0..10).for_each(|_| before.record_given_up(ms(9_000)));
        (0..100).for_each(|_| before.record_given_up(ms(50)));
        let usual = before.usual().unwrap();
        // What was given up early says nothing, and the bound is that of the answers.
        assert_eq!((usual.millis_max, usual.timed, usual.slower), (SLOWER_MILLIS_MIN, 210, 10));
        let next = AnswerProfile::default();
        next.compare_with(Some(&usual));
        assert_eq!([200, 201].map(|millis| next.is_slower(ms(millis))), [false, true]);
    }

    #[test]
    fn answers_are_counted_before_and_after_a_time() {
        let some = profile([(1, 0), (1, 900), (1, 1_999), (1, 2_100), (1, 60_000)]);
        assert_eq!(some.count_before(Duration::from_secs(2)), (3, 2));
        assert_eq!(some.count_before(Duration::from_hours(9)), (5, 0));
    }

    #[test]
    fn a_call_that_is_often_empty_has_bounds_by_its_other_answers() {
        let usual = profile((0..100).map(|it| (if it % 2 == 0 { 0 } else { 5_000 }, 1))).usual();
        let usual = usual.unwrap();
        assert_eq!((usual.bytes_min, usual.answers, usual.small), (2_048, 100, 50));
        let usual = profile((0..100).map(|_| (0, 1))).usual().unwrap();
        assert_eq!((usual.bytes_min, usual.small), (0, 100));
    }
}
