//! A world without I/O: the state machine as the daemon drives it, a record in memory, and what
//! lies outside. Everything that must hold after every decision is checked here.
#![expect(unreachable_pub, reason = "shared by tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use rollbackd::decide::{Phase, Policy, Refusal, Watch};
use rollbackd::model::{
    Decision, Effect, Entry, Event, Fact, Guard, Moment, Number, Order, Slot, Ticket, Toll,
};

pub struct World {
    pub now: Moment,
    pub policy: Policy,
    pub watch: Watch,
    /// The newest file of the record: one line a fact.
    pub lines: Vec<String>,
    pub disk_full: bool,
    /// The daemon dies as soon as a decision is written down.
    pub dies: bool,
    pub outside: Outside,
    /// Effects on their way to the proxy and the crew, with their ticket.
    pub sent: Vec<(Ticket, Effect)>,
    /// When the rollback that is under way was detected, and whether a person ordered it.
    pub detected: Option<(Moment, bool)>,
    /// Rollbacks that nobody ordered, of the newest deploy.
    by_itself: u32,
    /// The rollbacks that nobody ordered.
    rollbacks: Vec<Moment>,
    frozen: bool,
    /// Since when the newest bake goes on, since when nothing is known in it, and for how long in all.
    baked: Moment,
    blind: Option<Moment>,
    unseen: Duration,
}

/// What really runs and gets traffic, as opposed to what the daemon believes.
#[derive(Debug, Default)]
pub struct Outside {
    pub routed: Option<Number>,
    pub running: BTreeSet<Number>,
    pub retired: BTreeSet<Number>,
    newest: Ticket,
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn policy() -> Policy {
    Policy {
        observe: false,
        start: secs(60),
        bake: secs(600),
        drain: secs(30),
        latest: secs(120),
        confirm: secs(2),
        retry: secs(1),
        tries: 5,
        recover: secs(60),
        rollbacks_per_day: 3,
        session_cost: 3.0,
        slots: vec![Slot("blue".to_owned()), Slot("green".to_owned())],
    }
}

impl World {
    pub fn new(policy: Policy) -> Self {
        Self {
            now: Moment(0),
            watch: Watch::new(policy.clone()),
            policy,
            lines: Vec::new(),
            disk_full: false,
            dies: false,
            outside: Outside::default(),
            sent: Vec::new(),
            detected: None,
            by_itself: 0,
            rollbacks: Vec::new(),
            frozen: false,
            baked: Moment(0),
            blind: None,
            unseen: Duration::ZERO,
        }
    }

    pub fn order(&mut self, order: Order) -> Result<Option<Entry>, Refusal> {
        let decision = self.watch.order(self.now, order)?;
        Ok(self.commit(decision))
    }

    pub fn happen(&mut self, event: &Event) -> Option<Entry> {
        let decision = self.watch.step(self.now, event)?;
        assert!(!self.stale(event), "{event:?} says nothing now, but: {}", decision.because);
        self.commit(decision)
    }

    /// Whether an event answers an older question, or speaks of another release.
    fn stale(&self, event: &Event) -> bool {
        let phase = self.watch.phase();
        match event {
            Event::Ready(ticket, _)
            | Event::NotReady(ticket, _)
            | Event::Probed(ticket, _)
            | Event::Spoiled(ticket, _)
            | Event::Routed(ticket)
            | Event::Emptied(ticket, _) => *ticket != self.watch.ticket(),
            Event::Judged(verdict, _) => {
                let tried = match phase {
                    Phase::Emptying(back) => Some(&back.bad),
                    _ => phase.active(),
                };
                tried.is_none_or(|tried| tried.number != verdict.release)
            }
            Event::Found(number, ..) | Event::Recovered(number, _) => {
                phase.active().is_none_or(|it| it.number != *number)
            }
            Event::Due => false,
        }
    }

    /// Writes a decision down, then does it; a decision that can not be written down is none.
    pub fn commit(&mut self, decision: Decision) -> Option<Entry> {
        let entry = self.write(&decision)?;
        let before = self.watch.clone();
        self.watch.apply(self.now, &decision.fact);
        self.check(&before, &decision);
        let ticket = self.watch.ticket();
        for effect in decision.then.into_iter().filter(|_| !self.dies) {
            match effect {
                Effect::Keep(release) => self.outside.keep(release.number),
                Effect::Retire(release) | Effect::LetGo(release) => {
                    self.outside.retire(release.number);
                }
                Effect::Page(_) => (),
                Effect::Start(ref release) => {
                    self.outside.keep(release.number);
                    self.sent.push((ticket, effect));
                }
                Effect::Probe(_) | Effect::Route(_) | Effect::Drain(..) | Effect::Cut(_) => {
                    self.sent.push((ticket, effect));
                }
            }
        }
        self.check_outside();
        Some(entry)
    }

    fn write(&mut self, decision: &Decision) -> Option<Entry> {
        if self.disk_full {
            return None;
        }
        let deploy = match &decision.fact {
            Fact::Deployed { release, .. } | Fact::Found { release, .. } => {
                self.lines.clear();
                release.number
            }
            _ => self.watch.deploy(),
        };
        let entry = Entry {
            seq: self.lines.len() as u64 + 1,
            at: "2026-11-22T12:00:00.000000Z".to_owned(),
            moment: self.now,
            ms: self.now.0,
            service: "weather".to_owned(),
            deploy,
            because: decision.because.clone(),
            fact: decision.fact.clone(),
            then: decision.then.iter().map(ToString::to_string).collect(),
        };
        self.lines.push(serde_json::to_string(&entry).unwrap());
        Some(entry)
    }

    /// The proxy or the crew takes an effect; what it answers at once.
    pub fn deliver(&mut self, ticket: Ticket, effect: &Effect) -> Option<Event> {
        if ticket < self.outside.newest {
            return None;
        }
        self.outside.newest = ticket;
        let answer = match effect {
            Effect::Route(release) => {
                self.outside.routed = Some(release.number);
                Some(Event::Routed(ticket))
            }
            Effect::Drain(..) | Effect::Cut(_) => Some(Event::Emptied(ticket, Toll::default())),
            _ => None,
        };
        self.check_outside();
        answer
    }

    fn check(&mut self, before: &Watch, decision: &Decision) {
        let now = self.now;
        match &decision.fact {
            Fact::Deployed { frozen, .. } => (self.frozen, self.by_itself) = (*frozen, 0),
            // The address is the same, whatever it is called: it has the traffic already, and what
            // is still on its way to the proxy is about a release that is no more.
            Fact::Found { release, .. } => {
                (self.frozen, self.by_itself) = (false, 0);
                self.outside.newest = self.watch.ticket();
                self.outside.routed = self.outside.routed.map(|_| release.number);
            }
            Fact::Detected { order, .. } => {
                assert!(order.is_some() || self.may_go_back(before), "{}", decision.because);
                self.detected = Some((now, order.is_some()));
            }
            Fact::Decided { .. } => {
                let (_, ordered) = self.detected.unwrap();
                if !ordered {
                    assert!(self.may_go_back(before), "{}", decision.because);
                    self.by_itself += 1;
                    assert_eq!(self.by_itself, 1, "rolled back twice in one deploy");
                    self.rollbacks.push(now);
                }
            }
            _ => (),
        }
        self.check_bake(&decision.fact);
        for effect in &decision.then {
            let needed = |number| self.watch.phase().release(number).is_some();
            match effect {
                Effect::Retire(it) | Effect::LetGo(it) => {
                    assert!(!needed(it.number), "{it} is retired but needed")
                }
                Effect::Keep(it) | Effect::Start(it) | Effect::Route(it) | Effect::Cut(it) => {
                    assert!(needed(it.number), "{effect}: nothing needs it");
                }
                Effect::Drain(it, _) | Effect::Probe(it) => assert!(needed(it.number), "{effect}"),
                Effect::Page(_) => (),
            }
        }
        // Said to have arrived only when it did.
        if let Fact::Switched { to } = &decision.fact {
            assert_eq!(self.outside.routed, Some(*to), "switched, but the traffic is elsewhere");
        }
    }

    /// A bake lasts as long as was promised, and time without data is no part of it.
    fn check_bake(&mut self, fact: &Fact) {
        match fact {
            Fact::Switched { .. } | Fact::Found { .. } => {
                (self.baked, self.blind, self.unseen) = (self.now, None, Duration::ZERO);
            }
            Fact::Blocked { .. } | Fact::Cleared | Fact::Resumed { .. } => {
                self.unseen += self.blind.map_or(Duration::ZERO, |since| self.now.since(since));
                self.blind = None;
                if let Fact::Blocked { guard: Guard::NoData, .. } = fact {
                    self.blind = Some(self.now);
                }
            }
            Fact::Accepted { .. } if self.watch.phase().warm().is_some() => {
                assert_eq!(self.blind, None, "accepted without data");
                let seen = self.now.since(self.baked).saturating_sub(self.unseen);
                assert!(self.policy.bake <= seen, "accepted after {seen:?} that were seen");
            }
            _ => (),
        }
    }

    /// Whether the daemon may go back by itself.
    fn may_go_back(&self, watch: &Watch) -> bool {
        let today =
            self.rollbacks.iter().filter(|then| self.now.since(**then) < secs(24 * 3600)).count();
        let limit = today < self.policy.rollbacks_per_day;
        watch.hold().is_none() && !self.frozen && !self.policy.observe && limit
    }

    fn check_outside(&self) {
        let phase = self.watch.phase();
        let needed = phase.needed();
        let slots: BTreeSet<_> = needed.iter().map(|release| &release.slot).collect();
        let numbers: BTreeSet<_> = needed.iter().map(|release| release.number).collect();
        assert_eq!(slots.len(), numbers.len(), "two releases in one slot: {needed:?}");
        for release in phase.needed() {
            assert!(
                !self.outside.retired.contains(&release.number),
                "{release} is gone, but {phase}"
            );
        }
        if let Some(routed) = self.outside.routed {
            assert!(phase.release(routed).is_some(), "traffic on {routed}, but {phase}");
        }
    }
}

impl Outside {
    fn keep(&mut self, number: Number) {
        assert!(!self.retired.contains(&number), "{number} was retired and is kept again");
        self.running.insert(number);
    }

    fn retire(&mut self, number: Number) {
        self.running.remove(&number);
        self.retired.insert(number);
    }

    /// The daemon died: what lived inside it is gone, processes are not.
    pub fn crash(&mut self) {
        (self.routed, self.newest) = (None, Ticket(0));
    }

    /// The daemon is back, and stops what nothing needs.
    pub fn tidy(&mut self, needed: &[Number]) {
        let left: Vec<_> =
            self.running.iter().copied().filter(|number| !needed.contains(number)).collect();
        left.into_iter().for_each(|number| self.retire(number));
    }
}
