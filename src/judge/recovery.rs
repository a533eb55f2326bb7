//! Whether the previous release meets its objectives again after a rollback.

use std::time::Duration;

use crate::model::{Counts, Moment, Observation, ReleaseNumber, Signal};

/// This time without a fault counts as recovered, if there were requests or probes.
const FAULT_FREE_MIN: Duration = Duration::from_secs(1);
/// Good probes that stand in for traffic where there is none.
const PROBES_MIN: u64 = 2;

/// The observation of a release that has its traffic back.
#[derive(Debug, Clone)]
pub struct Recovery {
    release: ReleaseNumber,
    fault_free_since: Moment,
    counts: Counts,
    good_probes: u64,
}

impl Recovery {
    /// Starts to observe `release`.
    pub fn new(release: ReleaseNumber, now: Moment) -> Self {
        Self { release, fault_free_since: now, counts: Counts::default(), good_probes: 0 }
    }

    /// The observed release.
    pub fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// Takes one signal in; those of other releases are ignored.
    pub fn observe(&mut self, now: Moment, signal: &Signal) {
        if signal.release != self.release {
            return;
        }
        match &signal.observation {
            Observation::Block(_, counts) if counts.server_fault == 0 => self.counts += *counts,
            Observation::Probe(reply) if reply.is_ok() => self.good_probes += 1,
            Observation::Sources(_)
            | Observation::Calls(_)
            | Observation::Shadow(..)
            | Observation::Scraped(_)
            | Observation::KnownFailing(_)
            | Observation::Cells(_)
            | Observation::Step(_)
            | Observation::Starting(..) => (),
            Observation::Block(..) | Observation::Probe(_) | Observation::Exited(_) => {
                *self = Self::new(self.release, now);
            }
        }
    }

    /// Why it counts as recovered, once it does: the rest of a sentence about the release.
    pub fn recovery_reason(&self, now: Moment) -> Option<String> {
        let judged = self.counts.judged();
        let observed = judged > 0 || self.good_probes >= PROBES_MIN;
        (observed && now.since(self.fault_free_since) >= FAULT_FREE_MIN).then(|| {
            let (probes, quiet) = (self.good_probes, now.since(self.fault_free_since).as_millis());
            // Probes show that it answers. Only requests show that it meets its objectives.
            if judged == 0 {
                return format!(
                    "answers {probes} probes in {quiet} ms; no requests came to judge it by"
                );
            }
            format!(
                "meets its objectives again: {judged} requests and {probes} probes in {quiet} ms, \
                 no fault"
            )
        })
    }
}
