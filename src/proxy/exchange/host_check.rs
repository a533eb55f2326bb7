//! Checks `Host` and `Origin` before anything else, so that a web page cannot reach a local server
//! under its own name (DNS rebinding).

use std::collections::BTreeSet;

use http::{HeaderMap, StatusCode, Uri, header};

/// Why a request is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// The status of the response.
    pub status: StatusCode,
    /// Its text.
    pub text: &'static str,
}

impl Rejected {
    fn bad_request(text: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text }
    }

    fn forbidden(text: &'static str) -> Self {
        Self { status: StatusCode::FORBIDDEN, text }
    }
}

/// Checks a request against the names that the configuration allows.
pub(crate) fn check(
    hosts: &BTreeSet<String>,
    origins: &BTreeSet<String>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Rejected> {
    let mut host_headers = headers.get_all(header::HOST).iter();
    let (host, second) = (host_headers.next(), host_headers.next());
    if second.is_some() {
        return Err(Rejected::bad_request("more than one Host header"));
    }
    // RFC 9113, 8.3.1. Otherwise a name that is not served would reach the release as the client's.
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return Err(Rejected::bad_request("user information before the host"));
    }
    let host = uri.host().or_else(|| host.and_then(|host| host.to_str().ok()).map(without_port));
    let Some(host) = host else {
        return Err(Rejected::bad_request("no Host header"));
    };
    if !is_allowed(hosts, host) {
        return Err(Rejected::forbidden("Host not allowed; add it to `hosts`"));
    }
    let mut origin_headers = headers.get_all(header::ORIGIN).iter();
    match (
        origin_headers.next().map(|origin| origin.to_str().unwrap_or_default()),
        origin_headers.next(),
    ) {
        (None, None) => Ok(()),
        (Some(origin), None) if is_allowed(origins, origin) || is_own_origin(hosts, origin) => {
            Ok(())
        }
        _ => Err(Rejected::forbidden("Origin not allowed; add it to `origins`")),
    }
}

fn is_allowed(names: &BTreeSet<String>, name: &str) -> bool {
    names.contains("*") || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// A page of an allowed host may send requests to that host.
fn is_own_origin(hosts: &BTreeSet<String>, origin: &str) -> bool {
    let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    !hosts.contains("*") && name.is_some_and(|name| is_allowed(hosts, without_port(name)))
}

/// `localhost:80` -> `localhost`, `[::1]:80` -> `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_status(host: Option<&str>, origin: Option<&str>) -> Option<u16> {
        let hosts = BTreeSet::from(["localhost".to_owned(), "[::1]".to_owned()]);
        let origins = BTreeSet::from(["https://app.example".to_owned()]);
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let result = check(&hosts, &origins, &Uri::from_static("/mcp"), &headers);
        result.err().map(|rejected| rejected.status.as_u16())
    }

    #[test]
    fn only_named_hosts_and_origins_pass() {
        for host in ["localhost", "localhost:8080", "LOCALHOST:1", "[::1]:8080", "[::1]"] {
            assert_eq!(check_status(Some(host), None), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "evil.example:8080", ""] {
            assert_eq!(check_status(Some(host), None), Some(403), "{host}");
        }
        assert_eq!(check_status(None, None), Some(400));
        let names = BTreeSet::from(["localhost".to_owned()]);
        for (uri, status) in [("http://localhost/mcp", None), ("http://a@localhost/mcp", Some(400))]
        {
            let result = check(&names, &BTreeSet::new(), &uri.parse().unwrap(), &HeaderMap::new());
            assert_eq!(result.err().map(|it| it.status.as_u16()), status, "{uri}");
        }
        for origin in ["https://app.example", "http://localhost:3000", "http://[::1]"] {
            assert_eq!(check_status(Some("localhost"), Some(origin)), None, "{origin}");
        }
        for origin in ["null", "https://evil.example", "http://localhost.evil.example", "localhost"]
        {
            assert_eq!(check_status(Some("localhost"), Some(origin)), Some(403), "{origin}");
        }
    }
}
