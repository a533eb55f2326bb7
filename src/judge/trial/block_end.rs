//! The end of a block of time: the arms are compared, episodes end, and clients may become the witnesses.

use std::collections::BTreeMap;

use crate::judge::trial::clip;
use crate::judge::trial::judge::TrialJudge;

/// An episode is over when the promise test falls below this.
const EPISODE_OVER: f64 = 1.5;
/// Blocks at the beginning of the trial in which a cold start is ordinary.
const COLD_BLOCKS: u64 = 2;

impl TrialJudge {
    /// Ends the blocks before this second, and compares the arms in them.
    pub(super) fn end_blocks(&mut self, until: u64) {
        let witnesses = self.witnesses();
        let mut faded = BTreeMap::new();
        for mut mark in self.blocks.end(until, &self.subjects) {
            mark.subject = self.subjects.witness(mark.subject);
            let fade = self.subjects.fade(mark.subject, until, witnesses);
            faded.insert(mark.subject, fade);
            for test in [&mut self.shares, &mut self.episode] {
                test.update(&mark, fade, witnesses);
            }
        }
        let is_cold = until <= self.began + COLD_BLOCKS * self.block_s;
        self.shares.end_block(if is_cold { clip::COLD } else { clip::THREE });
        self.episode.end_block(clip::TWO);
        self.promise_compared = std::mem::take(&mut self.promise_reached);
        for tests in self.calls.values_mut() {
            for mut mark in tests.blocks.end(until, &self.subjects) {
                mark.subject = self.subjects.witness(mark.subject);
                let fade = faded.get(&mark.subject).copied().unwrap_or(1.0);
                tests.shares.update(&mark, fade, witnesses);
            }
            tests.end_block();
        }
        if let Some(clients) = self.subjects.begin_clients(until) {
            self.regroup(&clients);
        }
    }

    /// Clients are the witnesses from now on: what their subjects contributed is theirs.
    fn regroup(&mut self, clients: &BTreeMap<u16, u16>) {
        self.shares.regroup(clients);
        self.episode.regroup(clients);
        self.promise.regroup(clients);
        for tests in self.calls.values_mut() {
            tests.shares.regroup(clients);
            tests.promise.regroup(clients);
        }
    }

    /// Where the promise is kept again, the comparison starts again.
    pub(super) fn end_episodes(&mut self) {
        if self.promise.e_value() < EPISODE_OVER {
            self.episode.reset();
            let quiet = 2 * self.block_s <= self.next_second.saturating_sub(self.last_failure);
            if quiet && self.shares.e_value() < EPISODE_OVER {
                self.episode_since = None;
            }
        }
        for tests in self.calls.values_mut() {
            if tests.promise.e_value() < EPISODE_OVER {
                tests.shares.reset();
            }
        }
    }
}
