//! A session or client on trial, whose requests are counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::{Arm, Outcome};
use crate::proxy::backend::trial_cells::{Cell, CellCounts, TrialCells};

/// A subject of a trial.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct TrialSubject {
    /// Where they are counted.
    pub cells: Arc<TrialCells>,
    /// The release that they go to.
    pub arm: Arm,
    /// Its keyed hash.
    pub subject: u64,
    /// That of its client.
    pub client: u64,
    /// Whether a failed answer of a tool is a failure.
    pub counts_tools: bool,
}

impl TrialSubject {
    /// A request of this call starts: its cell.
    pub(in crate::proxy) fn start(&self, call: u64) -> Arc<CellCounts> {
        let Self { cells, arm, subject, client, .. } = self;
        let second = cells.second();
        cells.start(Cell { arm: *arm, subject: *subject, client: *client, call, second })
    }

    /// The outcome of a request of this cell is known.
    pub(in crate::proxy) fn end(&self, cell: &CellCounts, outcome: Outcome) {
        let count = match outcome {
            Outcome::Ok => return,
            Outcome::ToolFault if !self.counts_tools => return,
            Outcome::ServerFault | Outcome::ToolFault => &cell.failed,
            Outcome::ClientFault | Outcome::Neutral => &cell.excused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
