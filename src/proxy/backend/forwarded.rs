//! The headers that name the client to a release: `X-Forwarded-For`, `-Host`, `-Proto`, `-Port`, and
//! `Forwarded` (RFC 7239).
//!
//! A trusted proxy in front knows the client, so its headers are kept and extended. From others they
//! are replaced: a client could write anything.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::proxy::backend::client_request::{ClientRequest, Peer, called_host};
use crate::proxy::backend::headers::SHADOW;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The proxy itself speaks plain HTTP.
const HTTP: HeaderValue = HeaderValue::from_static("http");

/// Sets the headers that name the client. `host` is the name that it called.
pub(super) fn set(headers: &mut HeaderMap, peer: Peer, host: Option<HeaderValue>) {
    // The proxy itself sends 100 Continue when it reads the body.
    headers.remove(header::EXPECT);
    // Only the proxy may set it: a release may treat shadow calls differently.
    headers.remove(SHADOW);
    if headers.contains_key(header::FORWARDED) {
        let previous = joined(headers, &header::FORWARDED).filter(|_| peer.is_trusted_proxy);
        set_list(headers, header::FORWARDED, previous, &forwarded_element(peer, host.as_ref()));
    }
    if peer.is_trusted_proxy {
        for name in [X_FORWARDED_HOST, X_FORWARDED_PROTO, X_FORWARDED_PORT] {
            join_lines(headers, name);
        }
        headers.entry(X_FORWARDED_PROTO).or_insert(HTTP);
        if let Some(host) = host {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
    } else {
        headers.insert(X_FORWARDED_PROTO, HTTP);
        match host {
            Some(host) => _ = headers.insert(X_FORWARDED_HOST, host),
            None => _ = headers.remove(X_FORWARDED_HOST),
        }
        if headers.contains_key(X_FORWARDED_PORT) {
            headers.insert(X_FORWARDED_PORT, peer.local_port.into());
        }
    }
    let previous = joined(headers, &X_FORWARDED_FOR).filter(|_| peer.is_trusted_proxy);
    set_list(headers, X_FORWARDED_FOR, previous, &peer.address.to_string());
}

/// The address of the client: that of the peer, or behind a trusted proxy the last one in
/// `X-Forwarded-For` that is none itself. `None` where a trusted proxy does not tell it.
pub(in crate::proxy) fn client_address(
    peer: Peer,
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    if !peer.is_trusted_proxy {
        return Some(peer.address);
    }
    // Each proxy appends the address that it sees.
    for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for hop in line.to_str().ok()?.rsplit(',') {
            // The entries before one that is no address cannot be checked.
            let address = parse_hop(hop.trim())?;
            if !is_trusted(address) {
                return Some(address);
            }
        }
    }
    None
}

/// One entry of `X-Forwarded-For`; some proxies add the port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

/// The origin under which the client reached the service, such as `https://mcp.example.org`.
pub(in crate::proxy) fn public_origin(request: &ClientRequest) -> Option<String> {
    let headers = &request.head.headers;
    let trusted = |name: HeaderName| {
        let value = headers.get(name).filter(|_| request.peer.is_trusted_proxy)?;
        // The first proxy is the one that the client reached.
        Some(value.to_str().ok()?.split(',').next()?.trim().to_owned())
    };
    let parameter = |name: &str| {
        let value = headers.get(header::FORWARDED).filter(|_| request.peer.is_trusted_proxy)?;
        let first = value.to_str().ok()?.split(',').next()?;
        let pairs = first.split(';').filter_map(|pair| pair.trim().split_once('='));
        let found = pairs.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(found.1.trim_matches('"').to_owned())
    };
    let scheme = trusted(X_FORWARDED_PROTO).or_else(|| parameter("proto"));
    let scheme = scheme.unwrap_or_else(|| "http".to_owned()).to_ascii_lowercase();
    let called = || called_host(&request.head)?.to_str().ok().map(str::to_owned);
    let mut host = trusted(X_FORWARDED_HOST).or_else(|| parameter("host")).or_else(called)?;
    let default_port = if scheme == "https" { "443" } else { "80" };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if let Some(port) = trusted(X_FORWARDED_PORT).filter(|port| !has_port && port != default_port)
        && port.parse::<u16>().is_ok()
    {
        host = format!("{host}:{port}");
    }
    Some(format!("{scheme}://{host}"))
}

/// This proxy's element of `Forwarded`.
fn forwarded_element(peer: Peer, host: Option<&HeaderValue>) -> String {
    let client = match peer.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let host = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains('"'));
    let host = host.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    format!("for={client}{host};proto=http")
}

/// All lines of a header as one list; `None` without a line.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter();
    let mut list = lines.next()?.as_bytes().to_vec();
    for line in lines {
        list.extend(b", ");
        list.extend(line.as_bytes());
    }
    Some(list)
}

fn set_list(headers: &mut HeaderMap, name: HeaderName, list: Option<Vec<u8>>, last: &str) {
    let mut list = list.filter(|list| !list.is_empty()).unwrap_or_default();
    if !list.is_empty() {
        list.extend(b", ");
    }
    list.extend(last.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(name, value);
    }
}

/// Makes one line of a header that came in several.
pub(super) fn join_lines(headers: &mut HeaderMap, name: HeaderName) {
    if headers.get_all(&name).iter().nth(1).is_some()
        && let Some(list) = joined(headers, &name)
        && let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list))
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    fn request(is_trusted_proxy: bool, lines: &[(&'static str, &'static str)]) -> ClientRequest {
        let mut head = http::Request::new(()).into_parts().0;
        for (name, value) in lines {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        let peer = Peer { address: CLIENT, is_trusted_proxy, local_port: 8080 };
        ClientRequest::of(peer, head)
    }

    fn sent(request: &ClientRequest) -> Vec<(String, String)> {
        let mut headers = request.head.headers.clone();
        set(&mut headers, request.peer, Some(HeaderValue::from_static("mcp.local:8080")));
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let mut all: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        all.sort();
        all
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    const FRONT: &[(&str, &str)] = &[
        ("x-forwarded-for", "203.0.113.66"),
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "mcp.example.org"),
        ("x-forwarded-port", "444"),
        ("forwarded", "for=198.51.100.7;proto=https;host=mcp.example.org"),
    ];

    #[test]
    fn headers_of_a_trusted_proxy_are_kept_and_extended() {
        let request = request(true, FRONT);
        let forwarded = "for=198.51.100.7;proto=https;host=mcp.example.org, \
                         for=192.0.2.9;host=\"mcp.local:8080\";proto=http";
        let want = pairs(&[
            ("forwarded", forwarded),
            ("x-forwarded-for", "203.0.113.66, 198.51.100.7, 192.0.2.9"),
            ("x-forwarded-host", "mcp.example.org"),
            ("x-forwarded-port", "444"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(sent(&request), want);
        assert_eq!(public_origin(&request).as_deref(), Some("https://mcp.example.org:444"));
    }

    #[test]
    fn headers_of_others_are_replaced() {
        let request = request(false, FRONT);
        let want = pairs(&[
            ("forwarded", "for=192.0.2.9;host=\"mcp.local:8080\";proto=http"),
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-host", "mcp.local:8080"),
            ("x-forwarded-port", "8080"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(sent(&request), want);
        assert_eq!(public_origin(&request), None);
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        let of = |lines| {
            let request = request(true, lines);
            client_address(request.peer, &request.head.headers, |it| it.is_loopback())
        };
        let last = Some("198.51.100.7".parse::<IpAddr>().unwrap());
        assert_eq!(of(FRONT), last);
        assert_eq!(of(&[("x-forwarded-for", "1.1.1.1, 198.51.100.7:99, 127.0.0.1")]), last);
        assert_eq!(of(&[("x-forwarded-for", "::ffff:198.51.100.7")]), last);
        let v6 = Some("2001:db8::7".parse::<IpAddr>().unwrap());
        assert_eq!(of(&[("x-forwarded-for", "[2001:db8::7]")]), v6);
        assert_eq!(of(&[("x-forwarded-for", "[2001:db8::7]:443")]), v6);
        assert_eq!(of(&[("x-forwarded-for", "198.51.100.7, unknown")]), None);
        assert_eq!(of(&[]), None);
        let direct = request(false, FRONT);
        assert_eq!(client_address(direct.peer, &direct.head.headers, |_| true), Some(CLIENT));
    }

    #[test]
    fn the_origin_is_read_from_forwarded_too() {
        let line = "for=198.51.100.7; Host=\"mcp.example.org\"; proto=https, for=10.0.0.1";
        let request = request(true, &[("forwarded", line)]);
        assert_eq!(public_origin(&request).as_deref(), Some("https://mcp.example.org"));
    }
}
