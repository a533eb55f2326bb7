//! What clients asked for in the last hour, by method and tool.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{Call, Counts, Number};

/// Between two looks at the counters: five minutes of blocks.
pub(super) const LOOK_BLOCKS: u64 = 1200;
/// Looks that are kept: the oldest is an hour ago.
const LOOKS_MAX: usize = 12;

/// The counters of each release as they stood, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Uses(BTreeMap<Number, VecDeque<BTreeMap<Call, u64>>>);

impl Uses {
    /// Remembers how the counters of a release stand.
    pub(super) fn look(&mut self, release: Number, calls: BTreeMap<Call, Counts>) {
        // Counters begin at zero with the release, and with the daemon.
        let looks = self.0.entry(release).or_insert_with(|| VecDeque::from([BTreeMap::new()]));
        looks.push_back(calls.into_iter().map(|(call, counts)| (call, counts.judged())).collect());
        while looks.len() > LOOKS_MAX {
            looks.pop_front();
        }
    }

    /// Forgets the releases that are not needed.
    pub(super) fn retain(&mut self, needed: &[Number]) {
        self.0.retain(|release, _| needed.contains(release));
    }

    /// Adds what a release was asked for in the last hour, given its counters now.
    pub(super) fn add(
        &self,
        release: Number,
        calls: BTreeMap<Call, Counts>,
        into: &mut BTreeMap<Call, u64>,
    ) {
        let before = self.0.get(&release).and_then(VecDeque::front);
        for (call, counts) in calls {
            let then = before.and_then(|before| before.get(&call)).copied().unwrap_or_default();
            let count = counts.judged().saturating_sub(then);
            if 0 < count {
                *into.entry(call).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(ok: u64) -> BTreeMap<Call, Counts> {
        let counts = Counts { ok, ..Counts::default() };
        BTreeMap::from([(("tools/call".into(), "a".into()), counts)])
    }

    fn used(uses: &Uses, now: u64) -> u64 {
        let mut into = BTreeMap::new();
        uses.add(Number(1), calls(now), &mut into);
        into.into_values().sum()
    }

    #[test]
    fn an_hour_ago_is_forgotten_and_no_earlier() {
        let mut uses = Uses::default();
        assert_eq!(used(&uses, 7), 7);
        (1..LOOKS_MAX).for_each(|_| uses.look(Number(1), calls(7)));
        assert_eq!(used(&uses, 9), 9);
        uses.look(Number(1), calls(9));
        assert_eq!(used(&uses, 9), 2);
        uses.retain(&[Number(2)]);
        assert_eq!(used(&uses, 9), 9, "a release that comes again counts anew");
    }
}
