//! One service without I/O: the judge and the state machine, joined.
//!
//! The driver is the service loop or a simulation. It repeats these steps:
//!
//! 1. [`ServiceMachine::handle`] takes an [`Input`] and queues what it leads to.
//! 2. [`ServiceMachine::poll`] returns the next [`Proposal`]. The driver writes it to the timeline.
//! 3. [`ServiceMachine::recorded`] applies it and releases its effects, which the driver executes. A
//!    proposal that cannot be written goes to [`ServiceMachine::not_recorded`] and changes nothing,
//!    unless it [acts unrecorded](ServiceMachine::acts_unrecorded).
//! 4. [`ServiceMachine::judge_to_open`] asks for a judge, which [`ServiceMachine::open_judge`] creates.
//!
//! Only `recorded` hands out effects, so a driver writes first, or keeps the entry to write it late.

mod bake;
mod deadline;
mod input;
mod judges;
mod pause;
mod ramp;
mod release_health;
mod signals;
mod starts;
mod unrecorded;

use std::collections::{BTreeMap, VecDeque};

use bake::Bake;
use input::Pending;
pub use input::{BakeOpening, Input, MachineSettings, Proposal, RoutingHints};

pub use pause::PAUSE_MIN;
use pause::PauseDetector;
use release_health::ReleaseHealth;

use crate::decide::{CommandRefused, Phase, Watch};
use crate::judge::Judge;
use crate::judge::trial::ReleaseTrial;
use crate::model::{
    Command, CommandRequest, Decision, Effect, Event, Finding, Moment, ProbeResult, Release,
    ReleaseLoad, ReleaseNumber, Signal, TimelineEvent, Verdict, Waiver,
};

/// Events that are kept while the timeline cannot be written.
const EVENTS_KEPT_MAX: usize = 256;

/// The state of one service, its judge, and what waits for a decision.
#[derive(Debug)]
pub struct ServiceMachine {
    settings: MachineSettings,
    watch: Watch,
    bake: Bake,
    /// The last probe of each release.
    probes: BTreeMap<ReleaseNumber, ProbeResult>,
    exits: BTreeMap<ReleaseNumber, u32>,
    /// The names that releases report.
    identities: BTreeMap<ReleaseNumber, String>,
    queue: VecDeque<Pending>,
    /// What could not be recorded, and happens once.
    unrecorded: VecDeque<Pending>,
    pauses: PauseDetector,
    health: ReleaseHealth,
}

impl ServiceMachine {
    /// A machine in the state of `watch`, without a judge.
    pub fn new(mut watch: Watch, settings: MachineSettings) -> Self {
        watch.set_policy(settings.policy.clone());
        Self {
            settings,
            watch,
            bake: Bake::default(),
            probes: BTreeMap::new(),
            exits: BTreeMap::new(),
            identities: BTreeMap::new(),
            queue: VecDeque::new(),
            unrecorded: VecDeque::new(),
            pauses: PauseDetector::default(),
            health: ReleaseHealth::default(),
        }
    }

    /// Takes new settings. An open bake takes its length and whether it waits for counters; its
    /// objectives stay, for its evidence was weighed against them.
    pub fn configure(&mut self, now: Moment, settings: MachineSettings) {
        self.watch.set_policy(settings.policy.clone());
        if let Some(scrape) = settings.slo.scrape {
            self.bake.set_extend_bake(scrape.extend_bake);
        }
        self.settings = settings;
        self.bake.set_target(self.watch.judge_target(), now);
    }

    /// Sets the names that releases reported before a restart.
    pub fn restore_identities(&mut self, names: impl IntoIterator<Item = (ReleaseNumber, String)>) {
        self.identities.extend(names);
    }

    /// The state.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The judge of the release on trial.
    pub fn judge(&self) -> Option<&Judge> {
        self.bake.judge()
    }

    /// The verdict on the release on trial.
    pub fn verdict(&self, now: Moment) -> Option<Verdict> {
        self.bake.verdict(now)
    }

    /// The trial of the release, where it has a ramp.
    pub fn trial(&self) -> Option<&ReleaseTrial> {
        self.bake.trial()
    }

    /// The last probe of a release.
    pub fn probe(&self, release: ReleaseNumber) -> Option<&ProbeResult> {
        self.probes.get(&release)
    }

    /// Whether probes come in quick succession now.
    pub fn probes_fast(&self, now: Moment) -> bool {
        self.judge().is_some_and(|judge| judge.is_suspicious(now))
    }

    /// Takes one input. Poll for its decisions.
    pub fn handle(&mut self, now: Moment, input: Input) {
        self.notice_pause(now);
        match input {
            Input::Signal(signal) if self.is_evidence(now, &signal) => self.on_signal(now, signal),
            Input::Signal(_) => (),
            Input::Event(event) => self.queue.push_back(Pending::Event(event)),
            Input::Note(release, text) => self.queue.push_back(Pending::Note(release, text)),
            Input::Replaced(release, because) => {
                self.queue.push_back(Pending::Replaced(release, None, because));
            }
            Input::Identity(release, name) => self.on_identity(release, name),
            Input::EndOfBlock => {
                self.pauses.end_block(now);
                self.bake.end_block();
                self.watch_anew(now);
                self.check_warm_release();
                self.retry_unrecorded();
                self.queue.extend([
                    Pending::Verdict,
                    Pending::Recovery,
                    Pending::Step,
                    Pending::Deadline,
                ]);
            }
        }
    }

    /// Detects a pause of the daemon. [`Self::handle`] does so, too; call it, and poll, before a command.
    pub fn notice_pause(&mut self, now: Moment) {
        if let Some(gap) = self.pauses.notice(now) {
            self.bake.skip(now, gap);
            self.queue.push_front(Pending::Pause(gap));
        }
        self.retry_unrecorded_pauses();
    }

    /// Whether the judge takes a signal. Directly after a pause a failure may be its consequence.
    pub fn is_evidence(&self, now: Moment, signal: &Signal) -> bool {
        self.pauses.is_evidence(now, &signal.observation)
    }

    /// The next decision. `load` returns what a release carries at the moment.
    pub fn poll(
        &mut self,
        now: Moment,
        load: impl Fn(ReleaseNumber) -> ReleaseLoad,
    ) -> Option<Proposal> {
        while let Some(pending) = self.queue.pop_front() {
            if self.must_wait(&pending) {
                continue;
            }
            let source = pending.happens_once().then(|| pending.clone());
            if let Some(decision) = self.decide(now, pending, &load) {
                return Some(Proposal { decision, source });
            }
        }
        None
    }

    fn decide(
        &self,
        now: Moment,
        pending: Pending,
        load: impl Fn(ReleaseNumber) -> ReleaseLoad,
    ) -> Option<Decision> {
        let event = match pending {
            Pending::Event(event) => event,
            Pending::Note(number, text) => return Some(note(self.release(number)?, &text)),
            Pending::WarmFails(number, because) => {
                let (load, release) = (load(number), self.release(number)?);
                let active = self.watch.phase().active()?;
                let text = match load.sessions.saturating_sub(load.pinned) {
                    0 => return None,
                    1 => format!("{because}; its session moves to {active}"),
                    count => format!("{because}; its {count} sessions move to {active}"),
                };
                return Some(note(release, &text));
            }
            Pending::Replaced(number, name, because) => {
                let phase = self.watch.phase();
                let is_active = phase.active().is_some_and(|it| it.number == number);
                // In a ramp, users are assigned to the releases that were deployed.
                if !is_active || phase.ramp().is_some() || self.settings.restarts_in_place {
                    return Some(replaced_note(self.release(number)?, &because));
                }
                Event::Replaced(number, name, because)
            }
            Pending::Verdict => {
                let mut verdict = self.bake.verdict(now)?;
                let control = self.watch.phase().ramp().and(self.watch.phase().active());
                let is_fine = matches!(verdict.finding, Finding::Healthy | Finding::Undecided);
                if let Some(control) = control.filter(|_| is_fine) {
                    let pinned = load(control.number).pinned;
                    verdict.because.push_str(&stuck_sessions(control, pinned));
                }
                let load = load(verdict.release);
                Event::Judged(verdict, load)
            }
            Pending::Recovery => {
                let (release, because) = self.bake.recovery(now)?;
                Event::Recovered(release, because)
            }
            Pending::Step => self.step_due(now)?,
            Pending::Pause(gap) => return self.watch.on_pause(now, gap),
            Pending::Deadline => {
                self.watch.deadline().filter(|due| *due <= now)?;
                self.deadline_event(now)
            }
        };
        if self.is_accepted_early(now, &event) {
            return None;
        }
        self.watch.on_event(now, &event)
    }

    /// Whether the bake seems to be over, but is not: the release has not answered since the host booted, or
    /// something that happened is not recorded yet, such as a pause that extends the bake.
    fn is_accepted_early(&self, now: Moment, event: &Event) -> bool {
        let Event::Judged(verdict, _) = event else { return false };
        // Those with which the end of a bake accepts.
        let accepts = matches!(
            verdict.finding,
            Finding::Healthy | Finding::Undecided | Finding::OneUser | Finding::Differs
        );
        let awaits_answer = || self.judge().is_some_and(|judge| judge.awaits_answer(now));
        accepts
            && matches!(self.watch.phase(), Phase::Baking { until, .. } if *until <= now)
            && (!self.unrecorded.is_empty() || awaits_answer())
    }

    /// The decision on an operator's command.
    ///
    /// # Errors
    /// The command does not fit the phase, a guard blocks it, or it would stop the last release that
    /// answers.
    pub fn command(
        &self,
        now: Moment,
        request: CommandRequest,
    ) -> Result<Proposal, CommandRefused> {
        let over_breach = match &request.command {
            Command::Deploy(deploy) => deploy.waives(Waiver::OverBreach),
            Command::Rollback { .. }
            | Command::Promote { .. }
            | Command::Hold { .. }
            | Command::Resume { .. } => false,
        };
        let passed = |number| self.probe(number).map(ProbeResult::is_ok);
        let mut decision = self.watch.on_command(now, request, passed)?;
        if let Err(refusal) = self.watch.keeps_a_healthy_release(&decision, passed) {
            if !over_breach {
                return Err(refusal);
            }
            decision.waive(Waiver::OverBreach);
        }
        Ok(decision.into())
    }

    /// The first decision after a restart; `source` begins a sentence. None for a service without a
    /// deploy.
    pub fn restored(&self, source: &str, now: Moment, truncated_bytes: u64) -> Option<Proposal> {
        let is_new = *self.watch.phase() == Phase::Empty && truncated_bytes == 0;
        (!is_new).then(|| self.watch.restored_by(source, now, truncated_bytes).into())
    }

    /// A note about the service.
    pub fn note(&self, text: &str) -> Proposal {
        let (because, effects) = (text.to_owned(), Vec::new());
        Decision { because, event: TimelineEvent::Noted, effects }.into()
    }

    /// An event that changes no state, such as a notification.
    pub fn fact(&self, event: TimelineEvent, because: String) -> Proposal {
        Decision { because, event, effects: Vec::new() }.into()
    }

    /// Applies a proposal that is in the timeline, and releases its effects.
    pub fn recorded(&mut self, now: Moment, proposal: Proposal) -> Vec<Effect> {
        let Decision { event, effects, .. } = proposal.decision;
        self.watch.apply(now, &event);
        if matches!(event, TimelineEvent::Resumed { .. }) {
            self.bake.start_anew(now);
        }
        for effect in &effects {
            if let Effect::Retire(release) | Effect::Detach(release) = effect {
                self.probes.remove(&release.number);
                self.exits.remove(&release.number);
                self.identities.remove(&release.number);
            }
        }
        self.bake.set_target(self.watch.judge_target(), now);
        effects
    }

    /// The effects after a restart whose entry cannot be written: the traffic stays where it was.
    pub fn effects_when_unrecorded(&self) -> Vec<Effect> {
        let keeps_traffic = |effect: &Effect| {
            matches!(effect, Effect::KeepRunning(_) | Effect::Route(_) | Effect::Assign(..))
        };
        self.watch.phase().effects().into_iter().filter(keeps_traffic).collect()
    }

    /// What the proxy needs to know of the phase.
    pub fn routing_hints(&self) -> RoutingHints {
        let phase = self.watch.phase();
        let moves = self.settings.move_sessions.to_new_release(self.watch.is_ramped());
        let accepted = matches!(phase, Phase::Steady { .. }) && moves;
        let migrate_from = phase.warm().filter(|_| accepted).map(|warm| warm.number);
        let migrate_from = migrate_from.or(self.health.left());
        RoutingHints { on_trial: phase.on_trial(), migrate_from }
    }

    /// The warm release, where it can yield resources to the active one while it has no traffic.
    pub fn idle_candidate(&self) -> Option<ReleaseNumber> {
        let phase = self.watch.phase();
        let is_stable = matches!(phase, Phase::Steady { .. } | Phase::Baking { .. });
        phase.warm().filter(|_| is_stable).map(|warm| warm.number)
    }

    fn release(&self, number: ReleaseNumber) -> Option<&Release> {
        self.watch.phase().release(number)
    }
}

fn note(release: &Release, text: &str) -> Decision {
    let because = format!("{release}: {text}");
    Decision { because, event: TimelineEvent::Noted, effects: Vec::new() }
}

/// Sessions that a ramp leaves on the control: they stay there also when the release is accepted.
fn stuck_sessions(control: &Release, pinned: u64) -> String {
    match pinned {
        0 => String::new(),
        _ => format!("; {pinned} sessions cannot move and stay on {control}"),
    }
}

/// The daemon cannot treat this replacement as a deploy, so it pages the operator.
fn replaced_note(release: &Release, because: &str) -> Decision {
    let mut decision =
        note(release, &format!("the running program is not the deployed one: {because}"));
    decision.effects.push(Effect::Page(decision.because.clone()));
    decision
}
