//! What becomes of releases while the daemon looks on: they die, are exchanged, never become ready.

use crate::config::Runtime;
use crate::decide::Phase;
use crate::model::{Decision, Event, Fact, Moment, Number};

use super::keeper::Keeper;

/// Deaths of one release that go into the timeline; more only go to the log.
const DEATHS_NOTED: u32 = 5;

impl Keeper {
    pub(super) fn died(&mut self, now: Moment, number: Number, how: &str) {
        let Some(release) = self.watch.phase().release(number).cloned() else { return };
        tracing::warn!(service = self.service.name, %release, "{how}");
        if let Phase::Starting { new, .. } = self.watch.phase()
            && new.number == number
        {
            self.not_ready(how);
            return;
        }
        let deaths = self.deaths.entry(number).or_default();
        *deaths += 1;
        if *deaths <= DEATHS_NOTED {
            self.note(number, &format!("{how}; it is started again"));
        }
        self.judged(now);
    }

    /// Writes down what happened to a release, and changes nothing.
    pub(super) fn note(&mut self, number: Number, text: &str) {
        if let Some(release) = self.watch.phase().release(number) {
            let because = format!("{release}: {text}");
            let _ = self.commit(Decision { because, fact: Fact::Noted, then: Vec::new() });
        }
    }

    /// A release says what it is. Another name than before is another release.
    pub(super) fn named(&mut self, number: Number, name: String) {
        let before = self.names.insert(number, name.clone());
        if let Some(before) = before.filter(|before| *before != name) {
            let because = format!("it called itself {before:?}, and now {name:?}");
            self.found(number, Some(name), &because);
        }
    }

    /// Something else runs in place of a release. Where the daemon starts releases itself, it would
    /// start this one's program again: there it is only said.
    pub(super) fn found(&mut self, number: Number, named: Option<String>, because: &str) {
        let is_active = self.watch.phase().active().is_some_and(|it| it.number == number);
        if is_active && !matches!(self.service.runtime, Runtime::Command(_)) {
            self.happen(&Event::Found(number, named, because.to_owned()));
            return;
        }
        let text = format!("it is not what was deployed: {because}");
        self.note(number, &text);
        tracing::error!(service = self.service.name, page = true, "{text}");
    }

    /// A deadline passed. Of a release that did not become ready, the last probe tells why.
    pub(super) fn due(&mut self, now: Moment) {
        let waits = match self.watch.phase() {
            Phase::Starting { new, .. } => Some(new.number),
            Phase::Reviving(breach) => Some(breach.warm.number),
            _ => None,
        };
        match waits.and_then(|number| self.probes.get(&number)) {
            Some(reply) if !reply.is_ok() => {
                let waited = now.since(self.watch.since()).as_secs();
                self.not_ready(&format!("not ready within {waited} s, its last probe: {reply}"));
            }
            _ => self.happen(&Event::Due),
        }
    }

    fn not_ready(&mut self, why: &str) {
        let event = Event::NotReady(self.watch.ticket(), why.to_owned());
        self.happen(&event);
    }
}
