//! Requests on trial, by arm, subject, call and the second of their start.
//!
//! A request finds its cell when it starts; its outcome is one counter there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::clock::Clock;
use crate::model::{Arm, TrialCell};
use crate::mutex::lock;

/// Cells between two reads. Beyond them, subjects share cells.
const CELLS_MAX: usize = 20_000;
/// The subject of a shared cell keeps these bits, so that its coin stays about the same.
const SHARED_BITS: u64 = 0xff << 56;

/// The cells since the last read.
#[derive(Debug)]
pub(in crate::proxy) struct TrialCells {
    clock: Clock,
    cells: Mutex<BTreeMap<Cell, Arc<CellCounts>>>,
}

/// Which requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) arm: Arm,
    pub(super) subject: u64,
    pub(super) client: u64,
    pub(super) call: u64,
    /// That of the request's start.
    pub(super) second: u64,
}

/// What was counted since the last read.
#[derive(Debug, Default)]
pub(in crate::proxy) struct CellCounts {
    started: AtomicU32,
    pub(super) failed: AtomicU32,
    pub(super) excused: AtomicU32,
}

impl TrialCells {
    /// No cells. Seconds are those of this clock.
    pub(in crate::proxy) fn new(clock: Clock) -> Self {
        Self { clock, cells: Mutex::default() }
    }

    /// What was counted since the last call.
    pub(in crate::proxy) fn take(&self) -> Vec<TrialCell> {
        let mut cells = lock(&self.cells);
        let mut taken = Vec::with_capacity(cells.len());
        cells.retain(|cell, counts| {
            // Asked first: a request that ends in between is read the next time.
            let is_open = 1 < Arc::strong_count(counts);
            let [started, failed, excused] = [&counts.started, &counts.failed, &counts.excused]
                .map(|it| it.swap(0, Ordering::Relaxed));
            let Cell { arm, subject, client, call, second } = *cell;
            if 0 < started + failed + excused {
                taken.push(TrialCell {
                    arm,
                    subject,
                    client,
                    call,
                    second,
                    started,
                    failed,
                    excused,
                });
            }
            is_open
        });
        taken
    }

    /// The second of now.
    pub(super) fn second(&self) -> u64 {
        self.clock.now().0 / 1000
    }

    /// A request starts in this cell.
    pub(super) fn start(&self, cell: Cell) -> Arc<CellCounts> {
        let mut cells = lock(&self.cells);
        let has_room = cells.len() < CELLS_MAX || cells.contains_key(&cell);
        let subject = cell.subject & SHARED_BITS;
        let shared = Cell { subject, client: subject, call: 0, ..cell };
        let counts = cells.entry(if has_room { cell } else { shared }).or_default();
        counts.started.fetch_add(1, Ordering::Relaxed);
        Arc::clone(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Moment, Outcome};
    use crate::proxy::backend::trial_subject::TrialSubject;

    #[test]
    fn requests_of_a_cell_add_up_and_the_cells_are_bounded() {
        let cells = Arc::new(TrialCells::new(Clock::start(Moment(0))));
        let of = |subject| TrialSubject {
            cells: Arc::clone(&cells),
            arm: Arm::Trial,
            subject,
            client: subject,
            counts_tools: true,
        };
        let user = of(7 << 40);
        let first = user.start(1);
        user.start(2);
        user.end(&first, Outcome::ToolFault);
        let taken = cells.take();
        assert_eq!(taken.iter().map(|it| it.started).sum::<u32>(), 2);
        assert_eq!(taken.iter().map(|it| it.failed).sum::<u32>(), 1);
        assert!(cells.take().is_empty());
        // An outcome that is known later belongs to the cell of its start.
        user.end(&first, Outcome::ServerFault);
        drop(first);
        let [late] = cells.take().try_into().unwrap();
        assert_eq!((late.started, late.failed, late.second), (0, 1, taken[0].second));
        assert!(cells.take().is_empty());
        assert!(cells.cells.lock().unwrap().is_empty());
        for subject in 0..2 * CELLS_MAX as u64 {
            let _ = of(subject << 20).start(2);
        }
        let taken = cells.take();
        assert!(taken.len() <= CELLS_MAX + 512, "{}", taken.len());
        assert_eq!(taken.iter().map(|it| it.started).sum::<u32>(), 2 * CELLS_MAX as u32);
    }
}
