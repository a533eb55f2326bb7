use serde::{Deserialize, Serialize};

/// Why a session cannot migrate to another release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
