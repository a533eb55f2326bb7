//! A host without I/O: it drives the same machine as the daemon, with a timeline in memory and
//! simulated releases. It checks the invariants after every decision.
#![expect(unreachable_pub, reason = "shared by tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rollbackd::decide::{AfterBake, CommandRefused, MoveSessions, Policy, RampSettings, Watch};
use rollbackd::machine::{MachineSettings, Proposal, ServiceMachine};
use rollbackd::model::{
    CommandRequest, DrainCost, Effect, Event, Moment, RampStep, ReleaseLoad, ReleaseNumber, Slot,
    Ticket, TimelineEntry, TimelineEvent,
};

use crate::slo::slo_settings;

#[path = "invariants.rs"]
mod invariants;
#[path = "simulated_releases.rs"]
mod simulated_releases;

/// Lines of the timeline that a failure prints.
const LINES_SHOWN: usize = 30;

pub struct SimulatedHost {
    pub now: Moment,
    pub policy: Policy,
    pub machine: ServiceMachine,
    /// The newest file of the timeline: one line per event.
    pub timeline_lines: Vec<String>,
    pub disk_full: bool,
    /// The daemon crashes immediately after it records a decision.
    pub crash_after_write: bool,
    pub releases: SimulatedReleases,
    /// Digest of every decision so far: time, kind, effects and resulting state, without texts.
    pub digest: u64,
    /// Effects that are not delivered to the proxy or the executor yet, with their ticket.
    pub pending_effects: Vec<(Ticket, Effect)>,
    /// When the current rollback was detected, and whether an operator ordered it.
    pub detected: Option<(Moment, bool)>,
    /// Number of automatic rollbacks in the newest deploy.
    automatic_rollbacks: u32,
    /// Times of all automatic rollbacks.
    automatic_rollback_times: Vec<Moment>,
    frozen: bool,
    /// Start of the newest bake, start of its current time without data, and the sum of such times.
    bake_started: Moment,
    pub no_data_since: Option<Moment>,
    pub no_data_total: Duration,
    /// Time of the bake that a clock does not show, because it was set back.
    pub hidden: Duration,
}

/// Which releases run and receive traffic, as opposed to what the daemon believes.
#[derive(Debug, Default)]
pub struct SimulatedReleases {
    pub routed: Option<ReleaseNumber>,
    pub running: BTreeSet<ReleaseNumber>,
    pub retired: BTreeSet<ReleaseNumber>,
    /// The release on trial, and the subjects that it has.
    pub assigned: Option<(ReleaseNumber, RampStep)>,
    /// The most subjects that a release ever had in its ramp.
    widest: BTreeMap<ReleaseNumber, u32>,
    newest_ticket: Ticket,
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn policy() -> Policy {
    Policy {
        observe: false,
        start_timeout: secs(60),
        bake: secs(600),
        drain_timeout: secs(30),
        rollback_timeout: secs(120),
        target_check_timeout: secs(2),
        retry_interval: secs(1),
        page_after_tries: 5,
        recovery_timeout: secs(60),
        rollbacks_per_day_max: 3,
        after_bake: AfterBake::Page,
        session_cost: 3.0,
        ramp: RampSettings::default(),
        slots: vec![Slot("blue".to_owned()), Slot("green".to_owned())],
    }
}

/// The daemon does not start the releases itself.
pub fn settings(policy: &Policy) -> MachineSettings {
    MachineSettings {
        policy: policy.clone(),
        slo: slo_settings(),
        restarts_in_place: false,
        starts_releases: true,
        move_sessions: MoveSessions::Rollback,
    }
}

impl SimulatedHost {
    pub fn new(policy: Policy) -> Self {
        Self {
            now: Moment(0),
            machine: ServiceMachine::new(Watch::new(policy.clone()), settings(&policy)),
            policy,
            timeline_lines: Vec::new(),
            disk_full: false,
            crash_after_write: false,
            releases: SimulatedReleases::default(),
            digest: 0xcbf2_9ce4_8422_2325,
            pending_effects: Vec::new(),
            detected: None,
            automatic_rollbacks: 0,
            automatic_rollback_times: Vec::new(),
            frozen: false,
            bake_started: Moment(0),
            no_data_since: None,
            no_data_total: Duration::ZERO,
            hidden: Duration::ZERO,
        }
    }

    pub fn watch(&self) -> &Watch {
        self.machine.watch()
    }

    pub fn command(
        &mut self,
        order: CommandRequest,
    ) -> Result<Option<TimelineEntry>, CommandRefused> {
        self.machine.notice_pause(self.now);
        while let Some(proposal) = self.machine.poll(self.now, |_| ReleaseLoad::default()) {
            self.record_and_apply(proposal);
        }
        let proposal = self.machine.command(self.now, order)?;
        Ok(self.record_and_apply(proposal))
    }

    /// Records a proposal, applies it, and queues its effects.
    pub fn record_and_apply(&mut self, proposal: Proposal) -> Option<TimelineEntry> {
        let Some(entry) = self.write(&proposal) else {
            self.machine.not_recorded(proposal);
            return None;
        };
        let before = self.watch().clone();
        let effects = self.machine.recorded(self.now, proposal);
        self.add_to_digest(&entry.event, &effects);
        self.check_decision(&before, &entry, &effects);
        let ticket = self.watch().ticket();
        let executed = if self.crash_after_write { Vec::new() } else { effects };
        for effect in executed {
            match effect {
                Effect::KeepRunning(release) => self.releases.mark_running(release.number),
                Effect::Retire(release) | Effect::Detach(release) => {
                    self.route_elsewhere(ticket, release.number);
                    self.releases.retire(release.number);
                }
                Effect::Page(_) => (),
                // At the end of a ramp the daemon routes at once: nothing waits for it.
                Effect::Route(_) if matches!(entry.event, TimelineEvent::Accepted { .. }) => {
                    self.deliver(ticket, &effect);
                }
                Effect::Start(ref release) => {
                    self.releases.mark_running(release.number);
                    self.pending_effects.push((ticket, effect));
                }
                Effect::Probe(_)
                | Effect::Route(_)
                | Effect::Assign(..)
                | Effect::Drain(..)
                | Effect::Cut(_) => {
                    self.pending_effects.push((ticket, effect));
                }
            }
        }
        self.check_releases();
        Some(entry)
    }

    /// Effects start in their order: a release that has the traffic is stopped after the route to
    /// another one is set.
    fn route_elsewhere(&mut self, ticket: Ticket, retired: ReleaseNumber) {
        let is_route = |(at, effect): &(Ticket, Effect)| {
            *at == ticket && matches!(effect, Effect::Route(to) if to.number != retired)
        };
        if self.releases.routed == Some(retired)
            && let Some(index) = self.pending_effects.iter().position(is_route)
            && let (_, Effect::Route(to)) = self.pending_effects.remove(index)
        {
            self.releases.newest_ticket = ticket;
            self.releases.routed = Some(to.number);
        }
    }

    /// Adds one decision and the resulting state to the digest (FNV-1a).
    fn add_to_digest(&mut self, event: &TimelineEvent, effects: &[Effect]) {
        let effects: Vec<_> = effects.iter().map(effect_key).collect();
        let watch = self.watch();
        let text = format!(
            "{} {} {} {:?} {effects:?} {} {:?} {:?} {} {}\n",
            self.now.0,
            watch.deploy(),
            event.kind(),
            event.severity(),
            watch.phase().name(),
            watch.deadline(),
            watch.ticket(),
            watch.hold().is_some(),
            watch.quarantine().len(),
        );
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write(&mut self, proposal: &Proposal) -> Option<TimelineEntry> {
        if self.disk_full {
            return None;
        }
        let deploy = match proposal.event() {
            TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. } => {
                self.timeline_lines.clear();
                release.number
            }
            _ => self.watch().deploy(),
        };
        let entry = TimelineEntry {
            seq: self.timeline_lines.len() as u64 + 1,
            wall_time: "2026-11-22T12:00:00.000000Z".to_owned(),
            moment: self.now,
            since_deploy_ms: self.now.0,
            service: "weather".to_owned(),
            deploy,
            because: proposal.because().to_owned(),
            event: proposal.event().clone(),
            planned_effects: proposal.planned_effects(),
        };
        self.timeline_lines.push(serde_json::to_string(&entry).unwrap());
        Some(entry)
    }

    /// The proxy or the executor receives an effect. Returns its immediate answer.
    pub fn deliver(&mut self, ticket: Ticket, effect: &Effect) -> Option<Event> {
        if ticket < self.releases.newest_ticket {
            return None;
        }
        self.releases.newest_ticket = ticket;
        let answer = match effect {
            Effect::Assign(on_trial, control, step) => {
                self.releases.assign(on_trial.number, control.number, *step);
                Some(Event::Routed(ticket))
            }
            Effect::Route(release) => {
                self.releases.assigned = None;
                self.releases.routed = Some(release.number);
                Some(Event::Routed(ticket))
            }
            Effect::Drain(..) | Effect::Cut(_) => {
                Some(Event::NothingInFlight(ticket, DrainCost::default()))
            }
            _ => None,
        };
        self.check_releases();
        answer
    }
}

#[expect(clippy::print_stderr, reason = "shows what led to a failure")]
impl Drop for SimulatedHost {
    /// What led to a broken invariant.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.timeline_lines.len().saturating_sub(LINES_SHOWN);
            self.timeline_lines.iter().skip(from).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// An effect without its texts.
fn effect_key(effect: &Effect) -> (u8, u32, Option<Moment>) {
    match effect {
        Effect::KeepRunning(it) => (0, it.number.0, None),
        Effect::Start(it) => (1, it.number.0, None),
        Effect::Probe(it) => (2, it.number.0, None),
        Effect::Route(it) => (3, it.number.0, None),
        Effect::Drain(it, until) => (4, it.number.0, Some(*until)),
        Effect::Cut(it) => (5, it.number.0, None),
        Effect::Retire(it) => (6, it.number.0, None),
        Effect::Detach(it) => (7, it.number.0, None),
        Effect::Page(_) => (8, 0, None),
        Effect::Assign(it, _, step) => (9, it.number.0, Some(Moment(step.below_ppm.into()))),
    }
}
