//! How much a client may send as a body, and how slowly.

use crate::config::ProxyLimits;

/// What a client may send, and how slowly.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct BodyLimits {
    /// Bytes of a body.
    pub max: u64,
    /// Bytes a second.
    pub min_rate: u64,
}

impl BodyLimits {
    /// Those of a service.
    pub(in crate::proxy) fn of(limits: &ProxyLimits) -> Self {
        Self { max: limits.body_max, min_rate: limits.min_rate }
    }
}
