//! What counts an open request for the address of its client, until the end of its response.

use crate::proxy::backend::address_limits::{AddressPlace, AddressRequest};

/// The place of an open request.
#[derive(Debug, Default)]
pub(in crate::proxy) enum RequestPlace {
    /// It counts nowhere.
    #[default]
    Unbounded,
    /// On a connection that counts for its address, or of a trusted proxy that names no client.
    OnConnection(#[expect(dead_code, reason = "counts until it is dropped")] AddressRequest),
    /// Of a client of a trusted proxy.
    BehindProxy(#[expect(dead_code, reason = "counts until it is dropped")] AddressPlace),
}
