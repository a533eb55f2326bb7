//! What became of each setting that a reload changed.

use serde::{Deserialize, Serialize};

/// The settings that a reload changed: `SERVICE.SETTING`, `daemon.SETTING`, `incidents.SETTING`,
/// and `notify.CHANNEL` for a channel of which something differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// In effect now, also for a bake that runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub now: Vec<String>,
    /// In effect for the releases of the next deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_deploy: Vec<String>,
    /// In effect after a restart: every difference between the file and the running daemon that it
    /// cannot apply, also those of earlier reloads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
    /// Services that did not confirm the new settings in time: what became of theirs is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfirmed: Vec<String>,
}
