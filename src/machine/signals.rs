//! What a signal means besides its evidence.

use std::time::Duration;

use crate::decide::Phase;
use crate::machine::ServiceMachine;
use crate::machine::input::Pending;
use crate::model::{Event, Moment, Observation, ReleaseNumber, Signal, StartCause};

/// How long a release may take to start at least, after a boot and after an exit.
const START_AFTER_BOOT_MIN: Duration = Duration::from_secs(10);
const START_AFTER_EXIT_MIN: Duration = Duration::from_secs(1);
/// Exits of one release that go into the timeline.
const EXITS_RECORDED_MAX: u32 = 5;
impl ServiceMachine {
    /// The signal that a release started so long ago, with the time that it may still take: twice the time
    /// that it took at its deploy, at most the start timeout. Nothing is left once that is over. `None` if
    /// there is no such release.
    pub fn starting(
        &self,
        number: ReleaseNumber,
        cause: StartCause,
        age: Duration,
    ) -> Option<Signal> {
        let release = self.release(number)?.number;
        let known = self.watch.ready_after(release).filter(|_| self.settings.starts_releases);
        let min = match cause {
            StartCause::External => START_AFTER_BOOT_MIN,
            StartCause::Exit => START_AFTER_EXIT_MIN,
        };
        let max = self.settings.policy.start_timeout;
        let allowed = match (known, cause) {
            (Some(known), _) => (known * 2).max(min).min(max),
            (None, StartCause::External) => max,
            (None, StartCause::Exit) => START_AFTER_BOOT_MIN.min(max),
        };
        let allowed = u32::try_from(allowed.saturating_sub(age).as_millis()).unwrap_or(u32::MAX);
        Some(Signal { release, observation: Observation::Starting(cause, allowed) })
    }

    pub(super) fn on_signal(&mut self, now: Moment, signal: Signal) {
        self.bake.observe(now, &signal);
        self.health.observe(&signal);
        match signal.observation {
            Observation::Probe(result) => _ = self.probes.insert(signal.release, result),
            Observation::Exited(how) => self.on_exit(signal.release, &how),
            Observation::Scraped(_) | Observation::Starting(..) => (),
            // The end of the block judges these.
            Observation::Block(..)
            | Observation::Sources(_)
            | Observation::Calls(_)
            | Observation::KnownFailing(_)
            | Observation::Cells(_)
            | Observation::Step(_)
            | Observation::Shadow(..) => return,
        }
        self.queue.push_back(Pending::Verdict);
    }

    /// At the end of a block: whether the sessions of the warm release leave it.
    pub(super) fn check_warm_release(&mut self) {
        let phase = self.watch.phase();
        let is_settled =
            matches!(phase, Phase::Steady { .. } | Phase::Starting { .. } | Phase::Baking { .. });
        let warm = phase.warm().filter(|_| is_settled).map(|it| it.number);
        let active = phase.active().map(|it| it.number);
        let failed_probes_max = self.settings.slo.failed_probes_max;
        let failure = self.health.end_block(warm, active, failed_probes_max);
        if let (Some(warm), Some(because)) = (warm, failure) {
            self.queue.push_back(Pending::WarmFails(warm, because));
        }
    }

    /// A release that exits while it starts is not ready. Later exits are noted, and judged.
    fn on_exit(&mut self, number: ReleaseNumber, how: &str) {
        let phase = self.watch.phase();
        if phase.release(number).is_none() {
            return;
        }
        if matches!(phase, Phase::Starting { new, .. } if new.number == number) {
            let event = Event::NotReady(self.watch.ticket(), how.to_owned());
            return self.queue.push_back(Pending::Event(event));
        }
        let count = self.exits.entry(number).or_default();
        *count += 1;
        if *count <= EXITS_RECORDED_MAX {
            self.queue.push_back(Pending::Note(number, format!("{how}; restarting it")));
        }
    }

    /// A release that reports another name than before is another release.
    pub(super) fn on_identity(&mut self, release: ReleaseNumber, name: String) {
        let previous = self.identities.insert(release, name.clone());
        if let Some(previous) = previous.filter(|previous| *previous != name) {
            let because = format!("it reports the name {name:?}, before {previous:?}");
            self.queue.push_back(Pending::Replaced(release, Some(name), because));
        }
    }
}
