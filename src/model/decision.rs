use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Moment, Release, ReleaseNumber, TimelineEvent};

/// Numbers the effects of one service. A late answer to an old decision is told apart by it, and
/// whoever acts refuses any ticket older than the newest it has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// Why, what is now true, and what follows. Nothing acts without a reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The reason, as it reads in the timeline.
    pub because: String,
    /// What the timeline remembers; the state of a service is the fold of these.
    pub event: TimelineEvent,
    /// What follows from it, in order.
    pub effects: Vec<Effect>,
}

/// One thing for the outside world to do. Doing it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Keep this release running, watched and probed.
    KeepRunning(Release),
    /// Start this release if it does not run, and tell when it answers several probes in a row.
    Start(Release),
    /// Ask this release one question now.
    Probe(Release),
    /// Send new sessions and stateless requests to this release.
    Route(Release),
    /// Let this release finish what it has in flight, until then.
    Drain(Release, Moment),
    /// Answer for everything this release has in flight, and end its sessions, now.
    Cut(Release),
    /// End what is left on this release, then stop it; nothing will need it again.
    Retire(Release),
    /// Forget this release: what runs in its slot is another one's by now, and goes on. What is open
    /// there may finish.
    Detach(Release),
    /// Wake a person.
    Page(String),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepRunning(release) => write!(f, "keep {release}"),
            Self::Start(release) => write!(f, "start {release}"),
            Self::Probe(release) => write!(f, "probe {release}"),
            Self::Route(release) => write!(f, "route {release}"),
            Self::Drain(release, _) => write!(f, "drain {release}"),
            Self::Cut(release) => write!(f, "cut {release}"),
            Self::Retire(release) => write!(f, "retire {release}"),
            Self::Detach(release) => write!(f, "let {release} go"),
            Self::Page(_) => f.write_str("page"),
        }
    }
}

/// Which releases have to be looked at while a service stands where it stands.
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
    /// The traffic goes back; the trial of the release that is left goes on.
    Rollback {
        /// It takes over.
        to: ReleaseNumber,
    },
    /// The release that took over has to keep the promise.
    Recovery {
        /// It has the traffic.
        active: ReleaseNumber,
    },
}
