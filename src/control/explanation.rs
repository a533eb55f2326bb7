//! The answer to `explain`: why a service is where it is, and what would change that.

use serde::{Deserialize, Serialize};

/// The explanation of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// Its phase, and what it waits for.
    pub state: String,
    /// What there is to know, most important first.
    pub points: Vec<ExplanationPoint>,
    /// The settings that decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<SettingValue>,
}

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationPoint {
    /// The question that it answers, such as "why not accepted".
    pub topic: String,
    /// The answer.
    pub text: String,
}

/// A setting, as the configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingValue {
    /// Its name; with its table where that is not the service's, such as `probe.every`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether a reload changed it, and what runs keeps the old value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_deploy: bool,
}
