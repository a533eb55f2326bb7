//! Who sent requests before a trial, and which of their calls failed.
//!
//! A subject that mostly failed a call on the old release says nothing about a new one in that call. The
//! coins of a deploy are not drawn yet, so subjects are remembered by what their coin will be drawn from.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use siphasher::sip::SipHasher24;

use crate::clock::Clock;
use crate::model::ReleaseNumber;
use crate::mutex::lock;
use crate::proxy::backend::identity::Identity;

/// Pairs of subject and call that failed and are remembered.
const PAIRS_MAX: usize = 4_000;
/// A pair is remembered this long after its last failure, in seconds.
const MEMORY_S: u64 = 600;

/// A subject and a call, at a release.
type PairKey = (ReleaseNumber, Identity, u64);

/// Requests of a pair since its first failure.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    requests: u32,
    failed: u32,
    /// The second of the last failure.
    at: u64,
}

impl Pair {
    fn is_recent(&self, second: u64) -> bool {
        second.saturating_sub(self.at) < MEMORY_S
    }
}

/// The subjects of the release that has all traffic, and for a while of the one before.
#[derive(Debug)]
pub(in crate::proxy) struct RecentSubjects {
    clock: Clock,
    key: [u8; 16],
    pairs: Mutex<BTreeMap<PairKey, Pair>>,
    /// Whether a pair is remembered: else a success costs no lock.
    has_pairs: AtomicBool,
}

impl RecentSubjects {
    /// No subjects. `key` is the secret of their hashes, the same for all deploys.
    pub(in crate::proxy) fn new(clock: Clock, key: [u8; 16]) -> Self {
        let (pairs, has_pairs) = (Mutex::default(), AtomicBool::new(false));
        Self { clock, key, pairs, has_pairs }
    }

    /// A keyed hash of what identifies a session or a client.
    pub(in crate::proxy) fn hash(&self, kind: u8, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u8(kind);
        hasher.write(bytes);
        hasher.finish()
    }

    /// A keyed hash of a source.
    pub(in crate::proxy) fn source_hash(&self, identity: Identity) -> u64 {
        match identity {
            Identity::Session(key) => self.hash(b's', &key),
            Identity::Client(hash) => hash,
        }
    }

    /// The second of now.
    pub(super) fn second(&self) -> u64 {
        self.clock.now().0 / 1000
    }

    /// A request of this call to this release ended.
    pub(super) fn ended(
        &self,
        release: ReleaseNumber,
        (identity, call): (Identity, u64),
        failed: bool,
    ) {
        if !failed && !self.has_pairs.load(Ordering::Relaxed) {
            return;
        }
        let key = (release, identity, call);
        let mut pairs = lock(&self.pairs);
        record(&mut pairs, key, failed, self.second());
        self.has_pairs.store(!pairs.is_empty(), Ordering::Relaxed);
    }

    /// The pairs that mostly failed on this release in the last ten minutes.
    pub(in crate::proxy) fn failing(&self, release: ReleaseNumber) -> Vec<(Identity, u64)> {
        let second = self.second();
        let pairs = lock(&self.pairs);
        let is_known = |(of, ..): &PairKey, pair: &Pair| {
            *of == release
                && pair.requests <= pair.failed.saturating_mul(2)
                && pair.is_recent(second)
        };
        let known = pairs.iter().filter(|(key, pair)| is_known(key, pair));
        known.map(|((_, identity, call), _)| (*identity, *call)).collect()
    }
}

/// Records that a request of a pair ended.
fn record(pairs: &mut BTreeMap<PairKey, Pair>, key: PairKey, failed: bool, second: u64) {
    let is_over = pairs.get(&key).is_some_and(|pair| !pair.is_recent(second));
    if is_over {
        pairs.remove(&key);
    }
    if failed && PAIRS_MAX <= pairs.len() {
        pairs.retain(|_, pair| pair.is_recent(second));
    }
    let has_room = pairs.len() < PAIRS_MAX;
    let pair = match pairs.get_mut(&key) {
        Some(pair) => pair,
        None if failed && has_room => pairs.entry(key).or_default(),
        None => return,
    };
    pair.requests = pair.requests.saturating_add(1);
    if failed {
        pair.failed = pair.failed.saturating_add(1);
        pair.at = second;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Moment;

    const A: ReleaseNumber = ReleaseNumber(1);

    fn subjects() -> RecentSubjects {
        RecentSubjects::new(Clock::start(Moment(0)), [3; 16])
    }

    #[test]
    fn what_mostly_fails_is_known_and_belongs_to_its_release() {
        let subjects = subjects();
        let (broken, shaken) = (Identity::Client(1), Identity::Session([2; 16]));
        for n in 0..10 {
            subjects.ended(A, (broken, 7), true);
            subjects.ended(A, (shaken, 7), n == 0);
        }
        assert_eq!(subjects.failing(A), [(broken, 7)]);
        assert!(subjects.failing(ReleaseNumber(2)).is_empty());
        // The next release starts with nothing.
        subjects.ended(ReleaseNumber(2), (shaken, 7), true);
        assert_eq!(subjects.failing(ReleaseNumber(2)), [(shaken, 7)]);
        for n in 0..2 * PAIRS_MAX as u64 {
            subjects.ended(ReleaseNumber(2), (Identity::Client(n), 1), true);
        }
        assert!(subjects.failing(ReleaseNumber(2)).len() <= PAIRS_MAX);
    }

    #[test]
    fn a_late_answer_of_another_release_takes_nothing_away() {
        let (subjects, b) = (subjects(), ReleaseNumber(2));
        let [first, second] = [1, 2].map(Identity::Client);
        subjects.ended(b, (first, 7), true);
        subjects.ended(A, (second, 7), true);
        subjects.ended(b, (first, 7), true);
        assert_eq!(
            (subjects.failing(A), subjects.failing(b)),
            (vec![(second, 7)], vec![(first, 7)])
        );
    }

    #[test]
    fn a_pair_is_forgotten_after_its_time() {
        let (mut pairs, key) = (BTreeMap::new(), (A, Identity::Client(1), 7));
        (0..10).for_each(|_| record(&mut pairs, key, true, 5));
        record(&mut pairs, key, false, 4 + MEMORY_S);
        assert_eq!((pairs[&key].requests, pairs[&key].failed), (11, 10));
        // What failed long ago says nothing about a failure of now, and a success ends it.
        record(&mut pairs, key, true, 5 + MEMORY_S);
        assert_eq!((pairs[&key].requests, pairs[&key].failed), (1, 1));
        record(&mut pairs, key, false, 5 + 2 * MEMORY_S);
        assert!(pairs.is_empty());
    }
}
