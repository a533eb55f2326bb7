//! Whether a client may have another connection. Over the bound of its address, the connection of that
//! address that is idle longest closes. Where none is idle, the new one gets a response that says so.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Service;
use crate::open_files;
use crate::proxy::backend::address_limits::{AddressLimits, AddressPlace, AddressRequests};
use crate::proxy::server::places::OpenConnections;

/// Connections of one address beyond its bound that still get a response. Those beyond close at once.
const REFUSED_MAX: usize = 64;

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) struct Admission {
    /// Whether its requests are refused.
    pub is_refused: bool,
    /// Its place. A trusted proxy has none: its clients count by their requests.
    place: Option<AddressPlace>,
}

impl Admission {
    /// Decides about a connection of this address; `None` closes it.
    pub(super) fn of(
        addresses: &Arc<AddressLimits>,
        service: &Service,
        open: &OpenConnections,
        peer: IpAddr,
    ) -> Option<Self> {
        let address = peer.to_canonical();
        if service.trusted_proxies.contains(address) {
            return Some(Self { is_refused: false, place: None });
        }
        let max = service.limits.address_connections_max.min(open_files::address_share());
        if let Some(place) = addresses.enter(address, max) {
            return Some(Self { is_refused: false, place: Some(place) });
        }
        let place = addresses.enter(address, max.saturating_add(REFUSED_MAX))?;
        let is_refused = !open.close_longest_idle_of(address);
        Some(Self { is_refused, place: Some(place) })
    }

    /// The open requests of its address; `None` for a trusted proxy.
    pub(super) fn address_requests(&self) -> Option<AddressRequests> {
        self.place.as_ref().map(AddressPlace::requests)
    }
}
