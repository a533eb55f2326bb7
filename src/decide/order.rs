//! What a person asks for, and what they are told when it can not be.

use std::fmt;

use crate::model::{
    Actor, Command, Decision, Deploy, Effect, Fact, Hold, Load, Moment, Number, Order, Release,
    Slot, Strategy,
};

use super::{Phase, Watch};

/// Why a command changed nothing. Lower-case, fit to follow "refused:".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Something else has to end first.
    Busy(String),
    /// It would make things worse, or makes no sense now.
    Refused(String),
}

impl Watch {
    /// What a command leads to.
    ///
    /// # Errors
    /// A [`Refusal`] when it does not fit the phase, or a guard stands against it.
    pub fn order(&self, now: Moment, order: Order) -> Result<Decision, Refusal> {
        let Order { by, command } = order;
        match command {
            Command::Deploy(deploy) => self.deploy_now(now, by, deploy),
            Command::Rollback { cut, force, because } => {
                self.roll_back(now, by, (cut, force), because)
            }
            Command::Hold { because } => {
                let hold = Hold { by: Some(by), because: because.clone() };
                Ok(self.decide(now, Fact::Held { hold }, because))
            }
            Command::Resume { because } if self.held() => {
                Ok(self.decide(now, Fact::Resumed { by }, because))
            }
            Command::Resume { .. } => Err(refused("nothing is held")),
        }
    }

    /// Whether a deploy leaves a release that answers. `answers` tells of each what its last probe
    /// said; nothing of one that was not asked yet.
    ///
    /// # Errors
    /// It would stop the last one that does.
    pub fn spares(
        &self,
        decision: &Decision,
        answers: impl Fn(Number) -> Option<bool>,
    ) -> Result<(), Refusal> {
        let active_fails = self.phase.active().is_some_and(|it| answers(it.number) == Some(false));
        let stops = decision.then.iter().find_map(|effect| match effect {
            Effect::Retire(release) if answers(release.number) == Some(true) => Some(release),
            _ => None,
        });
        match (stops, self.phase.active()) {
            (Some(last), Some(active)) if active_fails => Err(Refusal::Refused(format!(
                "{active} does not answer, and {last}, which does, would be stopped to make room; go back to \
                 it with `rollbackd rollback`, or stop it with --force"
            ))),
            _ => Ok(()),
        }
    }

    fn deploy_now(&self, now: Moment, by: Actor, deploy: Deploy) -> Result<Decision, Refusal> {
        // A trial that the daemon will not end may be followed by a fix: nothing else can be done.
        let stuck = match &self.phase {
            Phase::Baking { blocked, .. } => blocked.is_some() || self.held(),
            _ => false,
        };
        let over = matches!(self.phase, Phase::Empty | Phase::Steady { .. });
        if !(over || stuck && deploy.force) {
            let (phase, number) = (&self.phase, self.deploy);
            let way_out = if stuck { "; --force deploys over it" } else { "" };
            return Err(Refusal::Busy(format!("deploy {number} is not over: {phase}{way_out}")));
        }
        let slot = self.free_slot(deploy.slot)?;
        let Deploy { version, artifact, digest, set, freeze, force, strict, .. } = deploy;
        let number = self.next_number();
        let release = Release { version, number, slot, artifact, digest, set };
        let identity = release.identity();
        if !force && self.quarantine().contains(&identity) {
            return Err(Refusal::Refused(format!(
                "{identity} was rolled back before and is in quarantine; --force deploys it again"
            )));
        }
        let because = match self.phase.active() {
            Some(active) => format!("{release} deployed by {by}; {active} keeps the traffic"),
            None => format!("{release} deployed by {by}; it is the first release"),
        };
        let base = Box::new(self.base(now));
        let (frozen, forced) = (freeze, force);
        let fact = Fact::Deployed { release, frozen, forced, strict, by, base };
        Ok(self.decide(now, fact, because))
    }

    /// A slot that the active release does not use; the warm one gives up its own.
    fn free_slot(&self, wanted: Option<Slot>) -> Result<Slot, Refusal> {
        let used = self.phase.active().map(|active| &active.slot);
        let warm = self.phase.warm().map(|warm| &warm.slot);
        let slots = &self.policy.slots;
        match wanted {
            Some(slot) if Some(&slot) == used => {
                Err(Refusal::Refused(format!("slot {slot} has the traffic; name another one")))
            }
            Some(slot) if slots.contains(&slot) => Ok(slot),
            Some(slot) => {
                let known: Vec<_> = slots.iter().map(ToString::to_string).collect();
                Err(Refusal::Refused(format!("no slot {slot}; there are {}", known.join(", "))))
            }
            None => slots
                .iter()
                .find(|slot| Some(*slot) != used && Some(*slot) != warm)
                .or_else(|| slots.iter().find(|slot| Some(*slot) != used))
                .cloned()
                .ok_or_else(|| refused("no free slot")),
        }
    }

    fn roll_back(
        &self,
        now: Moment,
        by: Actor,
        (cut, forced): (bool, bool),
        because: String,
    ) -> Result<Decision, Refusal> {
        match &self.phase {
            Phase::Baking { warm: Some(_), .. } | Phase::Steady { warm: Some(_), .. } => {
                let because = format!("ordered by {by}: {because}");
                let strategy = if cut { Strategy::Cut } else { Strategy::Drain };
                let fact = Fact::Detected {
                    verdict: None,
                    load: Load::default(),
                    order: Some((by, strategy)),
                    forced,
                };
                Ok(self.decide(now, fact, because))
            }
            Phase::Starting { active: Some(active), new, .. } => {
                let because =
                    format!("{new} given up by {by}: {because}; {active} kept the traffic");
                Ok(self.decide(now, Fact::Failed, because))
            }
            Phase::Empty | Phase::Baking { .. } | Phase::Steady { .. } | Phase::Starting { .. } => {
                Err(refused("there is no previous release to go back to"))
            }
            // Until the proxy says where the traffic is, nobody knows what would be left.
            Phase::Promoting { .. } => Err(Refusal::Busy(format!("{}; ask again", self.phase))),
            Phase::Confirming(_)
            | Phase::Reviving(_)
            | Phase::Returning(_)
            | Phase::Emptying(_)
            | Phase::Recovering { .. } => {
                Err(Refusal::Busy(format!("a rollback is under way: {}", self.phase)))
            }
        }
    }
}

fn refused(why: &str) -> Refusal {
    Refusal::Refused(why.to_owned())
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(why) => write!(f, "busy: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}
