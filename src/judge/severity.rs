//! How bad a breach is.

use crate::model::Severity;

/// At this share of failures a drain costs its sessions more than it saves.
pub const CRITICAL: f64 = 0.5;

/// The severity of a breach found in requests; `failing` is the lower 5 % bound of their failure
/// rate since the onset. A release that does not answer at all is found by liveness.
pub fn of(failing: f64) -> Severity {
    if failing >= CRITICAL { Severity::Critical } else { Severity::Degraded }
}
