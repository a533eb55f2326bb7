//! What clients called in the last hour, by method and tool.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{CallKey, Counts, ReleaseNumber};

/// Blocks between two snapshots of the counters: five minutes.
pub(crate) const SNAPSHOT_BLOCKS: u64 = 1200;
/// Snapshots that are kept: the oldest is an hour ago.
const SNAPSHOTS_MAX: usize = 12;

/// The snapshots of each release, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct CallUsage(BTreeMap<ReleaseNumber, VecDeque<BTreeMap<CallKey, u64>>>);

impl CallUsage {
    /// Keeps a snapshot of the counters of a release.
    pub(crate) fn snapshot(&mut self, release: ReleaseNumber, calls: BTreeMap<CallKey, Counts>) {
        // Counters start at zero with the release and with the daemon.
        let snapshots = self.0.entry(release).or_insert_with(|| VecDeque::from([BTreeMap::new()]));
        snapshots
            .push_back(calls.into_iter().map(|(call, counts)| (call, counts.judged())).collect());
        while snapshots.len() > SNAPSHOTS_MAX {
            snapshots.pop_front();
        }
    }

    /// Forgets the releases that are not needed.
    pub(crate) fn retain(&mut self, needed: &[ReleaseNumber]) {
        self.0.retain(|release, _| needed.contains(release));
    }

    /// Adds the calls of a release in the last hour, given its counters now.
    pub(crate) fn add_last_hour(
        &self,
        release: ReleaseNumber,
        calls: BTreeMap<CallKey, Counts>,
        into: &mut BTreeMap<CallKey, u64>,
    ) {
        let oldest = self.0.get(&release).and_then(VecDeque::front);
        for (call, counts) in calls {
            let count_then = oldest
                .and_then(|oldest_calls| oldest_calls.get(&call))
                .copied()
                .unwrap_or_default();
            let count = counts.judged().saturating_sub(count_then);
            if 0 < count {
                *into.entry(call).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(ok: u64) -> BTreeMap<CallKey, Counts> {
        let counts = Counts { ok, ..Counts::default() };
        BTreeMap::from([(("tools/call".into(), "a".into()), counts)])
    }

    fn usage_last_hour(usage: &CallUsage, now: u64) -> u64 {
        let mut into = BTreeMap::new();
        usage.add_last_hour(ReleaseNumber(1), calls(now), &mut into);
        into.into_values().sum()
    }

    #[test]
    fn usage_covers_exactly_the_last_hour() {
        let mut usage = CallUsage::default();
        assert_eq!(usage_last_hour(&usage, 7), 7);
        (1..SNAPSHOTS_MAX).for_each(|_| usage.snapshot(ReleaseNumber(1), calls(7)));
        assert_eq!(usage_last_hour(&usage, 9), 9);
        usage.snapshot(ReleaseNumber(1), calls(9));
        assert_eq!(usage_last_hour(&usage, 9), 2);
        usage.retain(&[ReleaseNumber(2)]);
        assert_eq!(usage_last_hour(&usage, 9), 9, "a release that returns starts again");
    }
}
