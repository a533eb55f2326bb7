//! An operator's command in, a decision or a refusal out.

use std::fmt;

use crate::decide::phase::Phase;
use crate::decide::watch::Watch;
use crate::model::{
    Actor, Command, CommandRequest, Decision, DeployRequest, Effect, Hold, Moment, Release,
    ReleaseLoad, ReleaseNumber, Slot, Strategy, TimelineEvent, Trigger,
};

/// Why a command changed nothing. Lower-case, fit to follow "refused:".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandRefused {
    /// Another operation has to end first.
    Busy(String),
    /// It would make things worse, or makes no sense now.
    Refused(String),
}

impl Watch {
    /// The decision on a command.
    ///
    /// # Errors
    /// A [`CommandRefused`] when the command does not fit the phase, or a guard blocks it.
    pub fn on_command(
        &self,
        now: Moment,
        request: CommandRequest,
    ) -> Result<Decision, CommandRefused> {
        let CommandRequest { by, command } = request;
        match command {
            Command::Deploy(deploy) => self.on_deploy(now, by, deploy),
            Command::Rollback { cut, force, because } => {
                self.on_rollback(now, by, (cut, force), because)
            }
            Command::Hold { because } => {
                let hold = Hold { by: Some(by), because: because.clone() };
                Ok(self.decide(now, TimelineEvent::Held { hold }, because))
            }
            Command::Resume { because } if self.is_held() => {
                Ok(self.decide(now, TimelineEvent::Resumed { by }, because))
            }
            Command::Resume { .. } => Err(refused("no hold is set")),
        }
    }

    /// Whether a deploy keeps a release that answers. `probe_passed` returns the result of a release's last probe,
    /// if there is one.
    ///
    /// # Errors
    /// A deploy that would stop the last release that answers.
    pub fn keeps_a_healthy_release(
        &self,
        decision: &Decision,
        probe_passed: impl Fn(ReleaseNumber) -> Option<bool>,
    ) -> Result<(), CommandRefused> {
        let active_fails =
            self.phase.active().is_some_and(|it| probe_passed(it.number) == Some(false));
        let stopped_healthy = decision.effects.iter().find_map(|effect| match effect {
            Effect::Retire(release) if probe_passed(release.number) == Some(true) => Some(release),
            _ => None,
        });
        match (stopped_healthy, self.phase.active()) {
            (Some(last), Some(active)) if active_fails => Err(CommandRefused::Refused(format!(
                "{active} does not answer, and {last}, which does, would be stopped to free its slot; \
                 `rollbackd rollback` returns to it, --force stops it"
            ))),
            _ => Ok(()),
        }
    }

    fn on_deploy(
        &self,
        now: Moment,
        by: Actor,
        deploy: DeployRequest,
    ) -> Result<Decision, CommandRefused> {
        // A blocked bake does not end by itself, so a fix may replace it.
        let blocked_bake = match &self.phase {
            Phase::Baking { blocked, .. } => blocked.is_some() || self.is_held(),
            _ => false,
        };
        let idle = matches!(self.phase, Phase::Empty | Phase::Steady { .. });
        if !(idle || blocked_bake && deploy.force) {
            let (phase, number) = (&self.phase, self.deploy);
            let hint = if blocked_bake { "; --force deploys over it" } else { "" };
            return Err(CommandRefused::Busy(format!(
                "deploy {number} is not over: {phase}{hint}"
            )));
        }
        let slot = self.free_slot(deploy.slot)?;
        let DeployRequest {
            version,
            artifact,
            digest,
            environment: set,
            freeze,
            force,
            strict,
            ..
        } = deploy;
        let number = self.next_number();
        let release = Release { version, number, slot, artifact, digest, environment: set };
        let identity = release.quarantine_key();
        if !force && self.quarantine().contains(&identity) {
            return Err(CommandRefused::Refused(format!(
                "{identity} was rolled back before and is in quarantine; --force deploys it again"
            )));
        }
        let because = match self.phase.active() {
            Some(active) => format!("{release} deployed by {by}; {active} keeps the traffic"),
            None => format!("{release} deployed by {by}; it is the first release"),
        };
        let base = Box::new(self.carried_over(now));
        let (frozen, forced) = (freeze, force);
        let fact =
            TimelineEvent::Deployed { release, frozen, forced, strict, by, carried_over: base };
        Ok(self.decide(now, fact, because))
    }

    /// A slot that the active release does not use. The warm release loses its slot if no other is free.
    fn free_slot(&self, wanted: Option<Slot>) -> Result<Slot, CommandRefused> {
        let used = self.phase.active().map(|active| &active.slot);
        let warm = self.phase.warm().map(|warm| &warm.slot);
        let slots = &self.policy.slots;
        match wanted {
            Some(slot) if Some(&slot) == used => Err(CommandRefused::Refused(format!(
                "slot {slot} has the traffic; name another one"
            ))),
            Some(slot) if slots.contains(&slot) => Ok(slot),
            Some(slot) => {
                let known: Vec<_> = slots.iter().map(ToString::to_string).collect();
                Err(CommandRefused::Refused(format!(
                    "no slot {slot}; there are {}",
                    known.join(", ")
                )))
            }
            None => slots
                .iter()
                .find(|slot| Some(*slot) != used && Some(*slot) != warm)
                .or_else(|| slots.iter().find(|slot| Some(*slot) != used))
                .cloned()
                .ok_or_else(|| refused("no free slot")),
        }
    }

    fn on_rollback(
        &self,
        now: Moment,
        by: Actor,
        (cut, forced): (bool, bool),
        because: String,
    ) -> Result<Decision, CommandRefused> {
        match &self.phase {
            Phase::Baking { warm: Some(_), .. } | Phase::Steady { warm: Some(_), .. } => {
                let because = format!("requested by {by}: {because}");
                let strategy = if cut { Strategy::Cut } else { Strategy::Drain };
                let fact = TimelineEvent::Detected {
                    trigger: Trigger::Operator { by, strategy, forced },
                    load: ReleaseLoad::default(),
                };
                Ok(self.decide(now, fact, because))
            }
            Phase::Starting { active: Some(active), new, .. } => {
                let because =
                    format!("{new} aborted by {by}: {because}; {active} kept the traffic");
                Ok(self.decide(now, TimelineEvent::Failed, because))
            }
            Phase::Empty | Phase::Baking { .. } | Phase::Steady { .. } | Phase::Starting { .. } => {
                Err(refused("there is no previous release to roll back to"))
            }
            // Until the proxy reports the route, the release that has the traffic is unknown.
            Phase::Promoting { .. } => {
                Err(CommandRefused::Busy(format!("{}; retry later", self.phase)))
            }
            Phase::Confirming(_)
            | Phase::Reviving(_)
            | Phase::Returning(_)
            | Phase::Emptying(_)
            | Phase::Recovering { .. } => {
                Err(CommandRefused::Busy(format!("a rollback is under way: {}", self.phase)))
            }
        }
    }
}

fn refused(why: &str) -> CommandRefused {
    CommandRefused::Refused(why.to_owned())
}

impl fmt::Display for CommandRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(why) => write!(f, "busy: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}
