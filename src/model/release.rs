use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Counts the deploys of one service, from 1. A release keeps the number of the deploy that
/// brought it; session ids carry it, so it is never used twice.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ReleaseNumber(pub u32);

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
    pub number: ReleaseNumber,
    /// Where it runs.
    pub slot: Slot,
    /// What it runs from: a path or an image reference, as given at deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Its digest at the deploy; a rollback to it needs the same. An artifact that is
    /// a plain name has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Settings given at deploy; they reach the process as environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(rename = "set")]
    pub environment: BTreeMap<String, String>,
    /// Another release of this version ran when it was deployed: texts name its deploy, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_version: bool,
}

impl Release {
    /// Whether the daemon sets this variable itself in the environment of a release.
    pub fn is_reserved_variable(variable: &str) -> bool {
        matches!(variable, "PORT" | "SOCKET") || variable.starts_with("ROLLBACKD_")
    }

    /// What runs in the slot of this release without having been deployed. `self_reported_name` is what it calls
    /// itself: a name and a version, as MCP servers do.
    pub fn as_replacement(&self, number: ReleaseNumber, self_reported_name: Option<&str>) -> Self {
        let reported_version = self_reported_name.and_then(|name| name.split_whitespace().last());
        let reported_version = reported_version
            .filter(|candidate| is_valid_version(candidate) && *candidate != self.version);
        // Not the same name for two things.
        let version =
            reported_version.map_or_else(|| format!("{}~{number}", self.version), str::to_owned);
        // The recorded digest belongs to the replaced artifact.
        Self { version, number, digest: None, same_version: false, ..self.clone() }
    }

    /// What a quarantine remembers: the same version from the same artifact.
    pub fn quarantine_key(&self) -> String {
        self.artifact.as_ref().map_or_else(
            || self.version.clone(),
            |artifact| format!("{} ({artifact})", self.version),
        )
    }
}

/// The longest version, in bytes.
pub const VERSION_MAX: usize = 128;

/// Whether a word can be a version: it is filled into commands, and names files and images.
pub fn is_valid_version(word: &str) -> bool {
    let allowed = |it: char| it.is_ascii_alphanumeric() || "._-+:@~".contains(it);
    word.starts_with(|it: char| it.is_ascii_alphanumeric())
        && word.len() <= VERSION_MAX
        && word.chars().all(allowed)
}

impl fmt::Display for ReleaseNumber {
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
    /// Its version, and its deploy where the version is ambiguous.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)?;
        if self.same_version {
            write!(f, " (deploy {})", self.number)?;
        }
        Ok(())
    }
}
