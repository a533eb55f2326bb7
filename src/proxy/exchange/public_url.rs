//! Turns URLs of a slot in a response back into those that the client called.
//!
//! A release knows only the `Host` that the proxy sent. So its redirects, its `WWW-Authenticate` and
//! its OAuth metadata name its slot, which clients cannot reach.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

use crate::config::{Address, Service, UpstreamHost};
use crate::proxy::backend::Backend;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::forwarded::public_origin;

/// The headers that contain URLs of the server.
const URL_HEADERS: [HeaderName; 3] =
    [header::LOCATION, header::CONTENT_LOCATION, header::WWW_AUTHENTICATE];
/// The names of this host.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The URLs of one slot, and the origin that replaces them.
struct SlotUrls<'a> {
    backend: &'a Backend,
    service: &'a Service,
    request: &'a ClientRequest,
}

/// Turns the URLs of a slot in the headers of a response back.
pub(super) fn restore_headers(
    headers: &mut HeaderMap,
    backend: &Backend,
    service: &Service,
    request: &ClientRequest,
) {
    let urls = SlotUrls { backend, service, request };
    for name in URL_HEADERS {
        let Entry::Occupied(mut values) = headers.entry(name) else { continue };
        for value in values.iter_mut() {
            let restored = value.to_str().ok().and_then(|text| urls.restore(text));
            if let Some(restored) = restored.and_then(|it| HeaderValue::from_str(&it).ok()) {
                *value = restored;
            }
        }
    }
}

/// Turns the URLs of a slot in a whole JSON document back. Returns whether it changed.
pub(super) fn restore_metadata(
    pieces: &mut VecDeque<Bytes>,
    backend: &Backend,
    service: &Service,
    request: &ClientRequest,
) -> bool {
    let urls = SlotUrls { backend, service, request };
    let document: Vec<u8> = pieces.iter().flatten().copied().collect();
    let restored = std::str::from_utf8(&document).ok().and_then(|text| urls.restore(text));
    let Some(restored) = restored else { return false };
    *pieces = VecDeque::from([Bytes::from(restored)]);
    true
}

impl SlotUrls<'_> {
    /// The text with other URLs; `None` when none changes.
    fn restore(&self, text: &str) -> Option<String> {
        let (mut out, mut rest, mut origin) = (String::new(), text, None);
        while let Some(at) = rest.find("//").or_else(|| rest.find("\\/\\/")) {
            // JSON may escape each slash.
            let slashes = if rest.get(at..).is_some_and(|it| it.starts_with('\\')) { 4 } else { 2 };
            let (before, after) = rest.split_at_checked(at + slashes)?;
            let end = after.find(|it: char| !is_authority(it)).unwrap_or(after.len());
            let (authority, after) = after.split_at_checked(end)?;
            let scheme = scheme_of(before.get(..at).unwrap_or_default());
            rest = after;
            let origin = match scheme {
                Some(_) if self.is_slot(authority) => {
                    origin.get_or_insert_with(|| public_origin(self.request)).as_deref()
                }
                _ => None,
            };
            let split = origin.and_then(|it| it.split_once("://"));
            match (scheme, split) {
                (Some(scheme), Some((public_scheme, public_host))) => {
                    out.push_str(before.get(..at - scheme.len()).unwrap_or_default());
                    if !scheme.is_empty() {
                        out.push_str(public_scheme);
                        out.push(':');
                    }
                    out.push_str(before.get(at..).unwrap_or_default());
                    out.push_str(public_host);
                }
                _ => out.extend([before, authority]),
            }
        }
        out.push_str(rest);
        (out != text).then_some(out)
    }

    /// Whether an authority is the `Host` that the release got, or its address.
    fn is_slot(&self, authority: &str) -> bool {
        let name = match &self.service.upstream_host {
            UpstreamHost::Name(name) => Some(name.as_str()),
            UpstreamHost::Slot | UpstreamHost::Client => None,
        };
        let is_sent = authority == self.backend.authority || name == Some(authority);
        let Address::Tcp(address) = &self.backend.address else { return is_sent };
        let is_local = address.ip().is_loopback()
            && authority.rsplit_once(':').is_some_and(|(host, port)| {
                LOOPBACK_NAMES.contains(&host) && port == address.port().to_string()
            });
        is_sent || is_local
    }
}

/// The scheme at the end of a text, with its colon; empty for a reference without one, such as
/// `//host/path`. `None` when `//` starts no authority.
fn scheme_of(before: &str) -> Option<&str> {
    let schemes = ["https:", "http:"];
    let found = schemes.into_iter().find(|scheme| {
        let at = before.len().checked_sub(scheme.len());
        at.and_then(|at| before.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(scheme))
    });
    match found {
        Some(scheme) => before.get(before.len() - scheme.len()..),
        None => (before.is_empty() || before.ends_with(['"', '\''])).then_some(""),
    }
}

fn is_authority(it: char) -> bool {
    it.is_ascii_alphanumeric() || ['-', '.', '_', ':', '[', ']', '@', '%'].contains(&it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ReleaseNumber;
    use crate::proxy::backend::client_request::Peer;

    fn restored(text: &str) -> Option<String> {
        let example = include_str!("../../../config.toml.example");
        let services = crate::config::parse("x", example).unwrap().settings.services;
        let service = services.into_values().next().unwrap();
        let address = Address::Tcp(([127, 0, 0, 1], 9001).into());
        let number = ReleaseNumber(1);
        let backend =
            Backend::new(number, address, "127.0.0.1:9001".to_owned(), Default::default());
        let mut head = http::Request::new(()).into_parts().0;
        head.headers.insert("host", HeaderValue::from_static("localhost:8080"));
        head.headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        head.headers.insert("x-forwarded-host", HeaderValue::from_static("mcp.example.org"));
        let address = [127, 0, 0, 1].into();
        let peer = Peer { address, is_trusted_proxy: true, local_port: 8080 };
        let request = ClientRequest::of(peer, head);
        SlotUrls { backend: &backend, service: &service, request: &request }.restore(text)
    }

    #[tokio::test]
    async fn urls_of_the_slot_become_those_of_the_client() {
        for (sent, want) in [
            ("http://127.0.0.1:9001/mcp/", "https://mcp.example.org/mcp/"),
            ("HTTP://localhost:9001", "https://mcp.example.org"),
            ("//127.0.0.1:9001/x//y", "//mcp.example.org/x//y"),
            (
                r#"Bearer a="http://127.0.0.1:9001/a", b="http://127.0.0.1:9001/b""#,
                r#"Bearer a="https://mcp.example.org/a", b="https://mcp.example.org/b""#,
            ),
            (
                r#"{"resource":"http:\/\/127.0.0.1:9001\/mcp"}"#,
                r#"{"resource":"https:\/\/mcp.example.org\/mcp"}"#,
            ),
        ] {
            assert_eq!(restored(sent).as_deref(), Some(want), "{sent}");
        }
    }

    #[tokio::test]
    async fn other_urls_stay() {
        for text in [
            "/mcp/",
            "http://127.0.0.1:90012/mcp",
            "http://127.0.0.1/mcp",
            "https://login.example.org/?back=http%3A%2F%2F127.0.0.1%3A9001",
            "http://x@127.0.0.1:9001/",
            "a//127.0.0.1:9001",
            "",
            "//",
        ] {
            assert_eq!(restored(text), None, "{text}");
        }
    }
}
