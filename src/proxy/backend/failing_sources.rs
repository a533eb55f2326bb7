//! Which sources the failures of a release come from: no single one may speak for all.
//!
//! A source is tracked from its first failure on, its successes too, so that its failure rate can be
//! compared with that of all others. What never failed costs a request one test of a bit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::model::{BlockSources, Counts, Outcome, SourceCounts};
use crate::mutex::lock;
use crate::proxy::backend::active_set::ActiveSet;
use crate::proxy::backend::answer_profile::Unusual;
use crate::proxy::backend::identity::Identity;

/// Sources that are tracked, and clients. Beyond them, failures belong to no source.
const TRACKED_MAX: usize = 2_000;
/// Sources of a block that are reported, those with the most failures.
const REPORTED_MAX: usize = 8;
/// Calls of a source that are told apart in a block.
const CALLS_MAX: usize = 16;
/// The call of all others.
const OTHER_CALLS: u64 = 0;
/// Blocks after which the failures of a source count half: a minute.
const HALF_LIFE_BLOCKS: u32 = 240;
/// A client without a session is active for at least this many blocks, two and a half minutes, and at most
/// twice as long.
const ACTIVE_BLOCKS: u32 = 600;

/// A source whose call failed before, and that now succeeded this often in a row, is like any other.
const SUCCESSES_TO_FORGET: u32 = 5;

/// A source of requests, and its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Source {
    /// What is remembered beyond a deploy.
    pub identity: Identity,
    /// A keyed hash of it.
    pub hash: u64,
    /// Whether its requests have a session, or open one.
    pub has_session: bool,
    /// The same of its client.
    pub client: u64,
}

/// A source that mostly failed a call on the release before a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct KnownFailing {
    /// The source.
    pub identity: Identity,
    /// A keyed hash of it.
    pub source: u64,
    /// The number of the call.
    pub call: u64,
}

/// The failing sources of one release.
#[derive(Debug, Default)]
pub(in crate::proxy) struct FailingSources {
    sources: ActiveSet,
    clients: ActiveSet,
    /// Clients without a session, of whom a request was served.
    clients_without_session: ActiveSet,
    tracked: Mutex<Tracked>,
    /// Whether there is anything to look up: else a success costs no lock.
    is_tracking: AtomicBool,
}

#[derive(Debug, Default)]
struct Tracked {
    sources: BTreeMap<u64, TrackedSource>,
    clients: BTreeMap<u64, TrackedSource>,
    /// Sources and calls that mostly failed before the deploy, and their successes in a row since.
    known_failing: BTreeMap<(Identity, u64), u32>,
    /// Requests of those in this block.
    known_failing_counts: Counts,
    blocks: u32,
}

/// A source that failed.
#[derive(Debug, Default)]
struct TrackedSource {
    /// Its requests in this block, by call.
    calls: BTreeMap<u64, Counts>,
    /// Its failures, those of earlier minutes at half and less.
    recent_faults: u64,
}

impl FailingSources {
    /// A request of this source starts.
    pub(in crate::proxy) fn start(&self, source: &Source) {
        self.sources.insert(source.hash);
        self.clients.insert(source.client);
    }

    /// The outcome of a request is known.
    pub(in crate::proxy) fn end(&self, source: &Source, call: u64, outcome: Outcome) {
        let is_served = !matches!(outcome, Outcome::ClientFault | Outcome::Neutral);
        if is_served && !source.has_session {
            self.clients_without_session.insert(source.client);
        }
        let is_fault = !matches!(outcome, Outcome::Ok | Outcome::Neutral);
        let Some(mut tracked) = self.lock_for(is_fault) else { return };
        tracked.count((source, call), is_fault, |counts| counts.count(outcome));
        if outcome != Outcome::Neutral {
            tracked.note_known_failing((source.identity, call), is_fault);
        }
        self.is_tracking.store(tracked.is_needed(), Ordering::Relaxed);
    }

    /// Whether a request was slow is known.
    pub(in crate::proxy) fn record_latency(&self, source: &Source, call: u64, slow: bool) {
        let Some(mut tracked) = self.lock_for(slow) else { return };
        tracked.count((source, call), slow, |counts| {
            counts.with_latency += 1;
            counts.slow += u64::from(slow);
        });
        self.is_tracking.store(tracked.is_needed(), Ordering::Relaxed);
    }

    /// An answer is not as it was at the release before. Say so before [`Self::end`], which then counts the
    /// answer for the same source.
    pub(in crate::proxy) fn record_unusual(&self, source: &Source, call: u64, unusual: Unusual) {
        let mut tracked = self.lock();
        tracked.count((source, call), true, |counts| {
            counts.small += u64::from(unusual.small);
            counts.slower += u64::from(unusual.slower);
        });
        self.is_tracking.store(tracked.is_needed(), Ordering::Relaxed);
    }

    /// Counts a request without an answer after far longer than usual.
    pub(in crate::proxy) fn record_overdue(&self, source: &Source, call: u64) {
        let mut tracked = self.lock();
        tracked.count((source, call), true, |counts| {
            counts.slower += 1;
            counts.given_up += 1;
        });
        self.is_tracking.store(tracked.is_needed(), Ordering::Relaxed);
    }

    /// An overdue request is answered. Say so before [`Self::end`].
    pub(in crate::proxy) fn record_answered_late(&self, source: &Source, call: u64) {
        let mut tracked = self.lock();
        tracked.count((source, call), true, |counts| counts.answered_late += 1);
        self.is_tracking.store(tracked.is_needed(), Ordering::Relaxed);
    }

    /// What is tracked, unless a request adds nothing to it.
    fn lock_for(&self, is_fault: bool) -> Option<MutexGuard<'_, Tracked>> {
        (is_fault || self.is_tracking.load(Ordering::Relaxed)).then(|| self.lock())
    }

    /// These sources and calls say nothing, with what they did in the block that is under way: it began
    /// before the deploy had its traffic, and ends after it.
    pub(in crate::proxy) fn set_known_failing(&self, known: &[KnownFailing]) {
        let mut tracked = self.lock();
        tracked.known_failing = known.iter().map(|it| ((it.identity, it.call), 0)).collect();
        for it in known {
            let source = tracked.sources.get_mut(&it.source);
            let counts = source.and_then(|source| source.calls.remove(&it.call));
            tracked.known_failing_counts += counts.unwrap_or_default();
        }
        self.is_tracking.store(tracked.is_needed(), Ordering::Relaxed);
    }

    /// Ends a block: the requests of failing sources since the last call.
    pub(in crate::proxy) fn take_block(&self) -> BlockSources {
        let mut tracked = self.lock();
        tracked.blocks += 1;
        if tracked.blocks.is_multiple_of(HALF_LIFE_BLOCKS) {
            self.sources.age();
            self.clients.age();
            tracked.age();
            self.is_tracking.store(tracked.is_needed(), Ordering::Relaxed);
        }
        if tracked.blocks.is_multiple_of(ACTIVE_BLOCKS) {
            self.clients_without_session.age();
        }
        let active = |set: &ActiveSet| u16::try_from(set.len()).unwrap_or(u16::MAX);
        BlockSources {
            sources_active: active(&self.sources),
            clients_active: active(&self.clients),
            known_failing: std::mem::take(&mut tracked.known_failing_counts),
            sources: take_counts(&mut tracked.sources),
            clients: take_counts(&mut tracked.clients),
        }
    }

    /// About how many clients without a session had a request served by these releases in the last minutes.
    pub(in crate::proxy) fn clients_without_session<'a>(
        releases: impl Iterator<Item = &'a Self>,
    ) -> u64 {
        let sets: Vec<_> = releases.map(|it| &it.clients_without_session).collect();
        ActiveSet::len_together(&sets)
    }

    fn lock(&self) -> MutexGuard<'_, Tracked> {
        lock(&self.tracked)
    }
}

impl Tracked {
    fn is_needed(&self) -> bool {
        !(self.sources.is_empty() && self.clients.is_empty() && self.known_failing.is_empty())
    }

    /// Counts a request for its source and its client, unless it says nothing.
    fn count(
        &mut self,
        (source, call): (&Source, u64),
        is_fault: bool,
        change: impl Fn(&mut Counts),
    ) {
        if self.known_failing.contains_key(&(source.identity, call)) {
            return change(&mut self.known_failing_counts);
        }
        for (table, key) in [(&mut self.sources, source.hash), (&mut self.clients, source.client)] {
            if let Some(entry) = entry(table, key, is_fault) {
                entry.recent_faults = entry.recent_faults.saturating_add(is_fault.into());
                let has_room = entry.calls.len() < CALLS_MAX || entry.calls.contains_key(&call);
                change(entry.calls.entry(if has_room { call } else { OTHER_CALLS }).or_default());
            }
        }
    }

    /// A request of a pair ended: one that succeeds for a while is like any other.
    fn note_known_failing(&mut self, pair: (Identity, u64), failed: bool) {
        let Some(successes) = self.known_failing.get_mut(&pair) else { return };
        *successes = if failed { 0 } else { *successes + 1 };
        if SUCCESSES_TO_FORGET <= *successes {
            self.known_failing.remove(&pair);
        }
    }

    fn age(&mut self) {
        for table in [&mut self.sources, &mut self.clients] {
            table.retain(|_, source| {
                source.recent_faults /= 2;
                0 < source.recent_faults || !source.calls.is_empty()
            });
        }
    }
}

/// The entry of a source, a new one only for a failure.
fn entry(
    table: &mut BTreeMap<u64, TrackedSource>,
    key: u64,
    is_fault: bool,
) -> Option<&mut TrackedSource> {
    if is_fault && table.len() < TRACKED_MAX {
        return Some(table.entry(key).or_default());
    }
    table.get_mut(&key)
}

/// The requests of the sources with the most failures.
fn take_counts(table: &mut BTreeMap<u64, TrackedSource>) -> Vec<SourceCounts> {
    let mut taken: Vec<_> = table
        .iter_mut()
        .filter(|(_, tracked)| !tracked.calls.is_empty())
        .map(|(source, tracked)| {
            (tracked.recent_faults, *source, std::mem::take(&mut tracked.calls))
        })
        .collect();
    taken.sort_by_key(|(faults, source, _)| (std::cmp::Reverse(*faults), *source));
    taken.truncate(REPORTED_MAX);
    let of_source = |(_, source, calls): (u64, u64, BTreeMap<u64, Counts>)| {
        calls.into_iter().map(move |(call, counts)| SourceCounts { source, call, counts })
    };
    taken.into_iter().flat_map(of_source).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(hash: u64, client: u64) -> Source {
        Source { identity: Identity::Client(hash), hash, has_session: false, client }
    }

    #[test]
    fn a_source_is_counted_from_its_first_failure_on() {
        let (failing, user) = (FailingSources::default(), source(1, 9));
        failing.end(&user, 7, Outcome::Ok);
        assert!(failing.take_block().is_empty());
        failing.end(&user, 7, Outcome::ServerFault);
        failing.end(&user, 7, Outcome::Ok);
        failing.end(&source(2, 9), 7, Outcome::Ok);
        failing.end(&source(3, 8), 7, Outcome::Ok);
        let block = failing.take_block();
        let counts = Counts { ok: 1, server_fault: 1, ..Counts::default() };
        assert_eq!(block.sources, [SourceCounts { source: 1, call: 7, counts }]);
        // Another session of its client is tracked with it.
        let counts = Counts { ok: 2, ..counts };
        assert_eq!(block.clients, [SourceCounts { source: 9, call: 7, counts }]);
        failing.end(&user, 7, Outcome::Ok);
        failing.record_latency(&user, 7, true);
        let counts = Counts { ok: 1, slow: 1, with_latency: 1, ..Counts::default() };
        assert_eq!(failing.take_block().sources, [SourceCounts { source: 1, call: 7, counts }]);
        assert!(failing.take_block().is_empty());
    }

    #[test]
    fn what_failed_before_the_deploy_is_apart() {
        let (failing, user) = (FailingSources::default(), source(1, 1));
        failing.end(&user, 7, Outcome::ServerFault);
        let known = KnownFailing { identity: user.identity, source: user.hash, call: 7 };
        failing.set_known_failing(&[known]);
        assert_eq!(failing.take_block().known_failing.server_fault, 1, "of the block under way");
        failing.end(&user, 7, Outcome::ServerFault);
        failing.end(&user, 7, Outcome::Ok);
        failing.end(&user, 7, Outcome::ServerFault);
        failing.end(&user, 8, Outcome::ServerFault);
        let block = failing.take_block();
        assert_eq!(block.known_failing, Counts { ok: 1, server_fault: 2, ..Counts::default() });
        assert_eq!(block.sources[0].counts, Counts { server_fault: 1, ..Counts::default() });
        // It succeeds now: another failure is news.
        (0..SUCCESSES_TO_FORGET).for_each(|_| failing.end(&user, 7, Outcome::Ok));
        failing.end(&user, 7, Outcome::ServerFault);
        let block = failing.take_block();
        assert_eq!(block.known_failing.total(), u64::from(SUCCESSES_TO_FORGET));
        assert_eq!(block.sources[0].counts.server_fault, 1);
    }

    #[test]
    fn sources_are_bounded_and_forgotten() {
        let failing = FailingSources::default();
        for hash in 0..2 * TRACKED_MAX as u64 {
            failing.start(&source(hash << 52, hash << 52));
            failing.end(&source(hash, hash), 7, Outcome::ToolFault);
        }
        (0..5).for_each(|_| failing.end(&source(3, 3), 7, Outcome::ToolFault));
        assert_eq!(failing.lock().sources.len(), TRACKED_MAX);
        let block = failing.take_block();
        assert_eq!((block.sources.len(), block.sources[0].source), (REPORTED_MAX, 3));
        assert!(3_000 < block.sources_active, "{}", block.sources_active);
        for _ in 0..3 * HALF_LIFE_BLOCKS {
            failing.take_block();
        }
        assert_eq!(failing.lock().sources.len(), 0);
        assert_eq!(failing.take_block().sources_active, 0);
    }
}
