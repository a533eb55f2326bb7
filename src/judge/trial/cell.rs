//! Cells whose second is over or under way, by number.

use crate::model::Arm;

/// A cell whose second has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) call: u16,
    pub(super) subject: u16,
    pub(super) arm: Arm,
    pub(super) started: u32,
    pub(super) excused: u32,
    pub(super) failed: u32,
}

impl Cell {
    /// Its place in the order.
    pub(super) fn key(&self) -> u64 {
        key(self.call, self.arm, self.subject)
    }

    /// The failed part of its requests.
    pub(super) fn share(&self) -> f64 {
        f64::from(self.failed.min(self.started)) / f64::from(self.started.max(1))
    }
}

/// The place of a cell in the order: by call, then by arm, then by subject.
pub(super) fn key(call: u16, arm: Arm, subject: u16) -> u64 {
    u64::from(call) << 32 | u64::from(arm == Arm::Trial) << 16 | u64::from(subject)
}

/// One cell for each call, arm and subject, in order.
pub(super) fn merge(cells: &mut Vec<Cell>) {
    cells.sort_unstable_by_key(Cell::key);
    cells.dedup_by(|next, sum| {
        let same = next.key() == sum.key();
        if same {
            sum.started = sum.started.saturating_add(next.started);
            sum.failed = sum.failed.saturating_add(next.failed);
            sum.excused = sum.excused.saturating_add(next.excused);
        }
        same
    });
}
