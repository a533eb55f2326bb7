//! What the end of a wait means, with its reason.

use crate::decide::Phase;
use crate::machine::ServiceMachine;
use crate::model::{Event, Moment, ProbeResult};

impl ServiceMachine {
    /// At the end of a start, the last probe is the reason; after a rollback, what failed last.
    pub(super) fn deadline_event(&self, now: Moment) -> Event {
        let failed = self.bake.recovery_failure();
        if let (Phase::Recovering { .. }, Some(found)) = (self.watch.phase(), failed) {
            return Event::NotRecovered(found);
        }
        let awaited = match self.watch.phase() {
            Phase::Starting { new, .. } => Some(new.number),
            Phase::Reviving(breach) => Some(breach.warm.number),
            _ => None,
        };
        match awaited.and_then(|number| self.probe(number)) {
            Some(result) if !result.is_ok() => {
                let waited = now.since(self.watch.since()).as_secs();
                let differs = self.differs_from_active(result);
                let why = format!("not ready within {waited} s, its last probe: {result}{differs}");
                Event::NotReady(self.watch.ticket(), why)
            }
            _ => Event::DeadlinePassed,
        }
    }

    /// What to add to an answer that a probe of a new release did not expect: where the active release passes,
    /// the probe is not what is wrong.
    fn differs_from_active(&self, result: &ProbeResult) -> String {
        match (self.watch.phase(), result) {
            (Phase::Starting { active: Some(active), .. }, ProbeResult::Unexpected(_))
                if self.probe(active.number).is_some_and(ProbeResult::is_ok) =>
            {
                format!("; {active} passes its probes")
            }
            _ => String::new(),
        }
    }
}
