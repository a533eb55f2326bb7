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
/// The bound of what was usual is exceeded with this probability.
const TAIL: f64 = 0.05;
/// This share of client faults is normal.
const FAULT_RATE_MIN: f64 = 0.05;
const FAULT_RATE_MAX: f64 = 0.5;
/// A call of which the release before rejected more than this cannot be judged by its rejections.
const HISTORY_RATE_MAX: f64 = 0.8;
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
            .filter(|(_, (n, faults))| beta::upper_bound(*faults, *n, TAIL) < HISTORY_RATE_MAX)
            .collect();
        known.sort_by(|(a, (n, _)), (b, (m, _))| m.cmp(n).then(a.cmp(b)));
        known.truncate(CALLS_MAX);
        let all: f64 = known.iter().map(|(_, (n, _))| *n as f64).sum();
        let process = |(call, (n, faults)): (&CallKey, (u64, u64))| {
            // Half of alpha by traffic, half in equal parts, so that a rare call has some.
            let share = 0.5 * n as f64 / all + 0.5 / known.len() as f64;
            let usual = beta::upper_bound(faults, n, TAIL);
            // What was usual is allowed, however much that is.
            let p0 = (limits.min_effect * usual).clamp(FAULT_RATE_MIN, FAULT_RATE_MAX).max(usual);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The second in which the new release is found in breach, where it rejects `now` and the release
    /// before rejected `before` of 100 calls.
    fn found_at(before: u64, now: u64) -> Option<u64> {
        let call: CallKey = ("tools/call".into(), "search".into());
        let counts =
            |n, client_fault| Counts { ok: n - client_fault, client_fault, ..Counts::default() };
        let calls = [(call.clone(), counts(1_000, 10 * before))].into_iter().collect();
        let history = History { calls, ..History::default() };
        let mut faults = ClientFaults::new(1e-3, &SloSettings::default(), &history);
        let sources = SourceShares::default();
        (0..600).find(|second| {
            let rejected = (second + 1) * now / 5 - second * now / 5;
            let calls = [(call.clone(), counts(20, rejected))];
            faults.add_calls((Moment(second * 1_000), 1_000), &calls, &sources);
            faults.strongest().is_some_and(|(_, process)| process.all().is_broken())
        })
    }

    #[test]
    fn what_the_release_before_rejected_is_allowed_however_much_it_was() {
        for usual in [1, 20, 40, 60, 75, 90, 100] {
            assert_eq!(found_at(usual, usual), None, "{usual} % as before");
        }
        for (before, now) in [(0, 20), (5, 30), (20, 90), (60, 100)] {
            let at = found_at(before, now);
            assert!(at.is_some_and(|at| at < 60), "{before} % before, {now} % now: {at:?}");
        }
    }
}
