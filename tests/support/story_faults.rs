//! Exits, replacements and restarts in a story.

use rollbackd::decide::Watch;
use rollbackd::machine::ServiceMachine;
use rollbackd::model::{Event, Moment, Observation, ReleaseNumber, TimelineEntry};

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

    /// The daemon crashes, restarts, and reads its timeline.
    pub(super) fn restart(&mut self, until: u64) {
        self.later.clear();
        let world = &mut self.host;
        world.releases.crash();
        world.now = Moment(0) + secs(until);
        let entries: Vec<TimelineEntry> =
            world.timeline_lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let watch = Watch::restore(world.policy.clone(), &entries, world.now);
        world.machine = ServiceMachine::new(watch, settings(&world.policy));
        let needed: Vec<ReleaseNumber> =
            world.watch().phase().required_releases().iter().map(|it| it.number).collect();
        world.releases.stop_orphans(&needed);
        let proposal = world.machine.restored("rollbackd started", world.now, 0);
        self.configure();
        let entry = proposal.and_then(|proposal| self.host.record_and_apply(proposal));
        self.after_entry(entry);
    }
}
