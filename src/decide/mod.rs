//! The state machine: an event in, a decision out. Pure: no clock, no network, no disk.
//!
//! ```text
//!            deploy              ready                 routed
//!  Steady ----------> Starting --------> Promoting -------------> Baking --accepted--> Steady
//!    ^                   |                   |                      |
//!    |<-----failed-------+                   +------- breach -------+   (or an operator)
//!    |                                                  v
//!    |<-----abandoned---- Reviving <--no answer-- Confirming (does the warm release answer?)
//!    |                       |                          |
//!    |                       +----------+---------------+
//!    |                                  v
//!    +--recovered-- Recovering <-- Emptying <--routed-- Returning
//! ```
//!
//! What is found in the slot of the active release without having been deployed leads from Steady and
//! Baking to Baking, as a deploy of its own.
//!
//! A hold by a person leads from Confirming and Reviving back to Baking, unless a person ordered
//! the rollback.
//!
//! [`Watch::order`] and [`Watch::step`] look and decide; [`Watch::apply`] is the only way the state
//! moves, and it moves by the facts that the timeline holds. So a service is restored by applying
//! its timeline, and a decision that could not be written down has not happened.

mod fold;
mod order;
mod phase;
mod step;
mod strategy;

use std::time::Duration;

use crate::model::{Base, Decision, Effect, Fact, Hold, Moment, Number, Ticket};

pub use order::Refusal;
pub use phase::{Breach, Phase, Return};
pub use strategy::{Choice, choose};

/// What the operator chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Decide and record, but never roll back.
    pub observe: bool,
    /// How long a new release may take to become ready.
    pub start: Duration,
    /// How long a new release is watched while the old one stays warm.
    pub bake: Duration,
    /// How long requests in flight may take to finish.
    pub drain: Duration,
    /// From the verdict to the end of the drain, at most.
    pub latest: Duration,
    /// How long the warm release may take to answer before a rollback.
    pub confirm: Duration,
    /// How long to wait for the proxy before asking again; doubles each time.
    pub retry: Duration,
    /// How often to ask before a person is woken.
    pub tries: u32,
    /// How long to wait for the promise to be kept again before a person is woken.
    pub recover: Duration,
    /// Rollbacks in 24 hours; at the limit a person is woken instead.
    pub rollbacks_per_day: usize,
    /// What breaking a session costs, in failed requests.
    pub session_cost: f64,
    /// The slots, in the order in which they are filled.
    pub slots: Vec<crate::model::Slot>,
}

/// One service and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    policy: Policy,
    phase: Phase,
    since: Moment,
    base: Base,
    deploy: Number,
    frozen: bool,
    forced: bool,
    strict: bool,
    ticket: Ticket,
}

impl Watch {
    /// A service of which nothing is known.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            phase: Phase::Empty,
            since: Moment(0),
            base: Base::default(),
            deploy: Number(0),
            frozen: false,
            forced: false,
            strict: false,
            ticket: Ticket(0),
        }
    }

    /// Where the service stands now.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Since when it stands there.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// The hold on it, if there is one.
    pub fn hold(&self) -> Option<&Hold> {
        self.base.hold.as_ref()
    }

    /// Identities of releases that were rolled back and need `--force`.
    pub fn quarantine(&self) -> &[String] {
        &self.base.quarantine
    }

    /// The newest deploy.
    pub fn deploy(&self) -> Number {
        self.deploy
    }

    /// The ticket of the newest effects; an answer to an older one is refused.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// When to send [`crate::model::Event::Due`].
    pub fn deadline(&self) -> Option<Moment> {
        self.phase
            .deadline()
            .filter(|_| !(self.held() && matches!(self.phase, Phase::Baking { .. })))
    }

    /// Takes new settings; deadlines that run already stay.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The first decision after a restart: what the phase asks of the world is asked again.
    pub fn restored(&self, now: Moment, torn: u64) -> Decision {
        self.restored_by("rollbackd started", now, torn)
    }

    /// The same; `who` begins a sentence.
    pub fn restored_by(&self, who: &str, now: Moment, torn: u64) -> Decision {
        let cut = if torn > 0 {
            format!("; an incomplete last line of {torn} bytes was cut off")
        } else {
            String::new()
        };
        let because = format!("{who} and read the timeline: {}{cut}", self.phase);
        self.decide(now, Fact::Restored { torn }, because)
    }

    fn held(&self) -> bool {
        self.base.hold.is_some()
    }

    /// A decision: the fact, and what follows from the phase that it leads to.
    fn decide(&self, now: Moment, fact: Fact, because: String) -> Decision {
        let mut after = self.clone();
        after.apply(now, &fact);
        let needed = after.phase.needed();
        let exchanged = matches!(fact, Fact::Found { .. });
        let gone = self.phase.needed().into_iter().cloned();
        // First, so that a slot is free before the next release starts in it.
        let mut then: Vec<_> = gone
            .filter(|old| !needed.iter().any(|new| new.number == old.number))
            .map(if exchanged { Effect::LetGo } else { Effect::Retire })
            .collect();
        if after.ticket != self.ticket {
            then.extend(after.phase.effects());
        }
        Decision { because, fact, then }
    }
}
