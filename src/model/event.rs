use std::collections::{BTreeMap, BTreeSet};

use crate::model::actor::Actor;
use crate::model::contract::Contract;
use crate::model::decision::Ticket;
use crate::model::observation::ProbeResult;
use crate::model::outcome::CallKey;
use crate::model::release::{ReleaseNumber, Slot};
use crate::model::verdict::Verdict;

/// Everything that can lead to a decision, except an operator's command.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The judge reports a verdict.
    Judged(Verdict, ReleaseLoad),
    /// Another program runs in place of this release, without a deploy through the daemon; what
    /// it calls itself, where that is known, and how the daemon noticed.
    Replaced(ReleaseNumber, Option<String>, String),
    /// A starting release passed its probes; what it offers, and what the active one does.
    Ready(Ticket, Box<ReadinessReport>),
    /// A starting release cannot become ready; why.
    NotReady(Ticket, String),
    /// The result of the probe before a rollback.
    Probed(Ticket, ProbeResult),
    /// The artifact of the rollback target differs from the deployed one; how.
    ArtifactChanged(Ticket, String),
    /// New work goes to the release of the ticket.
    Routed(Ticket),
    /// The release under drain or cut has nothing left in flight.
    NothingInFlight(Ticket, DrainCost),
    /// The active release meets its objectives after a rollback, or answers its probes where there
    /// are no requests: the rest of a sentence about it.
    Recovered(ReleaseNumber, String),
    /// The deadline passed.
    DeadlinePassed,
}

/// An operator's command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Bring a new release.
    Deploy(DeployRequest),
    /// Go back to the previous release.
    Rollback {
        /// Without a drain.
        cut: bool,
        /// Also to a release whose artifact is not what was deployed.
        force: bool,
        /// Why.
        because: String,
    },
    /// No automatic rollback until resumed.
    Hold {
        /// Why.
        because: String,
    },
    /// The daemon may act again.
    Resume {
        /// Why.
        because: String,
    },
}

/// The particulars of a deploy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeployRequest {
    /// What the operator calls the release.
    pub version: String,
    /// What it runs from.
    pub artifact: Option<String>,
    /// Its digest when it was resolved.
    pub digest: Option<String>,
    /// Settings for its environment.
    pub environment: BTreeMap<String, String>,
    /// Where to run it; a free slot by default.
    pub slot: Option<Slot>,
    /// On a breach page and hold; never go back.
    pub freeze: bool,
    /// Despite a quarantine, a dropped protocol version, or a trial that is held.
    pub force: bool,
    /// Not if the new release drops or breaks what clients used in the last hour.
    pub strict: bool,
}

/// A command, and who gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRequest {
    /// Who.
    pub by: Actor,
    /// What.
    pub command: Command,
}

/// What a deploy learned before the new release got traffic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadinessReport {
    /// The contract of the new release. `None` where the probe does not speak MCP.
    pub new: Option<Contract>,
    /// What the active one offers.
    pub active: Option<Contract>,
    /// Protocol versions that live sessions of the active one have negotiated.
    pub protocols_in_use: BTreeSet<String>,
    /// What clients asked for in the last hour, and how often.
    pub call_usage: BTreeMap<CallKey, u64>,
}

/// What a release carries at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ReleaseLoad {
    /// Live sessions, of both eras.
    pub sessions: u64,
    /// Of those, the ones that cannot migrate to another release.
    #[serde(default)]
    #[serde(alias = "bound")]
    pub pinned: u64,
    /// Open requests, without streams that only listen.
    pub in_flight: u64,
    /// Requests a second.
    #[serde(alias = "rate")]
    pub request_rate: f64,
    /// The mean duration of a session, in seconds.
    #[serde(alias = "life")]
    pub mean_session_s: f64,
}

/// What leaving a release cost its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DrainCost {
    /// Open requests that the proxy answered with an error.
    #[serde(alias = "answered")]
    pub error_responses: u64,
    /// Sessions that were ended.
    #[serde(alias = "ended")]
    pub sessions_ended: u64,
    /// Streams that were closed.
    #[serde(alias = "streams")]
    pub streams_closed: u64,
    /// Open requests that the proxy sent again to the release that took over.
    #[serde(default)]
    #[serde(alias = "replayed")]
    pub requests_replayed: u64,
    /// Open requests whose answer broke off where the proxy could insert no error.
    #[serde(default)]
    #[serde(alias = "lost")]
    pub responses_lost: u64,
    /// Sessions that go on at the release that took over.
    #[serde(default)]
    #[serde(alias = "moved")]
    pub sessions_migrated: u64,
    /// Sessions that were silent since; each moves at its next request.
    #[serde(default)]
    #[serde(alias = "waiting")]
    pub sessions_to_migrate: u64,
    /// Whether a server may have known more of those than the protocol shows.
    #[serde(default)]
    #[serde(alias = "soft")]
    pub server_state_at_risk: bool,
    /// Sessions that could not be moved when they asked to be, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(alias = "kept")]
    pub sessions_not_migrated: BTreeMap<MigrationRefused, u64>,
}

/// Why a session cannot migrate to another release.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum MigrationRefused {
    /// The target negotiates another protocol version.
    Protocol,
    /// The target lacks a capability that the session has used.
    Capability,
    /// A request of the server waits for the client: elicitation, sampling, roots.
    PendingRequest,
    /// A task of the session is under way.
    LiveTask,
    /// The target does not take the client's credentials.
    Credentials,
    /// The target did not open a session.
    #[serde(rename = "target_failed")]
    OpenFailed,
    /// `session_state = "hard"`: the session cannot be recreated.
    #[serde(rename = "hard_state")]
    StateNotRestorable,
    /// Nothing is known of how the session was opened.
    #[serde(rename = "unknown")]
    OpeningUnknown,
}

impl MigrationRefused {
    /// The word for the timeline.
    pub fn label(self) -> &'static str {
        match self {
            Self::Protocol => "other protocol version",
            Self::Capability => "missing capability",
            Self::PendingRequest => "pending server request",
            Self::LiveTask => "live task",
            Self::Credentials => "credentials refused",
            Self::OpenFailed => "target failed",
            Self::StateNotRestorable => "hard state",
            Self::OpeningUnknown => "opening unknown",
        }
    }

    /// Whether a retry cannot help.
    pub fn is_final(self) -> bool {
        match self {
            Self::Protocol | Self::Capability | Self::StateNotRestorable | Self::OpeningUnknown => {
                true
            }
            Self::PendingRequest | Self::LiveTask | Self::Credentials | Self::OpenFailed => false,
        }
    }
}

impl std::fmt::Display for DrainCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            error_responses: answered,
            sessions_ended: ended,
            streams_closed: streams,
            requests_replayed: replayed,
            responses_lost: lost,
            sessions_migrated: moved,
            sessions_to_migrate: waiting,
            server_state_at_risk: soft,
            sessions_not_migrated: kept,
        } = self;
        let counts = [
            (*answered, "open requests answered with an error"),
            (*replayed, "requests replayed"),
            (*lost, "responses lost"),
            (*streams, "streams closed"),
            (*ended, "sessions ended"),
            (*moved, "sessions migrated"),
            (*waiting, "sessions migrate at their next request"),
        ];
        let counts = counts.iter().filter(|(count, _)| 0 < *count);
        let mut parts = Vec::from_iter(counts.map(|(count, what)| format!("{count} {what}")));
        if parts.is_empty() {
            parts.push("nothing was lost".to_owned());
        }
        f.write_str(&parts.join(", "))?;
        if *soft && 0 < moved + waiting {
            f.write_str(" (state in the server may be lost)")?;
        }
        let mut before = "; not migrated: ";
        for (refusal, count) in kept {
            write!(f, "{before}{count} ({})", refusal.label())?;
            before = ", ";
        }
        Ok(())
    }
}
