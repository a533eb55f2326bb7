//! Counters of what became of requests: per release, and per method and tool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::{Call, Class, Counts};

/// Methods and tools that are counted apart; the rest share one line.
const CALLS_MAX: usize = 512;
const OTHER: &str = "other";

/// The counters of one release.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: Cells,
    calls: papaya::HashMap<Call, Arc<Cells>>,
}

/// One set of counters that only grow.
#[derive(Debug, Default)]
pub(super) struct Cells {
    ok: AtomicU64,
    server_fault: AtomicU64,
    tool_fault: AtomicU64,
    client_fault: AtomicU64,
    neutral: AtomicU64,
    slow: AtomicU64,
    timed: AtomicU64,
}

impl Tally {
    /// The counters of a call. Resources are counted together: their names have no end.
    pub(super) fn call(&self, method: &str, name: &str) -> Arc<Cells> {
        let name = if method.starts_with("resources/") { "" } else { name };
        let calls = self.calls.pin();
        let key: Call = (method.into(), name.into());
        if let Some(cells) = calls.get(&key) {
            return Arc::clone(cells);
        }
        let key = if calls.len() < CALLS_MAX { key } else { (OTHER.into(), "".into()) };
        Arc::clone(calls.get_or_insert_with(key, Arc::default))
    }

    /// Counts a request that ended.
    pub(super) fn count(&self, call: Option<&Cells>, class: Class) {
        for cells in [Some(&self.all), call].into_iter().flatten() {
            cells.of(class).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request whose latency is known to be within the threshold, or past it.
    pub(super) fn time(&self, call: Option<&Cells>, slow: bool) {
        for cells in [Some(&self.all), call].into_iter().flatten() {
            cells.timed.fetch_add(1, Ordering::Relaxed);
            cells.slow.fetch_add(u64::from(slow), Ordering::Relaxed);
        }
    }

    /// Everything so far.
    pub(super) fn total(&self) -> Counts {
        self.all.counts()
    }

    /// Everything so far, by method and tool.
    pub(super) fn by_call(&self) -> BTreeMap<Call, Counts> {
        let calls = self.calls.pin();
        calls.iter().map(|(call, cells)| (call.clone(), cells.counts())).collect()
    }
}

impl Cells {
    fn of(&self, class: Class) -> &AtomicU64 {
        match class {
            Class::Ok => &self.ok,
            Class::ServerFault => &self.server_fault,
            Class::ToolFault => &self.tool_fault,
            Class::ClientFault => &self.client_fault,
            Class::Neutral => &self.neutral,
        }
    }

    fn counts(&self) -> Counts {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Counts {
            ok: read(&self.ok),
            server_fault: read(&self.server_fault),
            tool_fault: read(&self.tool_fault),
            client_fault: read(&self.client_fault),
            neutral: read(&self.neutral),
            slow: read(&self.slow),
            timed: read(&self.timed),
            ..Counts::default()
        }
    }
}
