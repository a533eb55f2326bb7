//! Whether the path of a request is that of the MCP endpoint, however the client spells it.
//!
//! Routers differ in what they take: Starlette redirects `/mcp` to `/mcp/`, Express serves both and
//! ignores case, and most decode `%6D`. The release decides; the proxy must know the request as MCP.

use std::borrow::Cow;

/// How the path of a request compares with the path of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointPath {
    /// The same, apart from slashes at its end.
    Same,
    /// Another spelling: doubled slashes, dot segments, percent-encoding, or upper and lower case.
    Variant,
    /// Another path.
    Other,
}

impl EndpointPath {
    /// Compares a path with that of the endpoint. `exact_case`: `/MCP` is another path than `/mcp`.
    pub(crate) fn of(path: &str, endpoint: &str, exact_case: bool) -> Self {
        if path == endpoint || path.trim_end_matches('/') == endpoint.trim_end_matches('/') {
            return Self::Same;
        }
        let (path, endpoint) = (segments(path), segments(endpoint));
        let is_same = |(a, b): (&Cow<'_, str>, &Cow<'_, str>)| {
            if exact_case { a == b } else { a.eq_ignore_ascii_case(b) }
        };
        let matches = path.len() == endpoint.len() && path.iter().zip(&endpoint).all(is_same);
        if matches { Self::Variant } else { Self::Other }
    }
}

/// The segments of a path: without empty and dot segments, unreserved characters decoded
/// (RFC 3986, 6.2.2).
fn segments(path: &str) -> Vec<Cow<'_, str>> {
    let mut segments = Vec::new();
    for segment in path.split('/').map(decode_unreserved) {
        match segment.as_ref() {
            "" | "." => (),
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments
}

fn decode_unreserved(segment: &str) -> Cow<'_, str> {
    let mut parts = segment.split('%');
    let first = parts.next().unwrap_or_default();
    let mut decoded = first.to_owned();
    let mut changed = false;
    for part in parts {
        changed = true;
        let byte = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.map(char::from).filter(|it| is_unreserved(*it)) {
            Some(letter) => {
                decoded.push(letter);
                decoded.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    if changed { decoded.into() } else { segment.into() }
}

fn is_unreserved(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_endpoint_is_known() {
        let of = |path| EndpointPath::of(path, "/mcp", false);
        for path in ["/mcp", "/mcp/", "/mcp//"] {
            assert_eq!(of(path), EndpointPath::Same, "{path}");
        }
        for path in
            ["//mcp", "/MCP", "/McP/", "/%6Dcp", "/%6dc%70", "/./mcp", "/x/../mcp", "/%2e/mcp"]
        {
            assert_eq!(of(path), EndpointPath::Variant, "{path}");
        }
        for path in ["/", "", "/mcp/x", "/mcp%2F", "/mcp%2", "/mcp%", "/mc", "/favicon.ico", "*"] {
            assert_eq!(of(path), EndpointPath::Other, "{path}");
        }
    }

    #[test]
    fn case_and_slashes_count_as_configured() {
        assert_eq!(EndpointPath::of("/MCP", "/mcp", true), EndpointPath::Other);
        assert_eq!(EndpointPath::of("//mcp", "/mcp", true), EndpointPath::Variant);
        assert_eq!(EndpointPath::of("/a/mcp", "/a/mcp/", false), EndpointPath::Same);
        assert_eq!(EndpointPath::of("/", "/", false), EndpointPath::Same);
        assert_eq!(EndpointPath::of("//", "/", false), EndpointPath::Same);
        assert_eq!(EndpointPath::of("/a%2Fb", "/a%2fb", false), EndpointPath::Variant);
    }
}
