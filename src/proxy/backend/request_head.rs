//! The head of a request, as a release gets it.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Version, header, request};

use crate::config::{Service, UpstreamHost};
use crate::mcp::headers::MCP_SESSION_ID;
use crate::proxy::backend::client_request::{ClientRequest, called_host};
use crate::proxy::backend::{forwarded, headers};

/// The release that a head is for.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct RequestTarget<'a> {
    /// The `Host` that names its slot.
    pub authority: &'a str,
    /// The session's id at the release; empty where it has none.
    pub backend_id: &'a str,
}

/// The head of a client's request, for a release.
pub(in crate::proxy) fn to_backend_head(
    request: &ClientRequest,
    target: RequestTarget<'_>,
    service: &Service,
) -> request::Parts {
    let mut head = request.head.clone();
    let host = called_host(&head);
    if request.is_mcp() || is_metadata(head.uri.path()) {
        // The proxy cannot parse, extend or rewrite a compressed response.
        head.headers.remove(header::ACCEPT_ENCODING);
    }
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    headers::strip_hop_by_hop(&mut head.headers);
    let upstream_host = match &service.upstream_host {
        UpstreamHost::Slot => HeaderValue::from_str(target.authority).ok(),
        UpstreamHost::Name(name) => HeaderValue::from_str(name).ok(),
        UpstreamHost::Client => host.clone(),
    };
    forwarded::set(&mut head.headers, request.peer, host);
    let path = head.uri.path_and_query().cloned();
    head.uri = path.unwrap_or(PathAndQuery::from_static("/")).into();
    head.version = Version::HTTP_11;
    if let Some(host) = upstream_host {
        head.headers.insert(header::HOST, host);
    }
    let id = Some(target.backend_id).filter(|id| !id.is_empty());
    match id.and_then(|id| HeaderValue::from_str(id).ok()) {
        Some(id) => head.headers.insert(MCP_SESSION_ID, id),
        None => head.headers.remove(MCP_SESSION_ID),
    };
    head
}

/// Whether a path is that of OAuth metadata (RFC 8414, RFC 9728), which contains URLs of the server.
pub(in crate::proxy) fn is_metadata(path: &str) -> bool {
    let (_, name) = path.split_once("/.well-known/").unwrap_or_default();
    name.starts_with("oauth-") || name.starts_with("openid-")
}

/// HTTP/2 may split `Cookie` into several fields; HTTP/1.1 must not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let all: Vec<_> = [first, second].into_iter().chain(cookies).map(|it| it.as_bytes()).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::backend::client_request::Peer;

    #[test]
    fn cookies_of_http2_become_one_line() {
        let example = include_str!("../../../config.toml.example");
        let services = crate::config::parse("x", example).unwrap().settings.services;
        let service = services.into_values().next().unwrap();
        let mut head = http::Request::new(()).into_parts().0;
        head.version = Version::HTTP_2;
        for cookie in ["sid=1", "csrf=2", "x=3"] {
            head.headers.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        let address = [127, 0, 0, 1].into();
        let peer = Peer { address, is_trusted_proxy: true, local_port: 8080 };
        let target = RequestTarget { authority: "127.0.0.1:9001", backend_id: "" };
        let sent = to_backend_head(&ClientRequest::of(peer, head), target, &service);
        let cookies: Vec<_> = sent.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["sid=1; csrf=2; x=3"]);
    }
}
