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

mod commands;
mod events;
mod phase;
mod strategy;
mod transitions;

use std::time::Duration;

pub use phase::{PendingRollback, Phase, Rollback};
pub use strategy::{StrategyChoice, choose_strategy};

pub use crate::decide::commands::CommandRefused;
use crate::model::{
    CarriedOver, Decision, Effect, Hold, Moment, ReleaseNumber, Ticket, TimelineEvent,
};

/// What the operator chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Decide and record, but never roll back.
    pub observe: bool,
    /// How long a new release may take to become ready.
    pub start_timeout: Duration,
    /// How long a new release is watched while the old one stays warm.
    pub bake: Duration,
    /// How long requests in flight may take to finish.
    pub drain_timeout: Duration,
    /// From the verdict to the end of the drain, at most.
    pub rollback_timeout: Duration,
    /// How long the warm release may take to answer before a rollback.
    pub target_check_timeout: Duration,
    /// How long to wait for the proxy before asking again; doubles each time.
    pub retry_interval: Duration,
    /// How often to ask before a person is woken.
    pub page_after_tries: u32,
    /// How long to wait for the promise to be kept again before a person is woken.
    pub recovery_timeout: Duration,
    /// Rollbacks in 24 hours; at the limit a person is woken instead.
    pub rollbacks_per_day_max: usize,
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
    carried_over: CarriedOver,
    deploy: ReleaseNumber,
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
            carried_over: CarriedOver::default(),
            deploy: ReleaseNumber(0),
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
        self.carried_over.hold.as_ref()
    }

    /// Identities of releases that were rolled back and need `--force`.
    pub fn quarantine(&self) -> &[String] {
        &self.carried_over.quarantine
    }

    /// The newest deploy.
    pub fn deploy(&self) -> ReleaseNumber {
        self.deploy
    }

    /// The ticket of the newest effects; an answer to an older one is refused.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// When to send [`crate::model::Event::DeadlinePassed`].
    pub fn deadline(&self) -> Option<Moment> {
        self.phase
            .deadline()
            .filter(|_| !(self.is_held() && matches!(self.phase, Phase::Baking { .. })))
    }

    /// Takes new settings; deadlines that run already stay.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The first decision after a restart: what the phase asks of the world is asked again.
    pub fn restored(&self, now: Moment, truncated_bytes: u64) -> Decision {
        self.restored_by("rollbackd started", now, truncated_bytes)
    }

    /// The same; `source` begins a sentence.
    pub fn restored_by(&self, source: &str, now: Moment, truncated_bytes: u64) -> Decision {
        let cut = if truncated_bytes > 0 {
            format!("; an incomplete last line of {truncated_bytes} bytes was cut off")
        } else {
            String::new()
        };
        let because = format!("{source} and read the timeline: {}{cut}", self.phase);
        self.decide(now, TimelineEvent::Restored { truncated_bytes }, because)
    }

    fn is_held(&self) -> bool {
        self.carried_over.hold.is_some()
    }

    /// A decision: the fact, and what follows from the phase that it leads to.
    fn decide(&self, now: Moment, fact: TimelineEvent, because: String) -> Decision {
        let mut after = self.clone();
        after.apply(now, &fact);
        let still_required = after.phase.required_releases();
        let replaced_in_place = matches!(fact, TimelineEvent::Replaced { .. });
        let previously_required = self.phase.required_releases().into_iter().cloned();
        // First, so that a slot is free before the next release starts in it.
        let mut effects: Vec<_> = previously_required
            .filter(|old| !still_required.iter().any(|new| new.number == old.number))
            .map(if replaced_in_place { Effect::Detach } else { Effect::Retire })
            .collect();
        if after.ticket != self.ticket {
            effects.extend(after.phase.effects());
        }
        Decision { because, event: fact, effects }
    }
}
