use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::actor::Actor;
use crate::model::contract::Contract;
use crate::model::contract_diff::ContractDiff;
use crate::model::deploy_request::Waiver;
use crate::model::drain_cost::DrainCost;
use crate::model::moment::Moment;
use crate::model::outside_links::OutsideLinks;
use crate::model::ramp_choice::RampChoice;
use crate::model::release::{Release, ReleaseNumber};
use crate::model::release_load::ReleaseLoad;
use crate::model::strategy::{Strategy, StrategyReason};
use crate::model::trial::RampStep;
use crate::model::trigger::Trigger;
use crate::model::verdict::{Finding, Severity, Verdict};

/// One line of the timeline: an event, its time, and its reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// Counts the lines of one deploy, from 1.
    pub seq: u64,
    /// The wall's time: RFC 3339, UTC, microseconds.
    #[serde(rename = "at")]
    pub wall_time: String,
    /// The daemon's clock.
    pub moment: Moment,
    /// Milliseconds since the deploy.
    #[serde(rename = "ms")]
    pub since_deploy_ms: u64,
    /// The service.
    pub service: String,
    /// The deploy.
    pub deploy: ReleaseNumber,
    /// The reason, with its numbers.
    pub because: String,
    /// The event.
    #[serde(flatten)]
    pub event: TimelineEvent,
    /// The effects that follow once this line is on disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "then")]
    pub planned_effects: Vec<String>,
}

/// What the timeline records. The state of a service is the fold of its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum TimelineEvent {
    /// A deploy began.
    Deployed {
        /// The new release.
        release: Release,
        /// On a breach page and hold; never go back.
        frozen: bool,
        /// Past the comparison of protocols, and before 0.2.0 also past the quarantine.
        forced: bool,
        /// The guards that would have refused it, and that its operator waived.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        waived: Vec<Waiver>,
        /// Not with a release that drops what clients use.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        strict: bool,
        /// The links of its artifact that lead out of it.
        #[serde(default, skip_serializing_if = "OutsideLinks::is_empty")]
        outside_links: OutsideLinks,
        /// Who asked for it.
        by: Actor,
        /// Everything older that still matters.
        #[serde(rename = "base")]
        carried_over: Box<CarriedOver>,
    },
    /// Another release runs in the slot of the active one, without a deploy through the daemon.
    /// It is on trial from now on.
    #[serde(alias = "found")]
    Replaced {
        /// What runs there, under a number of its own.
        release: Release,
        /// It can take the traffic back.
        warm: Option<Release>,
        /// Everything older that still matters.
        #[serde(rename = "base")]
        carried_over: Box<CarriedOver>,
    },
    /// The new release passed its probes and may get the traffic.
    Ready {
        /// What it offers.
        contract: Option<Box<Contract>>,
        /// What that is more, less or other than what the active one offers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changes: Option<Box<ContractDiff>>,
        /// The first step of its ramp. None: it gets all traffic at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ramp: Option<RampStep>,
        /// All its steps, and why. None without a release to compare with, and from a daemon before
        /// 0.2.0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        choice: Option<RampChoice>,
    },
    /// The deploy ended before it got traffic.
    Failed,
    /// New work goes to this release.
    Switched {
        /// The release.
        to: ReleaseNumber,
    },
    /// More subjects are on trial from now on.
    Stepped {
        /// The step of the ramp.
        ramp: RampStep,
    },
    /// The bake is over and the new release stays.
    Accepted {
        /// Whether there was evidence for it, not merely none against it.
        verified: bool,
    },
    /// The judge or an operator starts a rollback. A probe asks the warm release first.
    Detected {
        /// The verdict, or the operator's order.
        #[serde(flatten)]
        trigger: Trigger,
        /// What the release carried then.
        load: ReleaseLoad,
    },
    /// The warm release did not answer and is started again.
    Reviving,
    /// The warm release cannot take over; the traffic stays.
    Abandoned,
    /// The traffic goes back.
    Decided {
        /// How.
        strategy: Strategy,
        /// How bad it was.
        severity: Severity,
        /// Whether an operator requested it.
        #[serde(default)]
        ordered: bool,
        /// Why this way, with the numbers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<StrategyReason>,
    },
    /// A drain became a cut: why, with the numbers; `None` at the end of its time.
    Escalated(#[serde(skip_serializing_if = "Option::is_none")] Option<StrategyReason>),
    /// Nothing was left in flight on the bad release at the end of the drain.
    Drained {
        /// What it cost.
        #[serde(alias = "toll")]
        cost: DrainCost,
    },
    /// The bad release was cut off.
    Cut {
        /// What it cost.
        #[serde(alias = "toll")]
        cost: DrainCost,
    },
    /// The previous release meets its objectives again, or answers where there are no requests.
    Recovered,
    /// The previous release has the traffic, but does not meet its objectives.
    Unrecovered,
    /// A guard blocked the rollback that a verdict asks for.
    Blocked {
        /// The guard.
        guard: Guard,
        /// The verdict.
        verdict: Verdict,
    },
    /// The blocked verdict no longer holds.
    Cleared,
    /// An operator stopped automatic action.
    Held {
        /// The hold.
        hold: Hold,
    },
    /// An operator lifted the hold.
    Resumed {
        /// Who.
        by: Actor,
    },
    /// An effect had no answer in time; the daemon repeats it.
    #[serde(alias = "asked_again")]
    Retried {
        /// The tries before.
        tries: u32,
    },
    /// The daemon started and read this timeline.
    Restored {
        /// Bytes of an incomplete last line that were cut off.
        #[serde(alias = "torn")]
        truncated_bytes: u64,
        /// How long nothing was observed before: deadlines moved by that, in milliseconds. Before
        /// 0.2.0 it was the time since the last entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unobserved_ms: Option<u64>,
    },
    /// The daemon stood still, because the host was suspended or overloaded: deadlines moved.
    Paused {
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// A channel accepted a notice about this deploy. It changes no state.
    Notified {
        /// The channel, as in `[notify.NAME]`.
        channel: String,
        /// Identifies the notice.
        notice: String,
    },
    /// A person acknowledged the page. It changes no state.
    Acknowledged {
        /// Who.
        by: Actor,
    },
    /// The configuration of the service was reloaded, with changes. It changes no state.
    Reloaded {
        /// Settings that are in effect at once, by name.
        now: Vec<String>,
        /// Settings that wait for the next deploy.
        next_deploy: Vec<String>,
    },
    /// A note that changes no state, such as the exit and restart of a process.
    Noted,
}

/// A rule that blocks a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// `mode = "observe"`: decide and record, never act.
    Observe,
    /// An operator holds the service.
    Hold,
    /// The deploy cannot be rolled back.
    Freeze,
    /// Too many rollbacks today.
    Limit,
    /// Both releases fail.
    SharedOutage,
    /// There is nothing to compare the release with.
    NoBaseline,
    /// A required source reports no data about the release.
    NoData,
    /// There is no previous release.
    NoWarm,
    /// The ramp has not reached its last step at the end of the bake.
    Ramp,
    /// The release fails for one user only, while it serves others.
    OneUser,
    /// The release answers, but not as the one before did: a person decides.
    Differs,
    /// The bake is over: a person decides.
    AfterBake,
}

/// A service on which the daemon does not act by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who set it; `None`: the daemon itself, after a guard.
    pub by: Option<Actor>,
    /// Why.
    pub because: String,
}

/// What a new deploy takes over from the ones before it, so that one file restores a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CarriedOver {
    /// It has the traffic.
    pub active: Option<Release>,
    /// The release before it, where it keeps running while the new one starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Release>,
    /// The hold, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Identities of releases that were rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<String>,
    /// The times of the automatic rollbacks of the last day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<Moment>,
    /// How long each release took to become ready at its deploy, in milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ready_ms: Vec<(ReleaseNumber, u64)>,
    /// Whether the release that has the traffic got it by a ramp.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ramped: bool,
}

impl TimelineEvent {
    /// How bad it is, where it is about that.
    pub fn severity(&self) -> Option<Severity> {
        if let Self::Decided { severity, .. } = self {
            return Some(*severity);
        }
        match self.verdict()?.finding {
            Finding::Breach(severity) => Some(severity),
            _ => None,
        }
    }

    /// The verdict that it is about.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Detected { trigger, .. } => trigger.verdict(),
            Self::Blocked { verdict, .. } => Some(verdict),
            _ => None,
        }
    }

    /// Whether a command that waits is complete with this event.
    pub fn completes_command(&self) -> bool {
        match self {
            // The bake continues by itself once there is data again.
            Self::Blocked { guard, .. } => {
                !matches!(guard, Guard::NoData | Guard::OneUser | Guard::Differs)
            }
            Self::Accepted { .. }
            | Self::Failed
            | Self::Recovered
            | Self::Unrecovered
            | Self::Abandoned => true,
            _ => false,
        }
    }

    /// Its name in the timeline.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Deployed { .. } => "deployed",
            Self::Replaced { .. } => "replaced",
            Self::Ready { .. } => "ready",
            Self::Failed => "failed",
            Self::Switched { .. } => "switched",
            Self::Stepped { .. } => "stepped",
            Self::Accepted { .. } => "accepted",
            Self::Detected { .. } => "detected",
            Self::Reviving => "reviving",
            Self::Abandoned => "abandoned",
            Self::Decided { .. } => "decided",
            Self::Escalated(_) => "escalated",
            Self::Drained { .. } => "drained",
            Self::Cut { .. } => "cut",
            Self::Recovered => "recovered",
            Self::Unrecovered => "unrecovered",
            Self::Blocked { .. } => "blocked",
            Self::Cleared => "cleared",
            Self::Held { .. } => "held",
            Self::Resumed { .. } => "resumed",
            Self::Retried { .. } => "retried",
            Self::Restored { .. } => "restored",
            Self::Paused { .. } => "paused",
            Self::Notified { .. } => "notified",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Reloaded { .. } => "reloaded",
            Self::Noted => "noted",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe mode",
            Self::Hold => "hold",
            Self::Freeze => "freeze",
            Self::Limit => "rollback limit",
            Self::SharedOutage => "shared outage",
            Self::NoBaseline => "no baseline",
            Self::NoData => "no data",
            Self::NoWarm => "no previous release",
            Self::Ramp => "ramp not complete",
            Self::OneUser => "one user",
            Self::Differs => "different answers",
            Self::AfterBake => "the bake is over",
        })
    }
}
