//! Random slots, releases, verdicts and loads.

use rollbackd::model::{Finding, ReleaseLoad, ReleaseNumber, Severity, Slot, Verdict};

use crate::Scenario;
use crate::simulated_host::secs;

impl Scenario {
    pub(crate) fn slot(&mut self) -> Option<Slot> {
        let named = self.rng.one_in(3).then(|| ["blue", "green", "pink"][self.rng.next_index(3)]);
        named.map(|name| Slot(name.to_owned()))
    }

    pub(crate) fn number(&mut self) -> ReleaseNumber {
        let newest = self.host.watch().deploy().0;
        let back = if self.rng.one_in(3) { self.rng.next_below(3) as u32 } else { 0 };
        ReleaseNumber(newest.saturating_sub(back))
    }

    pub(crate) fn verdict(&mut self) -> Verdict {
        let finding = match self.rng.next_below(10) {
            0..=2 => Finding::Healthy,
            3 => Finding::Undecided,
            8 => Finding::NoData,
            9 => Finding::Measuring,
            4 => Finding::SharedOutage,
            5 => Finding::Breach(Severity::Degraded),
            6 => Finding::Breach(Severity::Critical),
            _ => Finding::Breach(Severity::Down),
        };
        let share = self.rng.next_below(101) as f64 / 100.0;
        Verdict {
            basis: None,
            release: self.number(),
            finding,
            because: "the dice say so".to_owned(),
            onset: self.host.now - secs(self.rng.next_below(30)),
            failure_rate_lower: share,
            request_rate: 100.0 * share,
        }
    }

    pub(crate) fn load(&mut self) -> ReleaseLoad {
        let sessions = self.rng.next_below(200);
        ReleaseLoad {
            sessions,
            pinned: sessions,
            in_flight: self.rng.next_below(50),
            request_rate: self.rng.next_below(1_000) as f64 / 7.0,
            mean_session_s: self.rng.next_below(600) as f64,
        }
    }
}
