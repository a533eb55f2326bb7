//! Which part of the failures one source accounts for, and what all others saw meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::judge::beta;
use crate::judge::slo::Indicator;
use crate::model::{BlockSources, Counts, Finding, SourceCounts};

/// Sources that are compared; beyond them, the one that failed least is forgotten.
const SOURCES_MAX: usize = 32;
/// From this many active clients on, a client is one source, however many sessions it has; with fewer,
/// its sessions are: a gateway has all of them.
const CLIENTS_MIN: u16 = 6;
/// How long others may take to show whether they fail, too.
const OTHERS_WAIT: Duration = Duration::from_secs(5);
/// One failure rate is plainly above another one if their bounds with this tail do not meet.
const TAIL: f64 = 0.05;
/// The others fail more than allowed if the bound with this tail says so.
const OTHERS_TAIL: f64 = 0.01;

/// The failing sources of one release since evidence is gathered.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceShares {
    sources: BTreeMap<u64, Share>,
    clients: BTreeMap<u64, Share>,
    /// What was said about the block that ends next.
    next_block: BlockSources,
    /// How many were active when that was last said.
    active: (u16, u16),
}

/// One source since its first failure.
#[derive(Debug, Clone, Default)]
struct Share {
    own: Counts,
    /// Everything else that ended on the release meanwhile.
    others: Counts,
    /// Its part of the last block.
    block: Counts,
    /// Its requests by call since the calls were counted last.
    calls: BTreeMap<u64, Counts>,
}

/// One source fails, and the others plainly less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OneSource {
    /// Its requests since its first failure, and the bad ones.
    pub(super) own: (u64, u64),
    /// Those of all others meanwhile.
    pub(super) others: (u64, u64),
}

impl SourceShares {
    /// What the next block will consist of.
    pub(super) fn expect(&mut self, sources: &BlockSources) {
        self.active = (sources.sources_active, sources.clients_active);
        self.next_block = sources.clone();
    }

    /// A block ends. Returns the requests in it that say something about the release.
    pub(super) fn end_block(&mut self, counts: &Counts) -> Counts {
        let block = std::mem::take(&mut self.next_block);
        let counts = counts.since(&block.known_failing);
        add(&mut self.sources, &block.sources, &counts);
        add(&mut self.clients, &block.clients, &counts);
        counts
    }

    /// The part of the worst source in the last block: requests, and bad ones. None where it is alone.
    pub(super) fn left_out(&self, about: Indicator) -> Option<(u64, u64)> {
        Some(about.count(&self.worst(about)?.block))
    }

    /// The same for one call since [`Self::end_calls`].
    pub(super) fn left_out_of_call(&self, about: Indicator, call: u64) -> Option<(u64, u64)> {
        let counts = self.worst(about)?.calls.get(&call).copied().unwrap_or_default();
        Some(about.count(&counts))
    }

    /// The calls were counted.
    pub(super) fn end_calls(&mut self) {
        for share in self.sources.values_mut().chain(self.clients.values_mut()) {
            share.calls.clear();
        }
    }

    /// The worst source, and all others.
    pub(super) fn worst_source(&self, about: Indicator) -> Option<OneSource> {
        let Share { own, others, .. } = self.worst(about)?;
        Some(OneSource { own: about.count(own), others: about.count(others) })
    }

    /// Forgets everything but who is active.
    pub(super) fn reset(&mut self) {
        self.sources.clear();
        self.clients.clear();
    }

    fn worst(&self, about: Indicator) -> Option<&Share> {
        let (sources, clients) = self.active;
        let (table, active) = if CLIENTS_MIN <= clients {
            (&self.clients, clients)
        } else {
            (&self.sources, sources)
        };
        let bad = |share: &Share| about.count(&share.own).1;
        let worst = table.values().max_by_key(|share| bad(share))?;
        (1 < active && 0 < bad(worst)).then_some(worst)
    }
}

impl OneSource {
    /// What it means for a breach that was proven this long ago, where this rate of failures is allowed. None:
    /// it is a breach like any other.
    pub(super) fn finding(self, allowed: f64, proven_for: Duration) -> Option<Finding> {
        // Their own evidence may be short of a verdict yet: a burst is allowed to them, too.
        let (others, others_bad) = self.others;
        if allowed < beta::lower_bound(others_bad, others, OTHERS_TAIL) {
            return None;
        }
        if self.is_alone() {
            return Some(Finding::OneUser);
        }
        (proven_for < OTHERS_WAIT).then_some(Finding::Measuring)
    }

    /// Whether the others plainly fail less.
    pub(super) fn is_alone(self) -> bool {
        let Self { own, others } = self;
        beta::upper_bound(others.1, others.0, TAIL) < beta::lower_bound(own.1, own.0, TAIL)
    }
}

impl fmt::Display for OneSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own: (n, bad), others: (others, others_bad) } = self;
        write!(f, "{bad} of {n} of one user, {others_bad} of {others} of all others")
    }
}

fn add(table: &mut BTreeMap<u64, Share>, block: &[SourceCounts], all: &Counts) {
    table.values_mut().for_each(|share| share.block = Counts::default());
    for SourceCounts { source, call, counts } in block {
        if !table.contains_key(source) && SOURCES_MAX <= table.len() {
            forget_least(table);
        }
        let share = table.entry(*source).or_default();
        share.block += *counts;
        *share.calls.entry(*call).or_default() += *counts;
    }
    for share in table.values_mut() {
        share.own += share.block;
        share.others += all.since(&share.block);
    }
}

fn forget_least(table: &mut BTreeMap<u64, Share>) {
    let faults = |share: &Share| share.own.server_fault + share.own.tool_fault + share.own.slow;
    let least = table.iter().min_by_key(|(_, share)| faults(share)).map(|(source, _)| *source);
    least.into_iter().for_each(|source| drop(table.remove(&source)));
}

/// Requests of a longer time, without those of the source that failed most if all others plainly failed
/// less while it did: one source is no measure of what a release usually does. `shares` has the requests
/// of each source, and those of all others in the same minutes.
pub fn without_one_source(all: Counts, shares: impl Iterator<Item = (Counts, Counts)>) -> Counts {
    let failed =
        |counts: &Counts| (counts.judged(), counts.server_fault.saturating_add(counts.tool_fault));
    let worst = shares.max_by_key(|(own, _)| failed(own).1);
    let is_alone = |(own, others): &(Counts, Counts)| {
        0 < failed(own).1 && OneSource { own: failed(own), others: failed(others) }.is_alone()
    };
    worst.filter(is_alone).map_or(all, |(own, _)| all.since(&own))
}
