//! Requests on trial, by arm, subject, call and the second of their start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::model::{Arm, Outcome, TrialCell, call_number};

/// Cells between two reads. Beyond them, subjects share cells.
const CELLS_MAX: usize = 20_000;
/// The subject of a shared cell keeps these bits, so that its coin stays about the same.
const SHARED_BITS: u64 = 0xff << 56;

/// The cells since the last read.
#[derive(Debug)]
pub(in crate::proxy) struct TrialCells {
    clock: Clock,
    cells: Mutex<BTreeMap<Cell, CellCounts>>,
}

/// A cell of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::proxy) struct Cell {
    arm: Arm,
    subject: u64,
    call: u64,
    second: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct CellCounts {
    started: u32,
    failed: u32,
    excused: u32,
}

/// The subject of the requests of one exchange, which are counted.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct CountedSubject {
    /// Where they are counted.
    pub cells: Arc<TrialCells>,
    /// The release that they go to.
    pub arm: Arm,
    /// Its keyed hash.
    pub subject: u64,
    /// Whether a failed answer of a tool is a failure.
    pub counts_tools: bool,
}

impl TrialCells {
    /// No cells. Seconds are those of this clock.
    pub(in crate::proxy) fn new(clock: Clock) -> Self {
        Self { clock, cells: Mutex::default() }
    }

    /// The cells since the last call.
    pub(in crate::proxy) fn take(&self) -> Vec<TrialCell> {
        let cells = std::mem::take(&mut *self.cells.lock().unwrap_or_else(PoisonError::into_inner));
        cells
            .into_iter()
            .map(
                |(Cell { arm, subject, call, second }, CellCounts { started, failed, excused })| {
                    TrialCell { arm, subject, call, second, started, failed, excused }
                },
            )
            .collect()
    }

    fn count(&self, cell: Cell, change: impl Fn(&mut CellCounts)) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = cells.len() < CELLS_MAX || cells.contains_key(&cell);
        let shared = Cell { subject: cell.subject & SHARED_BITS, call: 0, ..cell };
        change(cells.entry(if has_room { cell } else { shared }).or_default());
    }
}

impl CountedSubject {
    /// A request of this call starts. Give the cell to [`Self::end`].
    pub(in crate::proxy) fn start(&self, method: &str, name: &str) -> Cell {
        let (call, second) = (call_number(method, name), self.cells.clock.now().0 / 1000);
        let cell = Cell { arm: self.arm, subject: self.subject, call, second };
        self.cells.count(cell, |counts| counts.started = counts.started.saturating_add(1));
        cell
    }

    /// The outcome of a request is known.
    pub(in crate::proxy) fn end(&self, cell: Cell, outcome: Outcome) {
        let failed = match outcome {
            Outcome::Ok => return,
            Outcome::ToolFault if !self.counts_tools => return,
            Outcome::ServerFault | Outcome::ToolFault => true,
            Outcome::ClientFault | Outcome::Neutral => false,
        };
        self.cells.count(cell, |counts| {
            let count = if failed { &mut counts.failed } else { &mut counts.excused };
            *count = count.saturating_add(1);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Moment;

    #[test]
    fn requests_of_a_cell_add_up_and_the_cells_are_bounded() {
        let cells = Arc::new(TrialCells::new(Clock::start(Moment(0))));
        let of = |subject| CountedSubject {
            cells: Arc::clone(&cells),
            arm: Arm::Trial,
            subject,
            counts_tools: true,
        };
        let user = of(7 << 40);
        let first = user.start("tools/call", "a");
        user.start("tools/list", "");
        user.end(first, Outcome::ToolFault);
        let taken = cells.take();
        assert_eq!(taken.iter().map(|it| it.started).sum::<u32>(), 2);
        assert_eq!(taken.iter().map(|it| it.failed).sum::<u32>(), 1);
        assert!(cells.take().is_empty());
        for subject in 0..2 * CELLS_MAX as u64 {
            of(subject << 20).start("tools/list", "");
        }
        let taken = cells.take();
        assert!(taken.len() <= CELLS_MAX + 512, "{}", taken.len());
        assert_eq!(taken.iter().map(|it| it.started).sum::<u32>(), 2 * CELLS_MAX as u32);
    }
}
