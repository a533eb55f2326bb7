use std::collections::{BTreeMap, BTreeSet};

use super::{Actor, CallKey, Contract, ProbeResult, ReleaseNumber, Slot, Ticket, Verdict};

/// Everything that can make the daemon decide something, but for the words of a person.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The judge spoke.
    Judged(Verdict, ReleaseLoad),
    /// In place of this release something else runs, which nobody deployed through the daemon; what
    /// it calls itself, where that is known, and how it was noticed.
    Replaced(ReleaseNumber, Option<String>, String),
    /// A starting release passed its probes; what it offers, and what the active one does.
    Ready(Ticket, Box<ReadinessReport>),
    /// A starting release can not become ready; why.
    NotReady(Ticket, String),
    /// The release that was asked, answered.
    Probed(Ticket, ProbeResult),
    /// The artifact of the release that was asked is not what was deployed; in what.
    ArtifactChanged(Ticket, String),
    /// New work goes where the ticket said.
    Routed(Ticket),
    /// The release that was to be drained or cut has nothing left in flight.
    NothingInFlight(Ticket, DrainCost),
    /// The release in charge after a rollback keeps the promise; the numbers.
    Recovered(ReleaseNumber, String),
    /// The deadline passed.
    DeadlinePassed,
}

/// What a person asks for.
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
    /// Hands off: no rollback by the daemon until resumed.
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
    /// What that came to when it was looked at.
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
    /// What the new release offers. `None` where the probe does not speak MCP.
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
    /// Of those, the ones that can not be moved to another release.
    #[serde(default)]
    #[serde(alias = "bound")]
    pub pinned: u64,
    /// Open requests, without streams that only listen.
    pub in_flight: u64,
    /// Requests a second.
    #[serde(alias = "rate")]
    pub request_rate: f64,
    /// How long a session lasts on the average, in seconds.
    #[serde(alias = "life")]
    pub mean_session_s: f64,
}

/// What leaving a release cost its clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DrainCost {
    /// Open requests that got an error of ours as their answer.
    #[serde(alias = "answered")]
    pub error_responses: u64,
    /// Sessions that were ended.
    #[serde(alias = "ended")]
    pub sessions_ended: u64,
    /// Streams that were closed.
    #[serde(alias = "streams")]
    pub streams_closed: u64,
    /// Open requests that were asked again of the release that took over.
    #[serde(default)]
    #[serde(alias = "replayed")]
    pub requests_replayed: u64,
    /// Open requests whose answer broke off where none of ours could be put in.
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

/// Why a session can not be moved to another release.
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
    /// `session_state = "hard"`: the session can not be made anew.
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

    /// Whether trying again can not help.
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
        write!(f, "{answered} open requests answered by us, ")?;
        if replayed + lost > 0 {
            write!(f, "{replayed} asked again, {lost} lost, ")?;
        }
        write!(f, "{streams} streams closed, {ended} sessions ended")?;
        if moved + waiting > 0 {
            write!(f, ", {moved} moved, {waiting} to move at their next request")?;
            if *soft {
                f.write_str(" (what their server knew of them beyond the protocol may be lost)")?;
            }
        }
        let mut before = "; not moved: ";
        for (refusal, count) in kept {
            write!(f, "{before}{count} ({})", refusal.label())?;
            before = ", ";
        }
        Ok(())
    }
}
