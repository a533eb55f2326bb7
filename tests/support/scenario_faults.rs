//! What happens to the daemon and its host in a simulated day.

use std::time::Duration;

use rollbackd::decide::{Phase, Watch};
use rollbackd::machine::{Input, PAUSE_MIN, ServiceMachine};
use rollbackd::model::{
    Actor, Command, CommandRequest, DeployRequest, Event, Finding, Moment, ReleaseLoad,
    ReleaseNumber, Severity, TimelineEntry, Verdict,
};

use crate::Scenario;
use crate::simulated_host::{SimulatedHost, policy, settings};
use crate::watch_state::state;

impl Scenario {
    /// The daemon crashes at any moment, restarts, and reads its timeline.
    pub(crate) fn crash(&mut self) {
        // Half of the crashes happen after a decision is recorded and before its effects.
        self.host.crash_after_write = self.rng.one_in(2);
        self.random_event();
        self.host.crash_after_write = false;
        let longest = if self.rng.one_in(5) { 3_600_000 } else { 5_000 };
        let down = Duration::from_millis(1 + self.rng.next_below(longest));
        (self.host.pending_effects, self.answers) = (Vec::new(), Vec::new());
        self.disturbed = true;
        self.host.releases.crash();
        if self.rng.one_in(4) {
            // The host itself boots: no release runs.
            self.host.releases.running.clear();
        }
        let started = self.time_of_start(down);
        self.host.jump_to(started);
        self.restart();
    }

    /// What the clock of the next daemon says: the wall may have been set while none ran. It never starts
    /// before what is recorded.
    fn time_of_start(&mut self, down: Duration) -> Moment {
        let entries = self.entries();
        let recorded = entries.last().map_or(Moment(0), |last| last.moment);
        let is_set = self.rng.one_in(6);
        match is_set.then(|| self.rng.next_below(3)) {
            None => self.host.now + down,
            // Back by any time.
            Some(0) => recorded,
            Some(1) => recorded.max(Moment(self.host.now.0 - self.host.now.0.min(30_000))),
            Some(_) => self.host.now + down + Duration::from_secs(86_400),
        }
    }

    fn entries(&self) -> Vec<TimelineEntry> {
        let lines = self.host.timeline_lines.iter();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn restart(&mut self) {
        let entries = self.entries();
        let host = &mut self.host;
        let restored = Watch::restore(host.policy.clone(), &entries, host.now);
        assert_eq!(state(&restored), state(host.watch()), "restored, and before the crash");
        if let (Some(is), Some(was)) = (restored.deadline(), host.watch().deadline()) {
            assert!(was <= is || self.unrecorded, "the deadline {was} came nearer: {is}");
        }
        host.machine = ServiceMachine::new(restored, settings(&host.policy));
        let needed: Vec<_> =
            host.watch().phase().required_releases().iter().map(|it| it.number).collect();
        host.releases.stop_orphans(&needed);
        let Some(proposal) = host.machine.restored("rollbackd started", host.now, 0) else {
            return;
        };
        if host.record_and_apply(proposal).is_none() {
            self.unrecorded = true;
            host.disk_full = false;
            let proposal = host.machine.restored("rollbackd started", host.now, 0);
            proposal.map(|proposal| host.record_and_apply(proposal));
        }
        // A release that is left is not started again.
        let phase = host.watch().phase();
        let serves = matches!(phase, Phase::Steady { .. } | Phase::Baking { .. });
        let active = phase.active().filter(|_| serves).map(|it| it.number);
        assert!(active.is_none_or(|it| host.releases.running.contains(&it)), "{active:?}");
    }

    /// The host is suspended, or so busy that the daemon stands still.
    pub(crate) fn pause(&mut self) {
        self.end_block();
        let longest = if self.rng.one_in(5) { 3_600_000 } else { 30_000 };
        let gap = PAUSE_MIN + Duration::from_millis(1 + self.rng.next_below(longest));
        let before = self.host.watch().deadline();
        self.host.jump_to(self.host.now + gap);
        self.disturbed = true;
        let recorded = self.host.timeline_lines.len();
        self.end_block();
        let entries = self.entries();
        let is_recorded = entries.get(recorded).is_some_and(|it| it.event.kind() == "paused");
        if let (Some(was), Some(is), true) = (before, self.host.watch().deadline(), is_recorded)
            && entries.len() == recorded + 1
        {
            assert_eq!(is.since(was), gap, "a deadline moves by the pause");
        }
    }

    /// Lets the time pass block by block. Deadlines on the way are handled in time.
    pub(crate) fn advance_by_blocks(&mut self, to: Moment) {
        while self.host.now < to {
            self.host.now = to.min(self.host.now + PAUSE_MIN);
            if self.in_order {
                self.deliver_all(self.host.now);
            }
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        let now = self.host.now;
        self.host.machine.handle(now, Input::EndOfBlock);
        while let Some(proposal) = self.host.machine.poll(now, |_| ReleaseLoad::default()) {
            if let Some(entry) = self.host.record_and_apply(proposal) {
                self.after_entry(&entry);
            }
        }
    }
}

impl SimulatedHost {
    /// The daemon does not watch until the clock shows `then`. A clock that was set back hides what was
    /// watched before.
    fn jump_to(&mut self, then: Moment) {
        if self.no_data_since.is_none() {
            self.no_data_total += then.since(self.now);
        }
        self.hidden += self.now.since(then);
        self.now = then;
    }
}

/// Otherwise a crash after it forgets the pause: the time until the last entry counts as watched.
#[test]
fn a_pause_that_could_not_be_recorded_comes_before_what_follows() {
    let mut host = SimulatedHost::new(policy());
    let deploy = DeployRequest { version: "v1".to_owned(), ..DeployRequest::default() };
    let order = |command| CommandRequest { by: Actor::default(), command };
    host.command(order(Command::Deploy(deploy))).unwrap();
    let ticket = host.watch().ticket();
    host.handle_event(&Event::Ready(ticket, Box::default()));
    for (ticket, effect) in std::mem::take(&mut host.pending_effects) {
        let answer = host.deliver(ticket, &effect);
        answer.map(|answer| host.handle_event(&answer));
    }
    host.machine.handle(host.now, Input::EndOfBlock);
    let paused = |host: &mut SimulatedHost| {
        host.disk_full = true;
        host.now = host.now + Duration::from_secs(20);
        let verdict = Verdict { finding: Finding::Undecided, ..breach() };
        host.handle_event(&Event::Judged(verdict, ReleaseLoad::default()));
        host.disk_full = false;
    };
    paused(&mut host);
    host.handle_event(&Event::Judged(breach(), ReleaseLoad::default()));
    host.machine.handle(host.now, Input::EndOfBlock);
    paused(&mut host);
    host.command(order(Command::Hold { because: "so it shall be".to_owned() })).unwrap();
    let entries: Vec<TimelineEntry> =
        host.timeline_lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.event.kind()).collect();
    assert!(kinds.ends_with(&["switched", "paused", "blocked", "paused", "held"]), "{kinds:?}");
}

/// A breach of the first release.
fn breach() -> Verdict {
    Verdict {
        release: ReleaseNumber(1),
        finding: Finding::Breach(Severity::Down),
        because: "the dice say so".to_owned(),
        basis: None,
        onset: Moment(0),
        failure_rate_lower: 0.5,
        request_rate: 10.0,
    }
}
