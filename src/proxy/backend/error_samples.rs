//! Some of the latest error answers of a release, so that a person can read why calls failed.
//!
//! They are few and stay in memory until a document is written, which masks secrets in them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{FailedCall, Outcome};
use crate::mutex::lock;

/// Samples of one release.
const SAMPLES_MAX: usize = 24;
/// Samples of one call with the same code.
const SAME_MAX: usize = 3;
/// Samples of calls that the release rejected: clients make mistakes at any time.
const REJECTED_MAX: usize = 8;
/// A newer sample replaces one that is older.
const FRESH: Duration = Duration::from_mins(1);
/// An older sample is of no use to an incident.
const AGE_MAX: Duration = Duration::from_mins(10);

/// The samples of one release.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ErrorSamples(Mutex<VecDeque<Sample>>);

#[derive(Debug)]
struct Sample {
    at: Instant,
    rejected: bool,
    call: FailedCall,
}

impl ErrorSamples {
    /// Keeps a failed call, if there are not enough of its kind. `message` is called only then.
    pub(in crate::proxy) fn record(
        &self,
        mut call: FailedCall,
        class: Outcome,
        now: Instant,
        message: impl FnOnce() -> String,
    ) {
        let rejected = class == Outcome::ClientFault;
        let mut samples = self.samples();
        let is_fresh = |it: &Sample| now.saturating_duration_since(it.at) < FRESH;
        let is_same = |it: &Sample| {
            (&it.call.method, &it.call.name, it.call.code) == (&call.method, &call.name, call.code)
        };
        let same = samples.iter().filter(|it| is_fresh(it) && is_same(it)).count();
        let alike = samples.iter().filter(|it| is_fresh(it) && it.rejected).count();
        if same >= SAME_MAX || (rejected && alike >= REJECTED_MAX) {
            return;
        }
        if samples.len() >= SAMPLES_MAX {
            // The oldest is first.
            if samples.front().is_some_and(is_fresh) {
                return;
            }
            samples.pop_front();
        }
        call.message = message();
        samples.push_back(Sample { at: now, rejected, call });
    }

    /// The samples of the last ten minutes, faults of the release first, then the newest.
    pub(in crate::proxy) fn latest(&self, now: Instant) -> Vec<FailedCall> {
        let samples = self.samples();
        let recent = samples.iter().rev();
        let mut recent: Vec<_> =
            recent.filter(|it| now.saturating_duration_since(it.at) < AGE_MAX).collect();
        recent.sort_by_key(|it| it.rejected);
        recent.into_iter().map(|it| it.call.clone()).collect()
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    fn call(name: &str, code: i64) -> FailedCall {
        let (method, name) = ("tools/call".into(), name.into());
        FailedCall { method, name, code: Some(code), message: String::new() }
    }

    #[test]
    fn a_few_of_each_kind_are_kept_and_the_newest_replace_old_ones() {
        let samples = ErrorSamples::default();
        let start = monotonic();
        let mut asked = 0;
        for number in 0..100 {
            samples.record(call("forecast", -32603), Outcome::ServerFault, start, || {
                asked += 1;
                number.to_string()
            });
        }
        assert_eq!((samples.latest(start).len(), asked), (SAME_MAX, SAME_MAX));
        for number in 0..100 {
            let call = call(&number.to_string(), -32602);
            samples.record(call, Outcome::ClientFault, start, String::new);
        }
        assert_eq!(samples.latest(start).len(), SAME_MAX + REJECTED_MAX);
        assert_eq!(samples.latest(start)[0].message, "2", "faults first, then the newest");
        for number in 0..100 {
            let call = call(&number.to_string(), -32603);
            samples.record(call, Outcome::ServerFault, start, String::new);
        }
        assert_eq!(samples.latest(start).len(), SAMPLES_MAX);
        let later = start + FRESH * 2;
        samples.record(call("new", 1), Outcome::ToolFault, later, || "late".to_owned());
        let latest = samples.latest(later);
        assert_eq!((latest.len(), latest[0].message.as_str()), (SAMPLES_MAX, "late"));
        assert_eq!(samples.latest(later + AGE_MAX), []);
    }
}
