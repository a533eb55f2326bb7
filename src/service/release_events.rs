//! What becomes of releases while the daemon looks on: they die, are exchanged, never become ready.

use crate::config::Runtime;
use crate::decide::Phase;
use crate::model::{Decision, Event, Moment, ReleaseNumber, TimelineEvent};
use crate::service::service_loop::ServiceLoop;

/// Deaths of one release that go into the timeline; more only go to the log.
const EXITS_RECORDED_MAX: u32 = 5;

impl ServiceLoop {
    pub(crate) fn on_exit(&mut self, now: Moment, number: ReleaseNumber, reason: &str) {
        let Some(release) = self.watch.phase().release(number).cloned() else { return };
        tracing::warn!(service = self.service.name, %release, "{reason}");
        if let Phase::Starting { new, .. } = self.watch.phase()
            && new.number == number
        {
            self.not_ready(reason);
            return;
        }
        let count = self.exit_counts.entry(number).or_default();
        *count += 1;
        if *count <= EXITS_RECORDED_MAX {
            self.record_note(number, &format!("{reason}; restarting it"));
        }
        self.evaluate_trial(now);
    }

    /// Writes down what happened to a release, and changes nothing.
    pub(crate) fn record_note(&mut self, number: ReleaseNumber, text: &str) {
        if let Some(release) = self.watch.phase().release(number) {
            let because = format!("{release}: {text}");
            let _ = self.record_and_apply(Decision {
                because,
                event: TimelineEvent::Noted,
                effects: Vec::new(),
            });
        }
    }

    /// A release says what it is. Another name than before is another release.
    pub(crate) fn on_identity(&mut self, number: ReleaseNumber, name: String) {
        let previous = self.identities.insert(number, name.clone());
        if let Some(previous) = previous.filter(|previous| *previous != name) {
            let because = format!("it reports the name {name:?}, before {previous:?}");
            self.on_replaced(number, Some(name), &because);
        }
    }

    /// Something else runs in place of a release. Where the daemon starts releases itself, it would
    /// start this one's program again: there it is only said.
    pub(crate) fn on_replaced(
        &mut self,
        number: ReleaseNumber,
        identity: Option<String>,
        because: &str,
    ) {
        let is_active = self.watch.phase().active().is_some_and(|it| it.number == number);
        if is_active && !matches!(self.service.runtime, Runtime::Command(_)) {
            self.step(&Event::Replaced(number, identity, because.to_owned()));
            return;
        }
        let text = format!("the running program is not the deployed one: {because}");
        self.record_note(number, &text);
        tracing::error!(service = self.service.name, page = true, "{text}");
    }

    /// A deadline passed. Of a release that did not become ready, the last probe tells why.
    pub(crate) fn on_deadline(&mut self, now: Moment) {
        let awaited = match self.watch.phase() {
            Phase::Starting { new, .. } => Some(new.number),
            Phase::Reviving(breach) => Some(breach.warm.number),
            _ => None,
        };
        match awaited.and_then(|number| self.last_probes.get(&number)) {
            Some(reply) if !reply.is_ok() => {
                let waited = now.since(self.watch.since()).as_secs();
                self.not_ready(&format!("not ready within {waited} s, its last probe: {reply}"));
            }
            _ => self.step(&Event::DeadlinePassed),
        }
    }

    fn not_ready(&mut self, reason: &str) {
        let event = Event::NotReady(self.watch.ticket(), reason.to_owned());
        self.step(&event);
    }
}
