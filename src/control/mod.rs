//! What the daemon and the verbs say to each other: JSON lines on a unix socket.
//!
//! A client connects, writes one [`RequestId`] as one line, and reads [`Response`] lines until the
//! daemon closes. The kernel tells who the client is; nothing in the request does.

mod access;
mod client;
mod counters;
pub mod server;
mod validate;

use std::collections::BTreeMap;

pub use access::{ADMINS_GROUP, READERS_GROUP, authorize};
pub use client::ControlClient;
use serde::{Deserialize, Serialize};

pub use crate::control::counters::{Counters, HISTOGRAM_BOUNDS, Histogram};
pub use crate::control::validate::printable;
use crate::model::{Counts, Evidence, ReleaseNumber, TimelineEntry};

/// What a verb asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Bring a new release. With `wait`, entries follow until it is accepted, failed or rolled back.
    Deploy {
        /// The service.
        service: String,
        /// What to call the release.
        version: String,
        /// What it runs from.
        #[serde(default)]
        artifact: Option<String>,
        /// Settings for its environment.
        #[serde(default)]
        set: BTreeMap<String, String>,
        /// Where to run it.
        #[serde(default)]
        slot: Option<String>,
        /// On a breach page and hold; never go back.
        #[serde(default)]
        freeze: bool,
        /// Past the guards that say so.
        #[serde(default)]
        force: bool,
        /// Not with a release that drops or breaks what clients used in the last hour.
        #[serde(default)]
        strict: bool,
        /// Follow to the end.
        #[serde(default)]
        wait: bool,
    },
    /// Go back to the previous release; entries follow to the end.
    Rollback {
        /// The service.
        service: String,
        /// Without a drain.
        cut: bool,
        /// Also to a release whose artifact is not what was deployed.
        #[serde(default)]
        force: bool,
        /// Why.
        because: String,
        /// Follow to the end.
        #[serde(default)]
        wait: bool,
    },
    /// Hands off.
    Hold {
        /// The service.
        service: String,
        /// Why.
        because: String,
    },
    /// The daemon may act again.
    Resume {
        /// The service.
        service: String,
        /// Why.
        because: String,
    },
    /// How things stand.
    Status {
        /// One service; all by default.
        #[serde(default)]
        service: Option<String>,
    },
    /// The timeline of one deploy.
    Timeline {
        /// The service.
        service: String,
        /// The deploy; the newest by default.
        #[serde(default)]
        deploy: Option<ReleaseNumber>,
        /// Go on as entries are written.
        #[serde(default)]
        follow: bool,
    },
}

impl Request {
    /// The service it is about.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Deploy { service, .. }
            | Self::Rollback { service, .. }
            | Self::Hold { service, .. }
            | Self::Resume { service, .. }
            | Self::Timeline { service, .. } => Some(service),
            Self::Status { service } => service.as_deref(),
        }
    }
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// The command was taken and written down.
    Accepted {
        /// The deploy it belongs to.
        deploy: ReleaseNumber,
        /// The reason in the timeline.
        because: String,
    },
    /// The command changed nothing.
    Refused {
        /// The kind, for the exit code.
        code: RefusalCode,
        /// Why.
        because: String,
    },
    /// A line of the timeline.
    #[serde(rename = "entry")]
    Event(Box<TimelineEntry>),
    /// How one service stands.
    Status(Box<Status>),
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Something else has to end first.
    Busy,
    /// A guard stands against it, or it makes no sense now.
    Refused,
    /// There is no such service or deploy.
    #[serde(alias = "unknown")]
    NotFound,
    /// The daemon can not do it: its disk is full, or the like.
    Failed,
    /// Who asks may not do that.
    Forbidden,
    /// The request was not understood.
    Malformed,
}

/// How one service stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub service: String,
    /// Its public address.
    pub listen: String,
    /// `act` or `observe`.
    pub mode: String,
    /// The newest deploy.
    pub deploy: ReleaseNumber,
    /// The phase in one word.
    pub phase: String,
    /// What it waits for.
    pub waits_for: String,
    /// Seconds in this phase.
    pub since_s: f64,
    /// Seconds until the phase's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "left_s")]
    pub remaining_s: Option<f64>,
    /// The hold on it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Version of the active release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Version of the warm release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<String>,
    /// The releases that run.
    pub releases: Vec<ReleaseStatus>,
    /// The promise of the service: the availability objective, 0 to 1.
    pub objective: f64,
    /// How far the evidence against the active release has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What the judge says, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The finding alone: `healthy`, `degraded` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// Bad requests that the objective still allows, of those of the last hour.
    #[serde(alias = "budget_left")]
    pub budget_remaining: f64,
    /// Releases that were rolled back and need `--force`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<String>,
    /// What keeps the daemon from deciding, such as a full disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "trouble")]
    pub error: Option<String>,
    /// What happened since the daemon started.
    #[serde(default)]
    #[serde(alias = "totals")]
    pub counters: Counters,
    /// Messages that the system's journal did not get, since the daemon started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub journal_lost: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How one release stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// Its version.
    pub version: String,
    /// The deploy that brought it.
    pub number: ReleaseNumber,
    /// Where it runs.
    pub slot: String,
    /// `active`, `warm`, `starting` or `leaving`.
    pub role: String,
    /// What the last probe said.
    pub probe: String,
    /// Live sessions of both eras.
    pub sessions: u64,
    /// Open requests.
    pub in_flight: u64,
    /// Requests a second, over the last ten seconds.
    pub rate: f64,
    /// Share of bad requests over the last minute, 0 to 1.
    pub error_rate: f64,
    /// Every request since the daemon started.
    pub counts: Counts,
    /// The same by method and tool, the most faulty first; at most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallStatus>,
}

/// What became of the requests of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallStatus {
    /// The method.
    pub method: String,
    /// The tool, prompt or resource; empty where there is none.
    pub name: String,
    /// Every request since the daemon started.
    pub counts: Counts,
}
