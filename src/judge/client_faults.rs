//! Whether calls that used to be understood no longer are: a tool renamed, an argument made
//! required, credentials refused.
//!
//! A single client fault is no evidence. But when a method or tool that clients used
//! well suddenly gets client faults on the new release, the contract broke. Each call has its own
//! e-process; they share alpha by their traffic, and are held to what the release before did.

use std::collections::BTreeMap;

use crate::judge::beta;
use crate::judge::e_process::EProcess;
use crate::judge::slo::{Indicator, SloSettings};
use crate::judge::source_shares::SourceShares;
use crate::judge::split_process::SplitProcess;
use crate::model::{CallKey, Counts, History, Moment, call_number};

/// Calls with fewer requests than this have no usable history.
const HISTORY_CALLS_MIN: u64 = 20;
/// This share of client faults is normal.
const FAULT_RATE_MIN: f64 = 0.05;
const FAULT_RATE_MAX: f64 = 0.5;
/// Calls that are watched, the most frequent ones.
const CALLS_MAX: usize = 64;

/// The calls of one trial.
#[derive(Debug, Clone, Default)]
pub struct ClientFaults {
    processes: BTreeMap<CallKey, SplitProcess>,
}

impl ClientFaults {
    /// Watches the calls that the release before answered, with `alpha` for all of them.
    pub fn new(alpha: f64, limits: &SloSettings, history: &History) -> Self {
        let mut known: Vec<_> = history
            .calls
            .iter()
            .map(|(call, counts)| (call, Indicator::ClientFaults.count(counts)))
            .filter(|(_, (n, _))| HISTORY_CALLS_MIN <= *n)
            .collect();
        known.sort_by(|(a, (n, _)), (b, (m, _))| m.cmp(n).then(a.cmp(b)));
        known.truncate(CALLS_MAX);
        let all: f64 = known.iter().map(|(_, (n, _))| *n as f64).sum();
        let process = |(call, (n, faults)): (&CallKey, (u64, u64))| {
            // Half of alpha by traffic, half in equal parts, so that a rare call has some.
            let share = 0.5 * n as f64 / all + 0.5 / known.len() as f64;
            let baseline_rate = limits.min_effect * beta::upper_bound(faults, n, 0.05);
            let p0 = baseline_rate.clamp(FAULT_RATE_MIN, FAULT_RATE_MAX);
            (call.clone(), SplitProcess::new(EProcess::new(p0, alpha * share, limits)))
        };
        Self { processes: known.iter().copied().map(process).collect() }
    }

    /// Takes in what ended within the `ms` milliseconds that began at `start`.
    pub(super) fn add_calls(
        &mut self,
        (start, ms): (Moment, u32),
        calls: &[(CallKey, Counts)],
        sources: &SourceShares,
    ) {
        let about = Indicator::ClientFaults;
        for (call, process) in &mut self.processes {
            let found = calls.iter().find(|(it, _)| it == call);
            let counts = found.map_or((0, 0), |(_, counts)| about.count(counts));
            let left_out = sources.left_out_of_call(about, call_number(&call.0, &call.1));
            process.update(start, ms, counts, left_out);
        }
    }

    /// Drops what was gathered.
    pub fn reset_evidence(&mut self) {
        self.processes.values_mut().for_each(SplitProcess::reset_evidence);
    }

    /// The call with the strongest evidence.
    pub(super) fn strongest(&self) -> Option<(&CallKey, &SplitProcess)> {
        // What one user alone breaks hides no other call.
        let rank = |process: &SplitProcess| {
            let all = process.all();
            let is_proven = all.is_broken() && process.is_broken_without_worst();
            (is_proven, all.e_value() / all.threshold())
        };
        self.processes.iter().max_by(|(_, a), (_, b)| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
    }

    /// How a call is named in reasons.
    pub fn describe((method, name): &CallKey) -> String {
        let name = if name.is_empty() { String::new() } else { format!(" {name}") };
        format!("client faults of {method}{name}")
    }
}
