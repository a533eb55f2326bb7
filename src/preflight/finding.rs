//! What a check of the host found.

use serde::Serialize;

/// One thing of the host that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Whether something has to be done.
    pub level: FindingLevel,
    /// What was looked at: `host-directory`, `host-port`, `host-program`, `host-unit`, `host-podman`,
    /// `host-artifact` or `host-user`.
    pub code: &'static str,
    /// The service, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// Whether the daemon would fail over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// Nothing has to be done.
    Ok,
    /// The daemon, or a deploy, would fail.
    Error,
}

/// What is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) help: String,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl Finding {
    pub(super) fn new(
        code: &'static str,
        service: Option<&str>,
        result: Result<String, Failure>,
    ) -> Self {
        let (level, message, help) = match result {
            Ok(message) => (FindingLevel::Ok, message, String::new()),
            Err(Failure { message, help }) => (FindingLevel::Error, message, help),
        };
        Self { level, code, service: service.map(str::to_owned), message, help }
    }

    /// Whether something has to be done.
    pub fn is_error(&self) -> bool {
        self.level == FindingLevel::Error
    }
}
