use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Counts the deploys of one service, from 1. A release keeps the number of the deploy that
/// brought it; session ids carry it, so it is never used twice.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Number(pub u32);

/// The name of a place where a release runs: blue, green, or what the operator calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub String);

/// One immutable version of a service, in its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What the operator calls it.
    pub version: String,
    /// The deploy that brought it.
    pub number: Number,
    /// Where it runs.
    pub slot: Slot,
    /// What it runs from: a path or an image reference, as given at deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Settings given at deploy; they reach the process as environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
}

impl Release {
    /// Whether the daemon sets this variable itself in the environment of a release.
    pub fn reserves(variable: &str) -> bool {
        matches!(variable, "PORT" | "SOCKET") || variable.starts_with("ROLLBACKD_")
    }

    /// What a quarantine remembers: the same version from the same artifact.
    pub fn identity(&self) -> String {
        self.artifact.as_ref().map_or_else(
            || self.version.clone(),
            |artifact| format!("{} ({artifact})", self.version),
        )
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)
    }
}
