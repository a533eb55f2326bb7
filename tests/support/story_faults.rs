//! Exits, replacements and restarts in a story.

use std::time::Duration;

use rollbackd::decide::Watch;
use rollbackd::machine::ServiceMachine;
use rollbackd::model::{Event, Moment, Observation, ReleaseNumber, StartCause, TimelineEntry};

use super::StoryRunner;
use crate::simulated_host::{secs, settings};

impl StoryRunner {
    /// Another release replaces this one without a deploy.
    pub(super) fn release_replaced(&mut self, version: &str, other: &str) {
        let (number, named) = (self.number(version), format!("weather {other}"));
        let because = format!("it reports the name {named:?}, before \"weather {version}\"");
        self.handle_event(Event::Replaced(number, Some(named), because));
    }

    pub(super) fn number(&self, version: &str) -> ReleaseNumber {
        let needed = self.host.watch().phase().required_releases();
        needed.into_iter().find(|it| it.version == version).unwrap().number
    }

    pub(super) fn process_exits(&mut self, version: &str) {
        let release = self.number(version);
        self.observe(release, Observation::Exited("exit status 1".to_owned()));
    }

    /// The host booted: the release starts, and may take its time.
    pub(super) fn release_starts(&mut self, version: &str) {
        let release = self.number(version);
        let signal =
            self.host.machine.starting(release, StartCause::External, Duration::ZERO).unwrap();
        self.observe(release, signal.observation);
    }

    /// The daemon crashes, restarts, and reads its timeline.
    pub(super) fn restart(&mut self, until: u64) {
        self.later.clear();
        let host = &mut self.host;
        host.releases.crash();
        host.now = Moment(0) + secs(until);
        let entries: Vec<TimelineEntry> =
            host.timeline_lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let watch = Watch::restore(host.policy.clone(), &entries, host.now);
        host.machine = ServiceMachine::new(watch, settings(&host.policy));
        let needed: Vec<ReleaseNumber> =
            host.watch().phase().required_releases().iter().map(|it| it.number).collect();
        host.releases.stop_orphans(&needed);
        let proposal = host.machine.restored("rollbackd started", host.now, 0);
        self.configure();
        let entry = proposal.and_then(|proposal| self.host.record_and_apply(proposal));
        self.after_entry(entry);
    }
}
