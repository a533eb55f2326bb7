//! Whether calls that used to be understood no longer are: a tool renamed, an argument made
//! required, credentials refused.
//!
//! What a client asks wrongly says nothing by itself. But when a method or tool that clients used
//! well suddenly gets client faults on the new release, the contract broke. Each call has its own
//! e-process; they share alpha by their traffic, and are held to what the release before did.

use std::collections::BTreeMap;

use crate::model::{Call, Counts, History, Moment};

use super::evidence::Process;
use super::{About, Limits, beta};

/// Calls that were seen less often have no history to speak of.
const SEEN_MIN: u64 = 20;
/// Clients get so many of their requests wrong without anybody noticing.
const FAULTS_MIN: f64 = 0.05;
const FAULTS_MAX: f64 = 0.5;
/// Calls that are watched, the most frequent ones.
const CALLS_MAX: usize = 64;

/// The calls of one trial.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    processes: BTreeMap<Call, Process>,
}

impl Calls {
    /// Watches the calls that the release before answered, with `alpha` for all of them.
    pub fn new(alpha: f64, limits: &Limits, history: &History) -> Self {
        let mut known: Vec<_> = history
            .calls
            .iter()
            .map(|(call, counts)| (call, About::Calls.read(counts)))
            .filter(|(_, (n, _))| SEEN_MIN <= *n)
            .collect();
        known.sort_by(|(a, (n, _)), (b, (m, _))| m.cmp(n).then(a.cmp(b)));
        known.truncate(CALLS_MAX);
        let all: f64 = known.iter().map(|(_, (n, _))| *n as f64).sum();
        let process = |(call, (n, faults)): (&Call, (u64, u64))| {
            // Half of alpha by traffic, half in equal parts, so that a rare call has some.
            let share = 0.5 * n as f64 / all + 0.5 / known.len() as f64;
            let usual = limits.min_effect * beta::upper(faults, n, 0.05);
            let p0 = usual.clamp(FAULTS_MIN, FAULTS_MAX);
            (call.clone(), Process::new(p0, alpha * share, limits))
        };
        Self { processes: known.iter().copied().map(process).collect() }
    }

    /// Takes in what ended within the `ms` milliseconds that began at `start`.
    pub fn hear(&mut self, start: Moment, ms: u32, calls: &[(Call, Counts)]) {
        for (call, process) in &mut self.processes {
            let found = calls.iter().find(|(it, _)| it == call);
            let (n, faults) = found.map_or((0, 0), |(_, counts)| About::Calls.read(counts));
            process.update(start, ms, n, faults);
        }
    }

    /// Drops what was gathered.
    pub fn forget(&mut self) {
        self.processes.values_mut().for_each(Process::forget);
    }

    /// The call that speaks loudest.
    pub fn loudest(&self) -> Option<(&Call, &Process)> {
        let share = |process: &Process| process.e() / process.threshold();
        self.processes.iter().max_by(|(_, a), (_, b)| share(a).total_cmp(&share(b)))
    }

    /// How a call is named in reasons.
    pub fn name((method, name): &Call) -> String {
        let name = if name.is_empty() { String::new() } else { format!(" {name}") };
        format!("client faults of {method}{name}")
    }
}
