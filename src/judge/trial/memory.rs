//! What a trial keeps for failures that are known late, and its bounds.

use crate::judge::trial::judge::TrialJudge;

/// Cells of closed seconds are kept for failures that are known late.
const KEEP_S: u64 = 90;
/// Cells that are kept, and entries of blocks.
const CELLS_MAX: usize = 50_000;
const BLOCK_ENTRIES_MAX: usize = 60_000;

impl TrialJudge {
    /// Cells that are kept, and entries of blocks.
    pub(super) fn stored(&self) -> (usize, usize) {
        let of_calls: usize = self.calls.values().map(|it| it.blocks.len()).sum();
        (self.ended_cells, self.blocks.len() + of_calls)
    }

    /// Drops what is too old or too much; only failures that are known late need it.
    pub(super) fn bound_memory(&mut self, second: u64) {
        while let Some(first) = self.ended.first_entry()
            && (CELLS_MAX < self.ended_cells || first.key() + KEEP_S < second)
        {
            self.ended_cells -= first.remove().len();
        }
        let (_, entries) = self.stored();
        if BLOCK_ENTRIES_MAX < entries {
            self.blocks.forget_closed();
            for tests in self.calls.values_mut() {
                tests.blocks.forget_closed();
                tests.blocks.drop_open(second + 1);
            }
        }
    }
}
