//! An operator's command in, a decision or a refusal out. A deploy is decided in `deploy`.

use std::fmt;

use crate::decide::phase::Phase;
use crate::decide::watch::Watch;
use crate::model::{
    Actor, Command, CommandRequest, Decision, Effect, Hold, Moment, ReleaseLoad, ReleaseNumber,
    Strategy, TimelineEvent, Trigger, Waiver,
};

/// Why a command changed nothing. Lower-case, fit to follow "refused:".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandRefused {
    /// Another operation has to end first.
    Busy(String),
    /// It would make things worse, or makes no sense now.
    Refused(String),
    /// A guard blocks a deploy that this option lets pass.
    Waivable(Waiver, String),
    /// The release of this deploy is what was asked for.
    Unchanged(ReleaseNumber, String),
}

impl Watch {
    /// The decision on a command. `probe_passed` returns the result of a release's last probe, if
    /// there is one.
    ///
    /// # Errors
    /// A [`CommandRefused`] when the command does not fit the phase, or a guard blocks it.
    pub fn on_command(
        &self,
        now: Moment,
        request: CommandRequest,
        probe_passed: impl Fn(ReleaseNumber) -> Option<bool>,
    ) -> Result<Decision, CommandRefused> {
        let CommandRequest { by, command } = request;
        match command {
            Command::Deploy(deploy) => self.on_deploy(now, by, deploy, probe_passed),
            Command::Rollback { cut, force, because } => {
                self.on_rollback(now, by, (cut, force), because)
            }
            Command::Promote { because } => self.on_promote(now, &by, &because),
            Command::Hold { because } => {
                let hold = Hold { by: Some(by), because: because.clone() };
                Ok(self.decide(now, TimelineEvent::Held { hold }, because))
            }
            Command::Resume { because } if self.is_held() => {
                let because = format!("{because}; {}", self.after_resume(now));
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
            (Some(last), Some(active)) if active_fails => Err(CommandRefused::Waivable(
                Waiver::OverBreach,
                format!(
                    "{active} does not answer, and {last}, which does, would be stopped to free its \
                     slot; `rollbackd rollback` returns to it, --over-breach stops it"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What a resume leads to.
    fn after_resume(&self, now: Moment) -> String {
        let limit = self.policy.rollbacks_per_day_max;
        let mut words = match &self.phase {
            Phase::Baking { active, warm: Some(_), .. } => {
                format!("the evidence about {active} starts again")
            }
            _ => "automatic rollbacks are on".to_owned(),
        };
        if self.rollback_limit_ends_in(now).is_some() {
            words += &format!("; the count of rollbacks ({limit} of {limit}) starts again");
        }
        words
    }

    /// A person's word ends the ramp, or the bake.
    fn on_promote(
        &self,
        now: Moment,
        by: &Actor,
        because: &str,
    ) -> Result<Decision, CommandRefused> {
        match &self.phase {
            Phase::Baking { active, .. } => {
                let because = format!("{active} promoted by {by}: {because}");
                Ok(self.decide(now, TimelineEvent::Accepted { verified: false }, because))
            }
            Phase::Empty | Phase::Steady { .. } => Err(refused("no release is on trial")),
            phase => Err(CommandRefused::Busy(format!("{phase}; promote when it bakes"))),
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

pub(super) fn refused(why: &str) -> CommandRefused {
    CommandRefused::Refused(why.to_owned())
}

impl fmt::Display for CommandRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(why) => write!(f, "busy: {why}"),
            Self::Refused(why) | Self::Waivable(_, why) => write!(f, "refused: {why}"),
            Self::Unchanged(_, what) => f.write_str(what),
        }
    }
}
