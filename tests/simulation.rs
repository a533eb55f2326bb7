//! Simulates thousands of random days: deploys, verdicts, operators, effects that come late, twice or
//! never, full disks, crashes of the daemon, boots of the host, pauses, clocks that are set. A failure
//! prints its seed; `SEED=n cargo sim` replays it, `DAYS=100000 cargo sim` simulates more of them.
//!
//! After every decision it is checked that
//! - the traffic goes to a release that the daemon needs, and each needed release has a slot of its own;
//! - nothing that is needed is stopped, and no effect concerns a release that nothing needs;
//! - a switch is recorded once the traffic has moved, and a decision before its first effect;
//! - a rollback has a person's order, or no hold, freeze or limit forbids it; once in a deploy;
//! - after the bake a verdict moves the traffic only where the operator wants it, never to a release in
//!   quarantine;
//! - a bake takes its time, without the time that had no data or was not watched;
//! - a rollback leaves the bad release in its time, where disk and proxy work;
//! - subjects of a ramp go forward only; a verdict that is not final, or a stale answer, decides nothing.
//!
//! After every restart the state is the one before, and no deadline came nearer. In the end the service
//! rests, on the release that it reports, and what runs is what it needs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "support/ramp_scenarios.rs"]
mod ramp_scenarios;
#[path = "support/random_values.rs"]
mod random_values;
#[path = "support/rng.rs"]
mod rng;
#[path = "support/scenario_faults.rs"]
mod scenario_faults;
#[path = "support/simulated_host.rs"]
mod simulated_host;
#[path = "support/single_event.rs"]
mod single_event;
#[path = "support/slo.rs"]
mod slo;
#[path = "support/watch_state.rs"]
mod watch_state;

use std::ops::Range;
use std::time::Duration;

use rng::Rng;
use rollbackd::decide::{AfterBake, Phase};
use rollbackd::model::{
    Actor, Command, CommandRequest, DeployRequest, Effect, Event, Finding, Moment, ProbeResult,
    ReleaseLoad, Slot, Ticket, TimelineEntry, TimelineEvent, Verdict,
};
use simulated_host::{SimulatedHost, policy, secs};

const SCENARIOS: u64 = 3_000;
const EVENTS_PER_SCENARIO: u64 = 300;
/// Turns of five seconds after the last fault, and the most where a long pause extended a bake.
const CONVERGENCE_TURNS: u32 = 240;
const CONVERGENCE_TURNS_MAX: u32 = 1_200;
/// Digest of every decision of all scenarios, without texts. An intended change of behaviour is a
/// separate commit, which updates the digest and states the reason.
const DIGEST: u64 = 0x54f0_d291_b81c_ec07;

#[test]
fn random_scenarios_keep_the_invariants() {
    let seeds = seeds(SCENARIOS);
    let (mut rollbacks, mut digest) = (0, 0_u64);
    for seed in seeds.clone() {
        match std::panic::catch_unwind(|| Scenario::new(seed).run()) {
            Ok((seen, one)) => {
                rollbacks += seen;
                digest = digest.rotate_left(1) ^ one;
            }
            Err(_) => panic!("failed: SEED={seed} cargo sim"),
        }
    }
    // Scenarios without rollbacks would prove nothing.
    let days = seeds.end - seeds.start;
    assert!(days == 1 || days / 3 < rollbacks, "{rollbacks} rollbacks in {days} days");
    assert!(
        days != SCENARIOS || digest == DIGEST,
        "the timelines changed: their digest is {digest:#018x}"
    );
}

/// The seeds of the days to simulate: `SEED`, or `DAYS` of them, or as many as usual.
fn seeds(usual: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let days = number("DAYS").unwrap_or(usual);
    number("SEED").map_or(0..days, |seed| seed..seed + 1)
}

struct Scenario {
    rng: Rng,
    host: SimulatedHost,
    /// Answers that are not delivered to the daemon yet.
    answers: Vec<Event>,
    /// Effects and answers arrive in order, in time, and once.
    in_order: bool,
    /// The daemon or its disk failed since the last detection.
    disturbed: bool,
    rollbacks: u64,
    /// A restart is missing in the timeline, so deadlines may differ.
    unrecorded: bool,
    /// The daemon sees the end of each block: it notices pauses.
    has_blocks: bool,
    /// Deploys have a ramp, and these many steps were taken.
    ramps: bool,
    steps: u64,
}

impl Scenario {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut policy = policy();
        policy.observe = rng.one_in(12);
        policy.rollbacks_per_day_max = 1 + rng.next_below(4) as usize;
        policy.start_timeout = secs(20 + rng.next_below(90));
        policy.drain_timeout = secs(rng.next_below(121));
        policy.after_bake = match seed % 4 {
            0 => AfterBake::Act,
            1 => AfterBake::Off,
            _ => AfterBake::Page,
        };
        if rng.one_in(3) {
            policy.slots.push(Slot("red".to_owned()));
        }
        let in_order = rng.one_in(3);
        let host = SimulatedHost::new(policy);
        Self {
            rng,
            host,
            answers: Vec::new(),
            in_order,
            disturbed: false,
            rollbacks: 0,
            unrecorded: false,
            has_blocks: seed.is_multiple_of(5),
            ramps: false,
            steps: 0,
        }
    }

    /// Returns the number of rollbacks and the digest of all decisions.
    fn run(mut self) -> (u64, u64) {
        self.run_all();
        (self.rollbacks, self.host.digest)
    }

    /// Returns the number of rollbacks and of steps.
    fn run_counted(mut self) -> (u64, u64) {
        self.run_all();
        (self.rollbacks, self.steps)
    }

    fn run_all(&mut self) {
        let crashes = if self.rng.one_in(4) { 0 } else { 10 + self.rng.next_below(50) };
        for _ in 0..EVENTS_PER_SCENARIO {
            let longest = if self.rng.one_in(120) { 1_200_000 } else { 3_000 };
            let step = 1 + self.rng.next_below(longest);
            self.advance(Duration::from_millis(step));
            self.host.disk_full = self.rng.one_in(15);
            self.disturbed |= self.host.disk_full;
            self.random_event();
            if crashes > 0 && self.rng.one_in(crashes) {
                self.crash();
            }
            if self.has_blocks && self.rng.one_in(20) {
                self.pause();
            }
        }
        self.assert_converges();
    }

    fn random_event(&mut self) {
        if self.ramps && self.rng.one_in(8) {
            return self.random_step();
        }
        match self.rng.next_below(12) {
            0..=3 => self.deliver(),
            4..=6 => self.deliver_answer(),
            7 => self.random_command(),
            8 if self.rng.one_in(8) => {
                let (number, named) =
                    (self.number(), format!("weather v{}", self.rng.next_below(30)));
                self.handle_event(&Event::Replaced(
                    number,
                    Some(named),
                    "the dice say so".to_owned(),
                ));
            }
            11 => {
                let number = self.number();
                self.handle_event(&Event::Recovered(number, "the dice say so".to_owned()));
            }
            _ => {
                let (verdict, load) = (self.verdict(), self.load());
                let measured = verdict.finding == Finding::Measuring;
                let decided = self.handle_event(&Event::Judged(verdict, load));
                assert!(!measured || decided.is_none(), "decided before anybody is to blame");
            }
        }
    }

    /// Advances the clock. Deadlines on the way are handled in time, or late.
    fn advance(&mut self, time: Duration) {
        let to = self.host.now + time;
        if self.has_blocks {
            return self.advance_by_blocks(to);
        }
        while let Some(due) = self.host.watch().deadline().filter(|due| *due <= to) {
            if self.in_order {
                self.deliver_all(due);
                if self.host.watch().deadline() != Some(due) {
                    continue;
                }
            }
            self.host.now = self.host.now.max(due);
            if self.handle_event(&Event::DeadlinePassed).is_none() {
                break;
            }
        }
        self.host.now = to;
        if self.in_order {
            self.deliver_all(to);
        }
    }

    /// With `in_order`, the proxy answers before the next event. A drain may still take for ever.
    fn deliver_all(&mut self, now: Moment) {
        self.host.now = self.host.now.max(now.min(self.host.now + secs(1)));
        for (ticket, effect) in std::mem::take(&mut self.host.pending_effects) {
            let slow = matches!(effect, Effect::Drain(..)) && self.rng.one_in(2);
            match self.host.deliver(ticket, &effect) {
                Some(answer) if !slow => _ = self.handle_event(&answer),
                Some(_) => (),
                None => {
                    let reply = self.effect_result(ticket, &effect);
                    self.answers.extend(reply);
                }
            }
        }
    }

    /// Delivers one effect to the proxy or the executor: once, twice, never, or out of order.
    fn deliver(&mut self) {
        if self.host.pending_effects.is_empty() {
            return;
        }
        let index = self.rng.next_index(self.host.pending_effects.len());
        let (ticket, effect) = if self.rng.one_in(6) {
            self.host.pending_effects[index].clone()
        } else {
            self.host.pending_effects.remove(index)
        };
        // An effect without an awaited answer is one that the daemon carries out itself.
        let awaited = match self.host.watch().phase() {
            Phase::Promoting { .. } | Phase::Returning(_) => true,
            Phase::Emptying(_) => !matches!(effect, Effect::Route(_)),
            _ => matches!(effect, Effect::Assign(..)),
        };
        if awaited && self.rng.one_in(6) {
            return;
        }
        let answer =
            self.host.deliver(ticket, &effect).or_else(|| self.effect_result(ticket, &effect));
        self.answers.extend(answer);
    }

    fn effect_result(&mut self, ticket: Ticket, effect: &Effect) -> Option<Event> {
        match effect {
            Effect::Start(_) if self.rng.one_in(5) => {
                Some(Event::NotReady(ticket, "no".to_owned()))
            }
            Effect::Start(_) => Some(Event::Ready(ticket, self.readiness())),
            Effect::Probe(_) if self.rng.one_in(8) => {
                Some(Event::ArtifactChanged(ticket, "no".to_owned()))
            }
            Effect::Probe(_) if self.rng.one_in(4) => {
                Some(Event::Probed(ticket, ProbeResult::Refused))
            }
            Effect::Probe(_) => Some(Event::Probed(ticket, ProbeResult::Ok)),
            _ => None,
        }
    }

    /// Delivers one answer to the daemon. It may be stale, or arrive twice.
    fn deliver_answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let index = self.rng.next_index(self.answers.len());
        let event = if self.rng.one_in(6) {
            self.answers[index].clone()
        } else {
            self.answers.remove(index)
        };
        self.handle_event(&event);
    }

    fn random_command(&mut self) {
        let because = "so it shall be".to_owned();
        let command = match self.rng.next_below(10) {
            0..=4 => Command::Deploy(DeployRequest {
                version: format!("v{}", self.rng.next_below(30)),
                freeze: self.rng.one_in(8),
                force: self.rng.one_in(3),
                over_breach: self.rng.one_in(2),
                without_net: self.rng.one_in(2),
                restart: self.rng.one_in(2),
                slot: self.slot(),
                ..DeployRequest::default()
            }),
            5 => Command::Rollback { cut: self.rng.one_in(2), force: self.rng.one_in(4), because },
            6 if self.rng.one_in(3) => Command::Hold { because },
            _ => Command::Resume { because },
        };
        if let Ok(Some(entry)) = self.host.command(CommandRequest { by: Actor::default(), command })
        {
            self.after_entry(&entry);
        }
    }

    fn handle_event(&mut self, event: &Event) -> Option<TimelineEntry> {
        let entry = self.host.handle_event(event)?;
        self.after_entry(&entry);
        Some(entry)
    }

    /// The time from detection to the end of the drain is limited while the proxy answers.
    fn after_entry(&mut self, entry: &TimelineEntry) {
        match &entry.event {
            TimelineEvent::Detected { .. } => self.disturbed = false,
            TimelineEvent::Decided { .. } => self.rollbacks += 1,
            TimelineEvent::Stepped { .. } => self.steps += 1,
            TimelineEvent::Drained { .. } | TimelineEvent::Cut { .. } => {
                let (since, _) = self.host.detected.unwrap();
                let took = entry.moment.since(since);
                let policy = &self.host.policy;
                if self.in_order && !self.disturbed {
                    // The simulated proxy answers within a second; a block may take another.
                    let late = secs(if self.has_blocks { 2 } else { 1 });
                    let longest = policy.rollback_timeout + policy.retry_interval + late;
                    assert!(took <= longest, "left after {took:?}");
                }
            }
            _ => (),
        }
    }

    /// Whether nothing happens by itself any more.
    fn rests(&self) -> bool {
        matches!(self.host.watch().phase(), Phase::Empty | Phase::Steady { .. })
            || waits_for_operator(&self.host)
    }

    /// After the faults end, the service becomes steady. The daemon reports where the traffic is.
    fn assert_converges(&mut self) {
        self.host.disk_full = false;
        // Its steps are too coarse for deadlines in time. What could not be recorded is, with a block.
        (self.in_order, self.has_blocks) = (false, true);
        for turn in 0..CONVERGENCE_TURNS_MAX {
            if CONVERGENCE_TURNS <= turn && self.rests() {
                break;
            }
            for (ticket, effect) in std::mem::take(&mut self.host.pending_effects) {
                let answer = self.host.deliver(ticket, &effect).or(match effect {
                    Effect::Start(_) => Some(Event::Ready(ticket, self.readiness())),
                    Effect::Probe(_) => Some(Event::Probed(ticket, ProbeResult::Ok)),
                    _ => None,
                });
                answer.map(|answer| self.handle_event(&answer));
            }
            self.advance_by_blocks(self.host.now + secs(5));
            let judged = match self.host.watch().phase() {
                Phase::Baking { active, .. } => Some(active.number),
                phase => phase.active().map(|active| active.number),
            };
            if self.ramps {
                self.random_step();
            }
            if let Some(active) = judged {
                let finding = Finding::Healthy;
                let verdict = Verdict { release: active, finding, ..self.verdict() };
                self.handle_event(&Event::Judged(verdict, ReleaseLoad::default()));
                self.handle_event(&Event::Recovered(active, "all is well".to_owned()));
            }
        }
        let host = &self.host;
        let phase = host.watch().phase();
        assert!(self.rests(), "never came to rest: {phase:?}");
        assert_eq!(host.releases.routed, phase.active().map(|active| active.number));
        assert_eq!(host.releases.assigned.map(|it| it.1), phase.ramp().map(|it| it.step));
        let needed = phase.required_releases().iter().map(|it| it.number).collect();
        assert_eq!(host.releases.running, needed, "what runs, and what is needed");
    }
}

/// Whether only a guard or a hold prevents the end of a bake.
fn waits_for_operator(host: &SimulatedHost) -> bool {
    match host.watch().phase() {
        Phase::Baking { blocked, .. } => blocked.is_some() || host.watch().hold().is_some(),
        _ => false,
    }
}
