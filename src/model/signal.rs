use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Counts, Number};

/// One observation of a release, exactly as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The release that was seen.
    pub release: Number,
    /// What was seen.
    pub seen: Seen,
}

/// What can be seen of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// The requests that ended within one block of time (250 ms).
    Block(Counts),
    /// A probe was answered, or was not.
    Probe(Reply),
    /// Its process ended by itself; how, in words.
    Exited(String),
}

/// How a release answered a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// In time, and as expected.
    Ok,
    /// Not in time.
    Late,
    /// Nobody was listening.
    Refused,
    /// Something else than was asked for; what, in words.
    Wrong(String),
}

impl Reply {
    /// Whether the release passed.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Late => f.write_str("no answer in time"),
            Self::Refused => f.write_str("connection refused"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}
