use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::outside_links::OutsideLinks;
use crate::model::release::Slot;

/// A deploy, as it goes from the command line over the control socket to the decision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The service.
    pub service: String,
    /// The version of the release: what the operator calls it.
    pub version: String,
    /// What it runs from.
    #[serde(default)]
    pub artifact: Option<String>,
    /// Its digest when the daemon resolved it.
    #[serde(skip)]
    pub digest: Option<String>,
    /// Its links that lead out of it, known when the daemon resolved it.
    #[serde(skip)]
    pub outside_links: OutsideLinks,
    /// Variables for its environment.
    #[serde(default, rename = "set")]
    pub environment: BTreeMap<String, String>,
    /// The slot where it runs; a free one by default.
    #[serde(default)]
    pub slot: Option<Slot>,
    /// After a breach, page and hold; never roll back.
    #[serde(default)]
    pub freeze: bool,
    /// Override every guard that can be waived.
    #[serde(default)]
    pub force: bool,
    /// Fail if the release drops or breaks what clients used in the last hour.
    #[serde(default)]
    pub strict: bool,
    /// Follow to the end.
    #[serde(default)]
    pub wait: bool,
    /// Also a release that was rolled back before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_quarantined: bool,
    /// Also a release without a protocol version that live sessions use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_version_drop: bool,
    /// Also over a release that is on trial, in breach or held, or over one that does not answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_breach: bool,
    /// Also when no automatic rollback is left today.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_net: bool,
    /// Also when the same release is active: start it again, in another slot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}

/// A guard that a deploy can waive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiver {
    /// The quarantine of releases that were rolled back.
    Quarantined,
    /// Protocol versions that live sessions use.
    VersionDrop,
    /// A trial that is not over, and the last release that answers.
    OverBreach,
    /// The limit of automatic rollbacks.
    WithoutNet,
}

impl DeployRequest {
    /// Whether the operator waives a guard.
    pub fn waives(&self, waiver: Waiver) -> bool {
        self.force
            || match waiver {
                Waiver::Quarantined => self.allow_quarantined,
                Waiver::VersionDrop => self.allow_version_drop,
                Waiver::OverBreach => self.over_breach,
                Waiver::WithoutNet => self.without_net,
            }
    }
}

impl Waiver {
    /// The option of `rollbackd deploy`.
    pub fn option(self) -> &'static str {
        match self {
            Self::Quarantined => "--allow-quarantined",
            Self::VersionDrop => "--allow-version-drop",
            Self::OverBreach => "--over-breach",
            Self::WithoutNet => "--without-net",
        }
    }
}
