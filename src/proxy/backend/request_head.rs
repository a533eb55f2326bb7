//! The head of a request, as the client sent it and as a release gets it.

use std::fmt;
use std::net::IpAddr;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri, Version, header, request};

use crate::mcp::headers::MCP_SESSION_ID;
use crate::proxy::backend::headers;

/// A request as the client sent it, without its body.
pub(in crate::proxy) struct ClientRequest {
    /// The address of the client.
    pub peer: IpAddr,
    /// Its head.
    pub head: request::Parts,
}

impl fmt::Debug for ClientRequest {
    /// Without the headers: they may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRequest").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The release that a head is for.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct RequestTarget<'a> {
    /// The `Host` of the release.
    pub authority: &'a str,
    /// The session's id at the release; empty where it has none.
    pub backend_id: &'a str,
}

/// The head of a client's request, for a release.
pub(in crate::proxy) fn to_backend_head(
    request: &ClientRequest,
    target: RequestTarget<'_>,
    endpoint_path: &str,
) -> request::Parts {
    let mut head = request.head.clone();
    let target_host = head.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    // The name that the host check saw: that of the request target where there is one.
    let host = target_host.or_else(|| head.headers.get(header::HOST).cloned());
    if head.uri.path() == endpoint_path {
        // The proxy cannot parse or extend a compressed response.
        head.headers.remove(header::ACCEPT_ENCODING);
    }
    headers::strip_hop_by_hop(&mut head.headers);
    headers::set_forwarded(&mut head.headers, request.peer, host);
    let path = head.uri.path_and_query().cloned();
    let path = path.unwrap_or(PathAndQuery::from_static("/"));
    head.uri = backend_uri(target.authority, path).unwrap_or_default();
    head.version = Version::HTTP_11;
    if let Ok(host) = HeaderValue::from_str(target.authority) {
        head.headers.insert(header::HOST, host);
    }
    let id = Some(target.backend_id).filter(|id| !id.is_empty());
    match id.and_then(|id| HeaderValue::from_str(id).ok()) {
        Some(id) => head.headers.insert(MCP_SESSION_ID, id),
        None => head.headers.remove(MCP_SESSION_ID),
    };
    head
}

/// The URI of a path at a release.
pub(in crate::proxy) fn backend_uri(authority: &str, path: PathAndQuery) -> Option<Uri> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Authority::try_from(authority).ok();
    uri.path_and_query = Some(path);
    Uri::from_parts(uri).ok()
}
