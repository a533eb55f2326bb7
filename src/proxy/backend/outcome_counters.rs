//! Counters of request outcomes: per release, and per method and tool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::mcp::methods::carries_content;
use crate::model::{CallKey, Counts, Outcome, Unjudged, UsualAnswers};
use crate::proxy::backend::answer_profile::{AnswerProfile, Unusual};
use crate::proxy::backend::failed_samples::SHADOW_TIMEOUT;
use crate::proxy::backend::read_only_tools::ReadOnlyTools;

/// Calls that have their own counters; all others share one set.
const CALLS_MAX: usize = 512;
const OTHER: &str = "other";
/// Answers after which it is known whether a call is usually quick.
const QUICK_MIN: u64 = 20;
/// It is not if more than one in so many is late.
const LATE_ONE_IN: u64 = 20;

/// The counters of one release.
#[derive(Debug, Default)]
pub(in crate::proxy) struct OutcomeCounters {
    total: CounterCells,
    calls: papaya::HashMap<CallKey, Arc<CounterCells>>,
    read_only_tools: Arc<ReadOnlyTools>,
    not_mcp: AtomicU64,
    not_mcp_4xx: AtomicU64,
    not_mcp_5xx: AtomicU64,
    unread: AtomicU64,
    own_shortage: AtomicU64,
    rate_limited: AtomicU64,
}

/// One set of counters that only grow.
#[derive(Debug, Default)]
pub(in crate::proxy) struct CounterCells {
    ok: AtomicU64,
    server_fault: AtomicU64,
    tool_fault: AtomicU64,
    client_fault: AtomicU64,
    neutral: AtomicU64,
    slow: AtomicU64,
    timed: AtomicU64,
    repeatable_total: AtomicU64,
    repeatable_failed: AtomicU64,
    ended_streams: AtomicU64,
    broken_streams: AtomicU64,
    /// Answers that are not as they were at the release before.
    small: AtomicU64,
    slower: AtomicU64,
    /// Requests without an answer after as long.
    given_up: AtomicU64,
    /// Answers to those.
    answered_late: AtomicU64,
    profile: AnswerProfile,
    /// Whether requests of this call are read-only, as declared now.
    is_repeatable: AtomicBool,
    /// Whether an answer carries content.
    carries_content: bool,
    /// The call; `None` for the sum of several.
    call: Option<CallKey>,
}

impl OutcomeCounters {
    /// Counters at zero. `read_only_tools` decides which calls count as repeatable.
    pub(in crate::proxy) fn new(read_only_tools: Arc<ReadOnlyTools>) -> Self {
        Self { read_only_tools, ..Self::default() }
    }

    /// The counters of a call. All resources share counters: their names are unbounded.
    pub(in crate::proxy) fn for_call(&self, method: &str, name: &str) -> Arc<CounterCells> {
        let name = if method.starts_with("resources/") { "" } else { name };
        let calls = self.calls.pin();
        let key: CallKey = (method.into(), name.into());
        if let Some(cells) = calls.get(&key) {
            return Arc::clone(cells);
        }
        if calls.len() >= CALLS_MAX {
            return Arc::clone(calls.get_or_insert_with((OTHER.into(), "".into()), Arc::default));
        }
        let (call, carries_content) = (Some(key.clone()), carries_content(method));
        let new = || CounterCells { call, carries_content, ..CounterCells::default() };
        let cells = calls.get_or_insert_with(key, || Arc::new(new()));
        // Insert first, then ask: `refresh_repeatable` may run at this moment.
        cells
            .is_repeatable
            .store(self.read_only_tools.is_read_only(method, name), Ordering::Relaxed);
        Arc::clone(cells)
    }

    /// Decides again which calls are read-only.
    pub(in crate::proxy) fn refresh_repeatable(&self) {
        for ((method, name), cells) in &self.calls.pin() {
            cells
                .is_repeatable
                .store(self.read_only_tools.is_read_only(method, name), Ordering::Relaxed);
        }
    }

    /// Counts a request that ended.
    pub(in crate::proxy) fn count(&self, call: Option<&CounterCells>, class: Outcome) {
        let is_repeatable = call.is_some_and(|call| call.is_repeatable.load(Ordering::Relaxed))
            && matches!(class, Outcome::Ok | Outcome::ServerFault | Outcome::ToolFault);
        for cells in [Some(&self.total), call].into_iter().flatten() {
            let before = cells.cell(class).fetch_add(1, Ordering::Relaxed);
            if let (Outcome::Ok, 0, Some(call)) = (class, before, &cells.call) {
                self.read_only_tools.set_answered(call);
            }
            if is_repeatable {
                cells.repeatable_total.fetch_add(1, Ordering::Relaxed);
            }
            if is_repeatable && class != Outcome::Ok {
                cells.repeatable_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a request whose latency is known to be below or above the threshold.
    pub(in crate::proxy) fn record_latency(&self, call: Option<&CounterCells>, slow: bool) {
        for cells in [Some(&self.total), call].into_iter().flatten() {
            cells.timed.fetch_add(1, Ordering::Relaxed);
            cells.slow.fetch_add(u64::from(slow), Ordering::Relaxed);
        }
    }

    /// Whether this call is usually answered before a shadow call of it is given up, as far as clients have
    /// made it at this release.
    pub(in crate::proxy) fn is_usually_quick(&self, (method, name): &CallKey) -> bool {
        let (quick, late) = self.for_call(method, name).profile.count_before(SHADOW_TIMEOUT);
        QUICK_MIN <= quick && late.saturating_mul(LATE_ONE_IN) <= quick
    }

    /// Counts the size of an answer, where it can carry content, and how long it took. Returns how it differs
    /// from those of the release before. One that was overdue is counted as slower already.
    pub(in crate::proxy) fn count_answer(
        &self,
        call: &CounterCells,
        content: Option<u64>,
        took: Duration,
        was_overdue: bool,
    ) -> Unusual {
        let content = content.filter(|_| call.carries_content);
        let Unusual { small, slower } = call.profile.record(content, took);
        let unusual = Unusual { small, slower: slower && !was_overdue };
        for cells in [&self.total, call] {
            if unusual.small {
                cells.small.fetch_add(1, Ordering::Relaxed);
            }
            if unusual.slower {
                cells.slower.fetch_add(1, Ordering::Relaxed);
            }
            if was_overdue {
                cells.answered_late.fetch_add(1, Ordering::Relaxed);
            }
        }
        unusual
    }

    /// Counts a request that is open after it waited far longer than answers took at the release before.
    /// Returns whether it did.
    pub(in crate::proxy) fn count_overdue(&self, call: &CounterCells, waited: Duration) -> bool {
        let is_overdue = call.profile.is_slower(waited);
        for cells in [&self.total, call].into_iter().filter(|_| is_overdue) {
            cells.slower.fetch_add(1, Ordering::Relaxed);
            cells.given_up.fetch_add(1, Ordering::Relaxed);
        }
        is_overdue
    }

    /// What answers usually are, by method and tool, where there were enough of them.
    pub(in crate::proxy) fn usual_answers(&self) -> Vec<(CallKey, UsualAnswers)> {
        let calls = self.calls.pin();
        let usual = calls.iter().filter_map(|(call, cells)| {
            cells.call.as_ref()?;
            Some((call.clone(), cells.profile.usual()?))
        });
        usual.collect()
    }

    /// From now on answers are compared with these.
    pub(in crate::proxy) fn compare_answers(&self, usual: &[(CallKey, UsualAnswers)]) {
        let calls = self.calls.pin();
        calls.iter().for_each(|(_, cells)| cells.profile.compare_with(None));
        for ((method, name), usual) in usual {
            self.for_call(method, name).profile.compare_with(Some(usual));
        }
    }

    /// Counts a listening stream that ended, and whether it broke.
    pub(in crate::proxy) fn count_stream(&self, broken: bool) {
        self.total.ended_streams.fetch_add(1, Ordering::Relaxed);
        self.total.broken_streams.fetch_add(u64::from(broken), Ordering::Relaxed);
    }

    /// Counts a request that is no MCP, by the class of its status.
    pub(in crate::proxy) fn count_not_mcp(&self, class: Outcome) {
        self.not_mcp.fetch_add(1, Ordering::Relaxed);
        match class {
            Outcome::ClientFault => drop(self.not_mcp_4xx.fetch_add(1, Ordering::Relaxed)),
            Outcome::ServerFault => drop(self.not_mcp_5xx.fetch_add(1, Ordering::Relaxed)),
            Outcome::Ok | Outcome::ToolFault | Outcome::Neutral => (),
        }
    }

    /// Counts a response that the proxy could not read; whether it is the first.
    pub(in crate::proxy) fn count_unread(&self) -> bool {
        self.unread.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Counts a request that failed because this host is short of files, ports or memory.
    pub(in crate::proxy) fn count_own_shortage(&self) {
        self.own_shortage.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a response with status 429.
    pub(in crate::proxy) fn count_rate_limited(&self) {
        self.rate_limited.fetch_add(1, Ordering::Relaxed);
    }

    /// What passed and is no evidence.
    pub(in crate::proxy) fn unjudged(&self) -> Unjudged {
        Unjudged {
            not_mcp: self.not_mcp.load(Ordering::Relaxed),
            not_mcp_4xx: self.not_mcp_4xx.load(Ordering::Relaxed),
            not_mcp_5xx: self.not_mcp_5xx.load(Ordering::Relaxed),
            unread: self.unread.load(Ordering::Relaxed),
            own_shortage: self.own_shortage.load(Ordering::Relaxed),
            rate_limited: self.rate_limited.load(Ordering::Relaxed),
        }
    }

    /// All outcomes so far.
    pub(in crate::proxy) fn total(&self) -> Counts {
        self.total.counts()
    }

    /// All outcomes so far, by method and tool.
    pub(in crate::proxy) fn by_call(&self) -> BTreeMap<CallKey, Counts> {
        let calls = self.calls.pin();
        calls.iter().map(|(call, cells)| (call.clone(), cells.counts())).collect()
    }
}

impl CounterCells {
    /// Keeps how long a client waited that gave a request up.
    pub(in crate::proxy) fn record_given_up(&self, waited: Duration) {
        self.profile.record_given_up(waited);
    }

    /// The call; `None` for the sum of several.
    pub(in crate::proxy) fn call(&self) -> Option<&CallKey> {
        self.call.as_ref()
    }

    fn cell(&self, class: Outcome) -> &AtomicU64 {
        match class {
            Outcome::Ok => &self.ok,
            Outcome::ServerFault => &self.server_fault,
            Outcome::ToolFault => &self.tool_fault,
            Outcome::ClientFault => &self.client_fault,
            Outcome::Neutral => &self.neutral,
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
            with_latency: read(&self.timed),
            repeatable: read(&self.repeatable_total),
            repeatable_failed: read(&self.repeatable_failed),
            streams_ended: read(&self.ended_streams),
            streams_broken: read(&self.broken_streams),
            small: read(&self.small),
            slower: read(&self.slower),
            given_up: read(&self.given_up),
            answered_late: read(&self.answered_late),
        }
    }
}
