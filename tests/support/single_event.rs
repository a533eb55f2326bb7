//! Sends one event to the machine, and checks that a stale event causes no decision.
#![expect(unreachable_pub, reason = "shared by tests")]

use rollbackd::decide::Phase;
use rollbackd::machine::Input;
use rollbackd::model::{Event, Release, ReleaseLoad, TimelineEntry, TimelineEvent};

use crate::simulated_host::SimulatedHost;

impl SimulatedHost {
    pub fn handle_event(&mut self, event: &Event) -> Option<TimelineEntry> {
        let (stale, now) = (self.is_stale(event), self.now);
        self.machine.handle(now, Input::Event(event.clone()));
        let mut proposal = self.machine.poll(now, |_| ReleaseLoad::default())?;
        // A pause that could not be recorded comes first.
        while let TimelineEvent::Paused { .. } = proposal.event() {
            self.record_and_apply(proposal);
            proposal = self.machine.poll(now, |_| ReleaseLoad::default())?;
        }
        assert!(!stale, "{event:?} is stale, but: {}", proposal.because());
        let entry = self.record_and_apply(proposal);
        let next = self.machine.poll(now, |_| ReleaseLoad::default());
        assert_eq!(next, None, "one event, two decisions");
        entry
    }

    /// Whether an event answers an older request, or concerns another release.
    fn is_stale(&self, event: &Event) -> bool {
        let phase = self.watch().phase();
        match event {
            Event::Ready(ticket, _)
            | Event::NotReady(ticket, _)
            | Event::Probed(ticket, _)
            | Event::ArtifactChanged(ticket, _)
            | Event::Routed(ticket)
            | Event::NothingInFlight(ticket, _) => *ticket != self.watch().ticket(),
            Event::Judged(verdict, _) => {
                let tried = match phase {
                    Phase::Emptying(back) => Some(&back.bad),
                    _ => judged(phase),
                };
                tried.is_none_or(|tried| tried.number != verdict.release)
            }
            Event::Replaced(number, ..) | Event::Recovered(number, _) => {
                judged(phase).is_none_or(|it| it.number != *number)
            }
            Event::NotRecovered(_) | Event::StepDue(..) | Event::DeadlinePassed => false,
        }
    }
}

/// The release that verdicts are about.
fn judged(phase: &Phase) -> Option<&Release> {
    match phase {
        Phase::Baking { active, .. } => Some(active),
        _ => phase.active(),
    }
}
