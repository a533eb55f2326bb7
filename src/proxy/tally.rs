//! Counters of what became of requests: per release, and per method and tool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::model::{Call, Class, Counts};

use super::repeat::Safe;

/// Methods and tools that are counted apart; the rest share one line.
const CALLS_MAX: usize = 512;
const OTHER: &str = "other";

/// The counters of one release.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: Cells,
    calls: papaya::HashMap<Call, Arc<Cells>>,
    safe: Arc<Safe>,
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
    safe: AtomicU64,
    safe_bad: AtomicU64,
    streams: AtomicU64,
    broken: AtomicU64,
    /// Whether requests of this call are safe to repeat, as far as is known now.
    repeatable: AtomicBool,
}

impl Tally {
    /// No request yet; `safe` tells which ones are safe to repeat.
    pub(super) fn new(safe: Arc<Safe>) -> Self {
        Self { safe, ..Self::default() }
    }

    /// The counters of a call. Resources are counted together: their names have no end.
    pub(super) fn call(&self, method: &str, name: &str) -> Arc<Cells> {
        let name = if method.starts_with("resources/") { "" } else { name };
        let calls = self.calls.pin();
        let key: Call = (method.into(), name.into());
        if let Some(cells) = calls.get(&key) {
            return Arc::clone(cells);
        }
        if calls.len() >= CALLS_MAX {
            return Arc::clone(calls.get_or_insert_with((OTHER.into(), "".into()), Arc::default));
        }
        let cells = calls.get_or_insert_with(key, Arc::default);
        // After it can be found by whoever learns of safe tools at this moment.
        cells.repeatable.store(self.safe.covers(method, name), Ordering::Relaxed);
        Arc::clone(cells)
    }

    /// Decides again which calls are safe to repeat.
    pub(super) fn learn(&self) {
        for ((method, name), cells) in &self.calls.pin() {
            cells.repeatable.store(self.safe.covers(method, name), Ordering::Relaxed);
        }
    }

    /// Counts a request that ended.
    pub(super) fn count(&self, call: Option<&Cells>, class: Class) {
        let safe = call.is_some_and(|call| call.repeatable.load(Ordering::Relaxed))
            && matches!(class, Class::Ok | Class::ServerFault | Class::ToolFault);
        for cells in [Some(&self.all), call].into_iter().flatten() {
            cells.of(class).fetch_add(1, Ordering::Relaxed);
            if safe {
                cells.safe.fetch_add(1, Ordering::Relaxed);
            }
            if safe && class != Class::Ok {
                cells.safe_bad.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a request whose latency is known to be within the threshold, or past it.
    pub(super) fn time(&self, call: Option<&Cells>, slow: bool) {
        for cells in [Some(&self.all), call].into_iter().flatten() {
            cells.timed.fetch_add(1, Ordering::Relaxed);
            cells.slow.fetch_add(u64::from(slow), Ordering::Relaxed);
        }
    }

    /// Counts a stream that only listened and ended, whether it was broken off or not.
    pub(super) fn stream(&self, broken: bool) {
        self.all.streams.fetch_add(1, Ordering::Relaxed);
        self.all.broken.fetch_add(u64::from(broken), Ordering::Relaxed);
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
            safe: read(&self.safe),
            safe_bad: read(&self.safe_bad),
            streams: read(&self.streams),
            broken: read(&self.broken),
        }
    }
}
