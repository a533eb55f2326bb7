//! A request as the client sent it, and where it comes from.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, header, request};

use crate::mcp::endpoint::EndpointPath;

use crate::proxy::backend::client_connection::ClientConnectionState;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Peer {
    /// Its address; that of an IPv4 peer on a listener for both is an IPv4 address.
    pub address: IpAddr,
    /// Whether it is a proxy in front, whose forwarding headers are believed.
    pub is_trusted_proxy: bool,
    /// The port that it connected to.
    pub local_port: u16,
}

/// A request as the client sent it, without its body.
pub(in crate::proxy) struct ClientRequest {
    /// Where it comes from.
    pub peer: Peer,
    /// The address of the client; `None` where a trusted proxy does not tell it.
    pub client: Option<IpAddr>,
    /// The connection that it came on.
    pub connection: Arc<ClientConnectionState>,
    /// Its head.
    pub head: request::Parts,
    /// Whether its path is that of the endpoint.
    pub path: EndpointPath,
}

impl ClientRequest {
    /// Whether it may be MCP, so that the proxy reads the response.
    pub(in crate::proxy) fn is_mcp(&self) -> bool {
        self.path != EndpointPath::Other || self.head.method == Method::POST
    }
}

#[cfg(test)]
impl ClientRequest {
    /// A request from this peer.
    pub(in crate::proxy) fn of(peer: Peer, head: request::Parts) -> Self {
        let address = (peer.address, 50_000).into();
        let connection = Arc::new(ClientConnectionState::new(address, peer.local_port, false));
        let client = (!peer.is_trusted_proxy).then_some(peer.address);
        Self { peer, client, connection, head, path: EndpointPath::Same }
    }
}

impl fmt::Debug for ClientRequest {
    /// Without the headers: they may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRequest").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The name that the client called: that of the request target where there is one, which the host
/// check saw.
pub(in crate::proxy) fn called_host(head: &request::Parts) -> Option<HeaderValue> {
    let target_host = head.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    target_host.or_else(|| head.headers.get(header::HOST).cloned())
}
