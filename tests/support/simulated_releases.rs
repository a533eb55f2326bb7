//! Which releases run, and what the simulated proxy did with the subjects of a ramp.

use rollbackd::model::{RampStep, ReleaseNumber, Ticket, WHOLE_PPM};

use super::SimulatedReleases;

impl SimulatedReleases {
    pub(super) fn mark_running(&mut self, number: ReleaseNumber) {
        assert!(!self.retired.contains(&number), "{number} was retired and is kept again");
        self.running.insert(number);
    }

    pub(super) fn retire(&mut self, number: ReleaseNumber) {
        self.running.remove(&number);
        self.retired.insert(number);
    }

    /// Subjects go forward only, also after restarts, and never to both.
    pub(super) fn assign(
        &mut self,
        on_trial: ReleaseNumber,
        control: ReleaseNumber,
        step: RampStep,
    ) {
        let widest = self.widest.entry(on_trial).or_default();
        assert!(*widest <= step.below_ppm, "{on_trial} had {widest} ppm and has now {step:?}");
        assert!(step.below_ppm < WHOLE_PPM + 2 && on_trial != control);
        *widest = step.below_ppm;
        (self.routed, self.assigned) = (Some(control), Some((on_trial, step)));
    }

    /// The daemon crashed: its memory is lost, but the processes of the releases live on.
    pub fn crash(&mut self) {
        (self.routed, self.assigned, self.newest_ticket) = (None, None, Ticket(0));
    }

    /// The daemon has restarted, and stops the releases that it does not need.
    pub fn stop_orphans(&mut self, needed: &[ReleaseNumber]) {
        let left: Vec<_> =
            self.running.iter().copied().filter(|number| !needed.contains(number)).collect();
        left.into_iter().for_each(|number| self.retire(number));
    }
}
