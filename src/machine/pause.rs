//! Pauses of the daemon: a suspended or frozen host, or overload. Such a time is not bake, because
//! the daemon did not watch. What is late directly after it is late because of the pause.

use std::time::Duration;

use crate::model::{Moment, Observation, ScrapeResult};

/// A longer time between two blocks is a pause.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
/// How long after a pause failures may be its consequence.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Finds pauses by the time between two blocks.
#[derive(Debug, Default)]
pub(super) struct PauseDetector {
    /// When the last block ended.
    last_block: Option<Moment>,
    /// Until when failures may come from a pause.
    settled_at: Moment,
}

impl PauseDetector {
    /// A block ends.
    pub(super) fn end_block(&mut self, now: Moment) {
        self.last_block = Some(now);
    }

    /// The pause that ends now, if one does.
    pub(super) fn notice(&mut self, now: Moment) -> Option<Duration> {
        let gap = now.since(self.last_block?);
        if gap <= PAUSE_MIN {
            return None;
        }
        (self.last_block, self.settled_at) = (Some(now), now + SETTLE_TIME);
        Some(gap)
    }

    /// Whether an observation says something about the release.
    pub(super) fn is_evidence(&self, now: Moment, observation: &Observation) -> bool {
        self.settled_at <= now
            || match observation {
                Observation::Block(..)
                | Observation::Sources(_)
                | Observation::Calls(_)
                | Observation::Cells(_)
                | Observation::Shadow(..)
                | Observation::Scraped(ScrapeResult::Down(_)) => false,
                Observation::Probe(result) => result.is_ok(),
                Observation::KnownFailing(_)
                | Observation::Scraped(_)
                | Observation::Exited(_)
                | Observation::Step(_)
                | Observation::Starting(..) => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Counts, ProbeResult};

    #[test]
    fn what_is_late_after_a_pause_is_no_evidence() {
        let mut pauses = PauseDetector::default();
        assert_eq!(pauses.notice(Moment(50_000)), None, "nothing came before");
        pauses.end_block(Moment(50_000));
        assert_eq!(pauses.notice(Moment(51_000)), None);
        assert_eq!(pauses.notice(Moment(80_000)), Some(Duration::from_secs(30)));
        assert_eq!(pauses.notice(Moment(80_001)), None, "once");
        let block = Observation::Block(250, Counts::default());
        let failed = Observation::Probe(ProbeResult::TimedOut);
        for late in [&block, &failed] {
            assert!(!pauses.is_evidence(Moment(80_999), late));
            assert!(pauses.is_evidence(Moment(81_000), late));
        }
        assert!(pauses.is_evidence(Moment(80_000), &Observation::Probe(ProbeResult::Ok)));
        assert!(pauses.is_evidence(Moment(80_000), &Observation::Exited("signal 9".to_owned())));
    }
}
