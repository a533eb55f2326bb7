//! HTTP headers that the proxy removes or adds between client and release.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers of a request or response. hyper reads as many into memory of the stack; for more it would
/// allocate 16 KiB for each request and its response.
pub(in crate::proxy) const HEADERS_MAX: usize = 100;
/// Bytes of the head of a request or response.
pub(in crate::proxy) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Marks a shadow call: the proxy compares releases with it, and no client waits for it.
pub(in crate::proxy) const SHADOW: HeaderName = HeaderName::from_static("rollbackd-shadow");

/// The limits of a connection that stays open.
pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Headers for one connection only (RFC 9110, 7.6.1, and others seen in use).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    KEEP_ALIVE,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Removes the headers for one connection only, and those that `Connection` names.
pub(in crate::proxy) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // `TE: trailers` allows trailers, which the proxy forwards. `Connection` names `TE`.
    let te = headers.remove(header::TE);
    let trailers = te.as_ref().and_then(|te| te.to_str().ok()).is_some_and(|te| {
        te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    });
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("authorization", "Bearer 1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["authorization"]);
    }
}
