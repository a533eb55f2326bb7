//! Thousands of random days. A failure prints its seed; `SEED=n cargo sim` replays it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "support/dice.rs"]
mod dice;
#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use dice::Dice;
use rollbackd::decide::{Phase, Watch};
use rollbackd::model::{
    Actor, Command, Deploy, Effect, Entry, Event, Fact, Finding, Load, Moment, Number, Order,
    Reply, Severity, Slot, Ticket, Verdict,
};
use world::{World, policy, secs};

const DAYS: u64 = 3_000;
const EVENTS: u64 = 300;

#[test]
fn random_days_keep_the_promises() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..DAYS,
    };
    let mut rollbacks = 0;
    for seed in seeds.clone() {
        match std::panic::catch_unwind(|| Day::new(seed).live()) {
            Ok(seen) => rollbacks += seen,
            Err(_) => panic!("failed: SEED={seed} cargo sim"),
        }
    }
    // Days on which nothing happens would prove nothing.
    let days = seeds.end - seeds.start;
    assert!(days == 1 || days / 3 < rollbacks, "{rollbacks} rollbacks in {days} days");
}

struct Day {
    dice: Dice,
    world: World,
    /// Answers on their way to the daemon.
    answers: Vec<Event>,
    /// Effects and answers come in order, in time, and once.
    orderly: bool,
    /// The daemon or its disk failed since the last finding.
    disturbed: bool,
    rollbacks: u64,
    /// The record missed a restart, so deadlines may differ by it.
    unrecorded: bool,
}

impl Day {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut policy = policy();
        policy.observe = dice.one_in(12);
        policy.rollbacks_per_day = 1 + dice.roll(4) as usize;
        policy.start = secs(20 + dice.roll(90));
        policy.drain = secs(dice.roll(121));
        if dice.one_in(3) {
            policy.slots.push(Slot("red".to_owned()));
        }
        let orderly = dice.one_in(3);
        let world = World::new(policy);
        Self {
            dice,
            world,
            answers: Vec::new(),
            orderly,
            disturbed: false,
            rollbacks: 0,
            unrecorded: false,
        }
    }

    fn live(mut self) -> u64 {
        let crashes = if self.dice.one_in(4) { 0 } else { 10 + self.dice.roll(50) };
        for _ in 0..EVENTS {
            let longest = if self.dice.one_in(120) { 1_200_000 } else { 3_000 };
            let step = 1 + self.dice.roll(longest);
            self.wait(Duration::from_millis(step));
            self.world.disk_full = self.dice.one_in(15);
            self.disturbed |= self.world.disk_full;
            self.something();
            if crashes > 0 && self.dice.one_in(crashes) {
                self.crash();
            }
        }
        self.settle();
        self.rollbacks
    }

    fn something(&mut self) {
        match self.dice.roll(12) {
            0..=3 => self.deliver(),
            4..=6 => self.answer(),
            7 => self.order(),
            8 if self.dice.one_in(8) => {
                let (number, named) = (self.number(), format!("weather v{}", self.dice.roll(30)));
                self.happen(&Event::Found(number, Some(named), "the dice say so".to_owned()));
            }
            11 => {
                let number = self.number();
                self.happen(&Event::Recovered(number, "the dice say so".to_owned()));
            }
            _ => {
                let (verdict, load) = (self.verdict(), self.load());
                let measured = verdict.finding == Finding::Measuring;
                let before = self.world.lines.len();
                self.happen(&Event::Judged(verdict, load));
                let lines = self.world.lines.len();
                assert!(!measured || lines == before, "decided before anybody is to blame");
            }
        }
    }

    /// Time passes; deadlines are met on the way, or late.
    fn wait(&mut self, time: Duration) {
        let to = self.world.now + time;
        while let Some(due) = self.world.watch.deadline().filter(|due| *due <= to) {
            if self.orderly {
                self.deliver_all(due);
                if self.world.watch.deadline() != Some(due) {
                    continue;
                }
            }
            self.world.now = self.world.now.max(due);
            if self.happen(&Event::Due).is_none() {
                break;
            }
        }
        self.world.now = to;
        if self.orderly {
            self.deliver_all(to);
        }
    }

    /// An orderly proxy answers before anything else happens, but requests may take for ever.
    fn deliver_all(&mut self, now: Moment) {
        self.world.now = self.world.now.max(now.min(self.world.now + secs(1)));
        for (ticket, effect) in std::mem::take(&mut self.world.sent) {
            let slow = matches!(effect, Effect::Drain(..)) && self.dice.one_in(2);
            match self.world.deliver(ticket, &effect) {
                Some(answer) if !slow => _ = self.happen(&answer),
                Some(_) => (),
                None => {
                    let reply = self.reply(ticket, &effect);
                    self.answers.extend(reply);
                }
            }
        }
    }

    /// The proxy or the crew takes one effect, lost, twice, or out of order.
    fn deliver(&mut self) {
        if self.world.sent.is_empty() {
            return;
        }
        let index = self.dice.below(self.world.sent.len());
        let (ticket, effect) = if self.dice.one_in(6) {
            self.world.sent[index].clone()
        } else {
            self.world.sent.remove(index)
        };
        // Where nobody waits for an answer, the effect is one that the daemon carries out itself.
        let awaited = match self.world.watch.phase() {
            Phase::Promoting { .. } | Phase::Returning(_) => true,
            Phase::Emptying(_) => !matches!(effect, Effect::Route(_)),
            _ => false,
        };
        if awaited && self.dice.one_in(6) {
            return;
        }
        let answer = self.world.deliver(ticket, &effect).or_else(|| self.reply(ticket, &effect));
        self.answers.extend(answer);
    }

    fn reply(&mut self, ticket: Ticket, effect: &Effect) -> Option<Event> {
        match effect {
            Effect::Start(_) if self.dice.one_in(5) => {
                Some(Event::NotReady(ticket, "no".to_owned()))
            }
            Effect::Start(_) => Some(Event::Ready(ticket, Box::default())),
            Effect::Probe(_) if self.dice.one_in(8) => {
                Some(Event::Spoiled(ticket, "no".to_owned()))
            }
            Effect::Probe(_) if self.dice.one_in(4) => Some(Event::Probed(ticket, Reply::Refused)),
            Effect::Probe(_) => Some(Event::Probed(ticket, Reply::Ok)),
            _ => None,
        }
    }

    /// The daemon hears one answer, maybe twice, maybe an old one.
    fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let index = self.dice.below(self.answers.len());
        let event = if self.dice.one_in(6) {
            self.answers[index].clone()
        } else {
            self.answers.remove(index)
        };
        self.happen(&event);
    }

    fn order(&mut self) {
        let because = "so it shall be".to_owned();
        let command = match self.dice.roll(10) {
            0..=4 => Command::Deploy(Deploy {
                version: format!("v{}", self.dice.roll(30)),
                freeze: self.dice.one_in(8),
                force: self.dice.one_in(2),
                slot: self.slot(),
                ..Deploy::default()
            }),
            5 => {
                Command::Rollback { cut: self.dice.one_in(2), force: self.dice.one_in(4), because }
            }
            6 if self.dice.one_in(3) => Command::Hold { because },
            _ => Command::Resume { because },
        };
        // A refusal is an answer, too.
        if let Ok(Some(entry)) = self.world.order(Order { by: Actor::default(), command }) {
            self.followed(&entry);
        }
    }

    fn happen(&mut self, event: &Event) -> Option<Entry> {
        let entry = self.world.happen(event)?;
        self.followed(&entry);
        Some(entry)
    }

    /// From the finding to the end of the drain there is a limit, while the proxy answers.
    fn followed(&mut self, entry: &Entry) {
        match &entry.fact {
            Fact::Detected { .. } => self.disturbed = false,
            Fact::Decided { .. } => self.rollbacks += 1,
            Fact::Drained { .. } | Fact::Cut { .. } => {
                let (since, _) = self.world.detected.unwrap();
                let took = entry.moment.since(since);
                let policy = &self.world.policy;
                if self.orderly && !self.disturbed {
                    assert!(took <= policy.latest + policy.retry, "left after {took:?}");
                }
            }
            _ => (),
        }
    }

    /// The daemon dies at any moment, and reads its record when it is back.
    fn crash(&mut self) {
        // Also between writing a decision down and doing anything about it.
        self.world.dies = self.dice.one_in(2);
        self.something();
        let longest = if self.dice.one_in(5) { 3_600_000 } else { 5_000 };
        let down = 1 + self.dice.roll(longest);
        let world = &mut self.world;
        world.dies = false;
        (world.sent, self.answers) = (Vec::new(), Vec::new());
        self.disturbed = true;
        world.outside.crash();
        world.now = world.now + Duration::from_millis(down);
        let entries: Vec<Entry> =
            world.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let restored = Watch::restore(world.policy.clone(), &entries, world.now);
        assert_eq!(state(&restored), state(&world.watch), "restored, and before the crash");
        if let (Some(is), Some(was)) = (restored.deadline(), world.watch.deadline()) {
            assert!(was <= is || self.unrecorded, "the deadline {was} came nearer: {is}");
        }
        world.watch = restored;
        let needed: Vec<_> = world.watch.phase().needed().iter().map(|it| it.number).collect();
        world.outside.tidy(&needed);
        if *world.watch.phase() == Phase::Empty {
            return;
        }
        let decision = world.watch.restored(world.now, 0);
        if world.commit(decision).is_none() {
            self.unrecorded = true;
            world.disk_full = false;
            let decision = world.watch.restored(world.now, 0);
            world.commit(decision);
        }
    }

    fn slot(&mut self) -> Option<Slot> {
        let named = self.dice.one_in(3).then(|| ["blue", "green", "pink"][self.dice.below(3)]);
        named.map(|name| Slot(name.to_owned()))
    }

    fn number(&mut self) -> Number {
        let newest = self.world.watch.deploy().0;
        let back = if self.dice.one_in(3) { self.dice.roll(3) as u32 } else { 0 };
        Number(newest.saturating_sub(back))
    }

    fn verdict(&mut self) -> Verdict {
        let finding = match self.dice.roll(10) {
            0..=2 => Finding::Healthy,
            3 => Finding::Undecided,
            8 => Finding::NoData,
            9 => Finding::Measuring,
            4 => Finding::SharedOutage,
            5 => Finding::Breach(Severity::Degraded),
            6 => Finding::Breach(Severity::Critical),
            _ => Finding::Breach(Severity::Down),
        };
        let share = self.dice.roll(101) as f64 / 100.0;
        Verdict {
            release: self.number(),
            finding,
            because: "the dice say so".to_owned(),
            onset: self.world.now - secs(self.dice.roll(30)),
            failing: share,
            rate: 100.0 * share,
        }
    }

    fn load(&mut self) -> Load {
        let sessions = self.dice.roll(200);
        Load {
            sessions,
            bound: sessions,
            in_flight: self.dice.roll(50),
            rate: self.dice.roll(1_000) as f64 / 7.0,
            life: self.dice.roll(600) as f64,
        }
    }

    /// Once faults stop, the service comes to rest, and the traffic is where the daemon says.
    fn settle(&mut self) {
        self.world.disk_full = false;
        for _ in 0..240 {
            for (ticket, effect) in std::mem::take(&mut self.world.sent) {
                let answer = self.world.deliver(ticket, &effect).or(match effect {
                    Effect::Start(_) => Some(Event::Ready(ticket, Box::default())),
                    Effect::Probe(_) => Some(Event::Probed(ticket, Reply::Ok)),
                    _ => None,
                });
                answer.map(|answer| self.happen(&answer));
            }
            self.world.now = self.world.now + secs(5);
            self.happen(&Event::Due);
            if let Some(active) = self.world.watch.phase().active().map(|active| active.number) {
                let finding = Finding::Healthy;
                let verdict = Verdict { release: active, finding, ..self.verdict() };
                self.happen(&Event::Judged(verdict, Load::default()));
                self.happen(&Event::Recovered(active, "all is well".to_owned()));
            }
        }
        let world = &self.world;
        let phase = world.watch.phase();
        let rests = matches!(phase, Phase::Empty | Phase::Steady { .. });
        assert!(rests || waits_for_a_person(world), "never came to rest: {phase:?}");
        assert_eq!(world.outside.routed, phase.active().map(|active| active.number));
        let needed = phase.needed().iter().map(|it| it.number).collect();
        assert_eq!(world.outside.running, needed, "what runs, and what is needed");
    }
}

/// Whether only a guard or a person keeps a trial from its end.
fn waits_for_a_person(world: &World) -> bool {
    match world.watch.phase() {
        Phase::Baking { blocked, .. } => blocked.is_some() || world.watch.hold().is_some(),
        _ => false,
    }
}

/// Everything a watch knows, but for what a restart may change: deadlines and the ticket.
fn state(watch: &Watch) -> String {
    let mut text = format!("{watch:#?}");
    for field in ["until: Moment(", "blind: Some(", "ticket: Ticket("] {
        let parts: Vec<_> = text.split(field).map(str::to_owned).collect();
        let rest = parts.iter().skip(1).map(|it| it.split_once(')').unwrap().1);
        text = parts[0].clone() + &rest.collect::<String>();
    }
    text
}
