//! Whether the previous release keeps the promise again after a rollback.

use std::time::Duration;

use crate::model::{Counts, Moment, Number, Seen, Signal};

/// So long without a fault counts as recovered, when something was asked meanwhile.
const QUIET: Duration = Duration::from_secs(1);
/// Good probes that stand in for traffic where there is none.
const PROBES: u64 = 2;

/// The look at a release that got its traffic back.
#[derive(Debug, Clone)]
pub struct Recovery {
    release: Number,
    quiet_since: Moment,
    good: Counts,
    probes: u64,
}

impl Recovery {
    /// Begins to look at `release`.
    pub fn new(release: Number, now: Moment) -> Self {
        Self { release, quiet_since: now, good: Counts::default(), probes: 0 }
    }

    /// The release that is looked at.
    pub fn release(&self) -> Number {
        self.release
    }

    /// Takes one signal in; those of other releases are ignored.
    pub fn hear(&mut self, now: Moment, signal: &Signal) {
        if signal.release != self.release {
            return;
        }
        match &signal.seen {
            Seen::Block(_, counts) if counts.server_fault == 0 => self.good += *counts,
            Seen::Probe(reply) if reply.is_ok() => self.probes += 1,
            Seen::Calls(_) | Seen::Shadow(..) | Seen::Scraped(_) => (),
            Seen::Block(..) | Seen::Probe(_) | Seen::Exited(_) => {
                *self = Self::new(self.release, now);
            }
        }
    }

    /// The reason to call it recovered, once there is one.
    pub fn recovered(&self, now: Moment) -> Option<String> {
        let judged = self.good.judged();
        let asked = judged > 0 || self.probes >= PROBES;
        (asked && now.since(self.quiet_since) >= QUIET).then(|| {
            let (probes, quiet) = (self.probes, now.since(self.quiet_since).as_millis());
            format!("{judged} requests and {probes} probes in {quiet} ms, no fault")
        })
    }
}
