//! The releases that start. A judge that is opened meanwhile, as after a bake or a hold, has to know.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::judge::Judge;
use crate::model::{Moment, Observation, ReleaseNumber, Signal, StartCause};

/// Until when each release that has not answered yet may take.
#[derive(Debug, Default)]
pub(super) struct Starts(BTreeMap<ReleaseNumber, (StartCause, Moment)>);

impl Starts {
    /// Takes a signal.
    pub(super) fn observe(&mut self, now: Moment, Signal { release, observation }: &Signal) {
        match observation {
            Observation::Starting(cause, allowed_ms) => {
                self.0.retain(|_, (_, until)| now < *until);
                let until = now + Duration::from_millis((*allowed_ms).into());
                self.0.insert(*release, (*cause, until));
            }
            Observation::Probe(result) if result.is_ok() => _ = self.0.remove(release),
            _ => (),
        }
    }

    /// The daemon did not run for this long.
    pub(super) fn skip(&mut self, gap: Duration) {
        self.0.values_mut().for_each(|(_, until)| *until = *until + gap);
    }

    /// Tells a new judge what starts.
    pub(super) fn replay(&self, now: Moment, judge: &mut Judge) {
        for (release, (cause, until)) in self.0.iter().filter(|(_, (_, until))| now < *until) {
            let left = u32::try_from(until.since(now).as_millis()).unwrap_or(u32::MAX);
            let observation = Observation::Starting(*cause, left);
            judge.observe(now, &Signal { release: *release, observation });
        }
    }
}
