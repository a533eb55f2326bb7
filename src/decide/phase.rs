//! The phases of a service. Each variant holds what only that phase needs.

use std::fmt;

use crate::decide::after_bake::SteadyWatch;
use crate::decide::ramp::Ramp;
use crate::decide::strategy::StrategyChoice;
use crate::model::{
    Effect, Guard, JudgeTarget, Moment, Release, ReleaseLoad, ReleaseNumber, Strategy,
    TimelineEvent, Trigger,
};

/// The phase of a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Nothing was ever deployed.
    Empty,
    /// One release has the traffic and nothing is on trial.
    Steady {
        /// It has the traffic.
        active: Release,
        /// The release before it, still running.
        warm: Option<Release>,
        /// Whether it is watched, and what that found.
        watch: SteadyWatch,
    },
    /// A new release starts and has to prove itself ready; the traffic stays where it is.
    Starting {
        /// It has the traffic.
        active: Option<Release>,
        /// The release before the active one, where the new release has a slot of its own. If the new
        /// one fails to start, it is still there.
        warm: Option<Release>,
        /// It starts.
        new: Release,
        /// When the start times out.
        until: Moment,
    },
    /// The proxy has the order to route to the new release and has not confirmed it yet.
    Promoting {
        /// It loses the traffic.
        from: Option<Release>,
        /// It gets the traffic.
        to: Release,
        /// When to retry.
        until: Moment,
        /// How many times the proxy got the order.
        tries: u32,
        /// The part of the traffic that it gets. None: all.
        ramp: Option<Ramp>,
    },
    /// A new release has the traffic, or a part of it, and is on trial.
    Baking {
        /// It is on trial.
        active: Release,
        /// It can take the traffic back at any moment. During a ramp it is the control, and has the rest.
        warm: Option<Release>,
        /// When the bake ends.
        until: Moment,
        /// A rule that blocks a rollback.
        blocked: Option<Guard>,
        /// Since when its data is missing; that time is added to the bake.
        no_data_since: Option<Moment>,
        /// The part of the traffic that it has. None: all.
        ramp: Option<Ramp>,
    },
    /// A rollback is due, and a probe asks the previous release whether it can take over.
    Confirming(PendingRollback),
    /// The previous release did not answer and restarts.
    Reviving(PendingRollback),
    /// The proxy has the order to route to the previous release and has not confirmed it yet.
    Returning(Rollback),
    /// New work goes to the previous release; work in flight on the bad one may finish.
    Emptying(Rollback),
    /// The bad release has nothing in flight; the previous one has to meet its objectives again.
    Recovering {
        /// It has the traffic.
        active: Release,
        /// It is stopped at the end.
        bad: Release,
        /// When to stop waiting.
        until: Moment,
    },
}

/// A rollback that waits for its target.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingRollback {
    /// It has to go.
    pub bad: Release,
    /// It takes over.
    pub warm: Release,
    /// What started it.
    pub trigger: Trigger,
    /// The load of the release at detection.
    pub load: ReleaseLoad,
    /// When the rollback has to be complete.
    pub complete_by: Moment,
    /// When to stop waiting for the target.
    pub until: Moment,
    /// The part of the traffic that the bad release has meanwhile. None: all.
    pub ramp: Option<Ramp>,
}

/// Traffic on its way back.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollback {
    /// It loses the traffic.
    pub bad: Release,
    /// It gets the traffic.
    pub to: Release,
    /// How.
    pub strategy: Strategy,
    /// When a drain ends.
    pub drain_until: Moment,
    /// When to retry.
    pub until: Moment,
    /// How many times the proxy got the order.
    pub tries: u32,
}

impl Phase {
    /// The effects that establish the phase, when it begins and again after a restart.
    pub fn effects(&self) -> Vec<Effect> {
        match self.clone() {
            Self::Empty => Vec::new(),
            Self::Baking { active, warm: Some(control), ramp: Some(ramp), .. } => {
                assigned(active, control, ramp)
            }
            Self::Steady { active, warm, .. } | Self::Baking { active, warm, .. } => {
                let kept = std::iter::once(active.clone()).chain(warm).map(Effect::KeepRunning);
                kept.chain([Effect::Route(active)]).collect()
            }
            Self::Starting { active, warm, new, .. } => {
                let kept = active
                    .into_iter()
                    .flat_map(|it| [Effect::KeepRunning(it.clone()), Effect::Route(it)]);
                let warm = warm.map(Effect::KeepRunning);
                kept.chain(warm).chain([Effect::Start(new)]).collect()
            }
            Self::Promoting { from: Some(control), to, ramp: Some(ramp), .. } => {
                assigned(to, control, ramp)
            }
            Self::Promoting { from, to, .. } => {
                let kept = from.into_iter().map(Effect::KeepRunning);
                kept.chain([Effect::KeepRunning(to.clone()), Effect::Route(to)]).collect()
            }
            Self::Confirming(PendingRollback { bad, warm, ramp: Some(ramp), .. }) => {
                let mut effects = assigned(bad, warm.clone(), ramp);
                effects.push(Effect::Probe(warm));
                effects
            }
            Self::Reviving(PendingRollback { bad, warm, ramp: Some(ramp), .. }) => {
                let mut effects = assigned(bad, warm.clone(), ramp);
                effects.push(Effect::Start(warm));
                effects
            }
            Self::Confirming(PendingRollback { bad, warm, .. }) => {
                let kept = [
                    Effect::KeepRunning(bad.clone()),
                    Effect::Route(bad),
                    Effect::KeepRunning(warm.clone()),
                ];
                kept.into_iter().chain([Effect::Probe(warm)]).collect()
            }
            Self::Reviving(PendingRollback { bad, warm, .. }) => {
                vec![Effect::KeepRunning(bad.clone()), Effect::Route(bad), Effect::Start(warm)]
            }
            Self::Returning(back) | Self::Emptying(back) => {
                let drain_or_cut = match back.strategy {
                    Strategy::Drain => Effect::Drain(back.bad, back.drain_until),
                    Strategy::Cut => Effect::Cut(back.bad),
                };
                vec![Effect::KeepRunning(back.to.clone()), Effect::Route(back.to), drain_or_cut]
            }
            Self::Recovering { active, .. } => {
                vec![Effect::KeepRunning(active.clone()), Effect::Route(active)]
            }
        }
    }

    /// The releases that the judge observes on trial, and during a rollback.
    pub(super) fn judge_target(&self) -> JudgeTarget {
        match self {
            Self::Empty | Self::Steady { .. } | Self::Starting { .. } | Self::Promoting { .. } => {
                JudgeTarget::Nothing
            }
            Self::Baking { active, warm, .. } => {
                let warm = warm.as_ref().map(|warm| warm.number);
                JudgeTarget::Trial { active: active.number, warm }
            }
            Self::Confirming(_) | Self::Reviving(_) | Self::Returning(_) => JudgeTarget::Unchanged,
            Self::Emptying(back) => JudgeTarget::Rollback { to: back.to.number },
            Self::Recovering { active, .. } => JudgeTarget::Recovery { active: active.number },
        }
    }

    /// The release that may have to go again, from before it gets traffic until it is accepted.
    pub fn on_trial(&self) -> Option<ReleaseNumber> {
        match self {
            Self::Promoting { from: Some(_), to: new, .. }
            | Self::Baking { active: new, warm: Some(_), .. } => Some(new.number),
            Self::Confirming(breach) | Self::Reviving(breach) => Some(breach.bad.number),
            Self::Returning(back) | Self::Emptying(back) => Some(back.bad.number),
            Self::Promoting { from: None, .. }
            | Self::Baking { warm: None, .. }
            | Self::Empty
            | Self::Steady { .. }
            | Self::Starting { .. }
            | Self::Recovering { .. } => None,
        }
    }

    /// The part of the subjects that is on trial, while both releases have traffic.
    pub fn ramp(&self) -> Option<&Ramp> {
        match self {
            Self::Promoting { ramp, .. } | Self::Baking { ramp, .. } => ramp.as_ref(),
            Self::Confirming(breach) | Self::Reviving(breach) => breach.ramp.as_ref(),
            _ => None,
        }
    }

    /// The release on trial, and the control, while both have traffic.
    fn arms(&self) -> Option<(&Release, &Release)> {
        match self {
            Self::Baking { active, warm: Some(control), ramp: Some(_), .. } => {
                Some((active, control))
            }
            Self::Confirming(breach) | Self::Reviving(breach) if breach.ramp.is_some() => {
                Some((&breach.bad, &breach.warm))
            }
            _ => None,
        }
    }

    /// The release that has the traffic, as far as is confirmed. During a ramp it is the control.
    pub fn active(&self) -> Option<&Release> {
        if let Some((_, control)) = self.arms() {
            return Some(control);
        }
        match self {
            Self::Empty => None,
            Self::Steady { active, .. }
            | Self::Baking { active, .. }
            | Self::Recovering { active, .. } => Some(active),
            Self::Starting { active, .. } | Self::Promoting { from: active, .. } => active.as_ref(),
            Self::Confirming(breach) | Self::Reviving(breach) => Some(&breach.bad),
            Self::Returning(back) => Some(&back.bad),
            Self::Emptying(back) => Some(&back.to),
        }
    }

    /// The release that is kept running beside the active one and could take over.
    pub fn warm(&self) -> Option<&Release> {
        if self.arms().is_some() {
            return None;
        }
        match self {
            Self::Steady { warm, .. } | Self::Starting { warm, .. } | Self::Baking { warm, .. } => {
                warm.as_ref()
            }
            Self::Confirming(breach) | Self::Reviving(breach) => Some(&breach.warm),
            Self::Promoting { from, .. } => from.as_ref(),
            Self::Returning(back) => Some(&back.to),
            Self::Empty | Self::Emptying(_) | Self::Recovering { .. } => None,
        }
    }

    /// Every release that must not be stopped.
    pub fn required_releases(&self) -> Vec<&Release> {
        let other = match self {
            Self::Starting { new, .. } => Some(new),
            Self::Promoting { to, .. } => Some(to),
            Self::Emptying(back) => Some(&back.bad),
            Self::Recovering { bad, .. } => Some(bad),
            _ if self.arms().is_some() => self.arms().map(|(on_trial, _)| on_trial),
            Self::Empty
            | Self::Steady { .. }
            | Self::Baking { .. }
            | Self::Confirming(_)
            | Self::Reviving(_)
            | Self::Returning(_) => None,
        };
        [self.active(), self.warm(), other].into_iter().flatten().collect()
    }

    /// The release with this number, if the phase still knows it.
    pub fn release(&self, number: ReleaseNumber) -> Option<&Release> {
        self.required_releases().into_iter().find(|release| release.number == number)
    }

    /// When to send [`crate::model::Event::DeadlinePassed`].
    pub fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Empty | Self::Steady { .. } | Self::Baking { blocked: Some(_), .. } => None,
            Self::Starting { until, .. }
            | Self::Promoting { until, .. }
            | Self::Baking { until, .. }
            | Self::Recovering { until, .. } => Some(*until),
            Self::Confirming(breach) | Self::Reviving(breach) => Some(breach.until),
            Self::Returning(back) | Self::Emptying(back) => Some(back.until),
        }
    }

    /// Moves every deadline by the time in which the daemon did not run.
    pub(super) fn shift_deadlines(&mut self, shift: std::time::Duration) {
        match self {
            Self::Empty | Self::Steady { .. } => (),
            Self::Baking { until, no_data_since: blind, .. } => {
                *until = *until + shift;
                *blind = blind.map(|since| since + shift);
            }
            Self::Starting { until, .. }
            | Self::Promoting { until, .. }
            | Self::Recovering { until, .. } => *until = *until + shift,
            Self::Confirming(breach) | Self::Reviving(breach) => {
                breach.until = breach.until + shift
            }
            Self::Returning(back) | Self::Emptying(back) => back.until = back.until + shift,
        }
    }

    /// The phase in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Steady { .. } => "steady",
            Self::Starting { .. } => "starting",
            Self::Promoting { .. } => "promoting",
            Self::Baking { .. } => "baking",
            Self::Confirming(_) => "confirming",
            Self::Reviving(_) => "reviving",
            Self::Returning(_) => "returning",
            Self::Emptying(_) => "emptying",
            Self::Recovering { .. } => "recovering",
        }
    }
}

/// Both releases run, and each has its part of the traffic.
fn assigned(on_trial: Release, control: Release, ramp: Ramp) -> Vec<Effect> {
    vec![
        Effect::KeepRunning(on_trial.clone()),
        Effect::KeepRunning(control.clone()),
        Effect::Assign(on_trial, control, ramp.step),
    ]
}

impl PendingRollback {
    /// The timeline event of the decision.
    pub(super) fn decided_event(&self, choice: StrategyChoice) -> TimelineEvent {
        let StrategyChoice { strategy, reason } = choice;
        let (severity, ordered) = (self.trigger.severity(), self.trigger.is_operator());
        TimelineEvent::Decided { strategy, severity, ordered, reason: Some(reason) }
    }
}

impl fmt::Display for Phase {
    /// What the service waits for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("waits for a first deploy"),
            Self::Steady { active, watch: SteadyWatch::Breach { guard, .. }, .. } => {
                write!(f, "{active} is in breach after its bake; no rollback: {guard}")
            }
            Self::Steady { .. } => f.write_str("nothing on trial"),
            Self::Starting { new, .. } => write!(f, "waits for {new} to become ready"),
            Self::Promoting { to, .. } => write!(f, "waits for the proxy to route to {to}"),
            Self::Baking { active, blocked: None, ramp: Some(ramp), .. } => {
                write!(f, "watches {active} with {}", ramp.step)
            }
            Self::Baking { active, blocked: None, .. } => write!(f, "watches {active}"),
            Self::Baking { active, blocked: Some(Guard::NoData), .. } => {
                write!(f, "waits for data about {active}")
            }
            Self::Baking { active, blocked: Some(guard), .. } => {
                write!(f, "{active} is in breach; no rollback: {guard}")
            }
            Self::Confirming(breach) => write!(f, "probes {} before the rollback", breach.warm),
            Self::Reviving(breach) => write!(f, "waits for {} to restart", breach.warm),
            Self::Returning(back) => write!(f, "waits for the proxy to route to {}", back.to),
            Self::Emptying(back) => write!(f, "waits for {} to finish its requests", back.bad),
            Self::Recovering { active, .. } => {
                write!(f, "waits for {active} to meet its objectives")
            }
        }
    }
}
