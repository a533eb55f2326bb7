//! What one demo server is, and what it does wrong.

use std::path::PathBuf;

use crate::demo::fault::Fault;
use crate::model::Moment;

/// A fault, and when it begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScheduledFault {
    /// What goes wrong.
    pub fault: Fault,
    /// From which wall-clock time on.
    pub at: Moment,
}

/// The settings of one demo server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// Its version, as its clients see it.
    pub version: String,
    /// What it does wrong.
    pub fault: Option<ScheduledFault>,
    /// A tool that it does not list.
    pub hidden_tool: Option<String>,
    /// While this file exists, each call fails as if a service behind the server were down.
    pub outage_file: Option<PathBuf>,
}

impl ServerSettings {
    /// Reads `ROLLBACKD_VERSION`, `DEMO_FAULT`, `DEMO_FAULT_AT` (Unix time in milliseconds; by default
    /// at once), `DEMO_WITHOUT` (a tool that the server does not list) and `DEMO_OUTAGE` (the file of
    /// an outage).
    ///
    /// # Errors
    /// When a variable is wrong.
    pub(super) fn from_env() -> Result<Self, String> {
        Ok(Self {
            version: env_var("ROLLBACKD_VERSION").unwrap_or_else(|| "dev".to_owned()),
            fault: ScheduledFault::from_env()?,
            hidden_tool: env_var("DEMO_WITHOUT"),
            outage_file: env_var("DEMO_OUTAGE").map(PathBuf::from),
        })
    }
}

impl ScheduledFault {
    fn from_env() -> Result<Option<Self>, String> {
        let Some(fault) = env_var("DEMO_FAULT") else { return Ok(None) };
        let fault = fault.parse().map_err(|why| format!("DEMO_FAULT: {why}"))?;
        let at = env_var("DEMO_FAULT_AT").unwrap_or_else(|| "0".to_owned());
        let at = at.parse().map_err(|_| {
            format!("DEMO_FAULT_AT is {at:?}; write a Unix time in whole milliseconds")
        })?;
        Ok(Some(Self { fault, at: Moment(at) }))
    }
}

/// A variable of the environment; an empty one counts as not set.
pub(super) fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
