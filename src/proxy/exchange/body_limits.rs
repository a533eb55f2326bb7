//! How much a client may send as a body, and how slowly.

use std::sync::Arc;

use crate::config::ProxyLimits;
use crate::proxy::backend::client_connection::ClientConnectionState;
use crate::proxy::backend::client_request::ClientRequest;

/// What a client may send, and how slowly.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct BodyLimits {
    /// Bytes of a body.
    pub max: u64,
    /// Bytes a second.
    pub min_rate: u64,
    /// The connection that it comes on.
    pub connection: Arc<ClientConnectionState>,
}

impl BodyLimits {
    /// Those of a service for this request.
    pub(in crate::proxy) fn of(limits: &ProxyLimits, request: &ClientRequest) -> Self {
        let connection = Arc::clone(&request.connection);
        Self { max: limits.body_max, min_rate: limits.min_rate, connection }
    }
}
