//! How bad a breach is.

use crate::model::Severity;

/// At this share of failures a drain costs its sessions more than it saves.
pub const CRITICAL_FAILURE_RATE: f64 = 0.5;

/// The severity of a breach found in requests; `failure_rate_lower` is the lower 5 % bound of their failure
/// rate since the onset. A release that does not answer at all is found by liveness.
pub fn from_failure_rate(failure_rate_lower: f64) -> Severity {
    if failure_rate_lower >= CRITICAL_FAILURE_RATE {
        Severity::Critical
    } else {
        Severity::Degraded
    }
}
