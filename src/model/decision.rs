use std::fmt;

use crate::model::deploy_request::Waiver;
use crate::model::moment::Moment;
use crate::model::release::{Release, ReleaseNumber};
use crate::model::timeline::TimelineEvent;
use crate::model::trial::RampStep;

/// A timeline event, its reason, and the effects that follow it.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a decision that is not recorded does not happen"]
pub struct Decision {
    /// The reason, as it reads in the timeline.
    pub because: String,
    /// The event for the timeline.
    pub event: TimelineEvent,
    /// The effects, in order.
    pub effects: Vec<Effect>,
}

impl Decision {
    /// Notes that a deploy needed this option.
    pub fn waive(&mut self, waiver: Waiver) {
        if let TimelineEvent::Deployed { waived, .. } = &mut self.event
            && !waived.contains(&waiver)
        {
            waived.push(waiver);
            self.because += &format!("; needed {}", waiver.option());
        }
    }
}

/// One action of the proxy or the supervisor. All are idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Keep this release running, watched and probed.
    KeepRunning(Release),
    /// Start this release if it does not run, and report when it answers several probes in a row.
    Start(Release),
    /// Probe this release once, now.
    Probe(Release),
    /// Send new sessions and stateless requests to this release.
    Route(Release),
    /// Send the subjects of this step to the first release, which is on trial, and all others to the
    /// second one. Sessions that can move do so, each at its next request.
    Assign(Release, Release, RampStep),
    /// Let this release finish what it has in flight, until then.
    Drain(Release, Moment),
    /// Answer everything that this release has in flight with an error, and end its sessions.
    Cut(Release),
    /// End what is left on this release, then stop it for good.
    Retire(Release),
    /// Forget this release: what runs in its slot is another one's by now, and goes on. What is open
    /// there may finish.
    Detach(Release),
    /// Page the operator.
    Page(String),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepRunning(release) => write!(f, "keep {release}"),
            Self::Start(release) => write!(f, "start {release}"),
            Self::Probe(release) => write!(f, "probe {release}"),
            Self::Route(release) => write!(f, "route {release}"),
            Self::Assign(release, _, step) => write!(f, "assign {step} to {release}"),
            Self::Drain(release, _) => write!(f, "drain {release}"),
            Self::Cut(release) => write!(f, "cut {release}"),
            Self::Retire(release) => write!(f, "retire {release}"),
            Self::Detach(release) => write!(f, "detach {release}"),
            Self::Page(_) => f.write_str("page"),
        }
    }
}

/// The releases that the judge observes in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgeTarget {
    /// None: nothing is on trial.
    Nothing,
    /// The same as before: a rollback waits for its target.
    Unchanged,
    /// The active release is on trial.
    Trial {
        /// It is on trial.
        active: ReleaseNumber,
        /// It could take the traffic back.
        warm: Option<ReleaseNumber>,
    },
    /// The active release is watched after its bake.
    AfterBake {
        /// It has the traffic.
        active: ReleaseNumber,
        /// It could take the traffic back.
        warm: Option<ReleaseNumber>,
    },
    /// The traffic goes back; the trial of the release that is left goes on.
    Rollback {
        /// It takes over.
        to: ReleaseNumber,
    },
    /// The release that took over has to meet its objectives.
    Recovery {
        /// It has the traffic.
        active: ReleaseNumber,
    },
}
