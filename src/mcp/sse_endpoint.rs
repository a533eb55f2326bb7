//! The `endpoint` event of the HTTP+SSE transport (2024-11-05): where the client of a stream posts its
//! messages. <https://modelcontextprotocol.io/specification/2024-11-05/basic/transports>
//!
//! The URL names the session, nearly always in a parameter of its query, whose name servers choose
//! freely. The client posts to that URL, and may add parameters to it.

use super::sse_splitter::fields;

/// Parameters of a query that are compared.
const PARAMETERS_MAX: usize = 16;
/// How servers call the session, without `_` and `-`, in lower case.
const SESSION_NAMES: [&str; 3] = ["sessionid", "session", "sid"];

/// The URL in an event, as the server wrote it; `None` if it is no `endpoint` event.
pub(crate) fn endpoint_url(event: &[u8]) -> Option<&str> {
    let of = |wanted: &str| fields(event).find(|(name, _)| *name == wanted).map(|it| it.1.trim());
    of("event").filter(|kind| *kind == "endpoint")?;
    of("data").filter(|url| !url.is_empty())
}

/// The path and query of a URL, relative to the path of the stream (RFC 3986, section 5.2).
pub(crate) fn path_and_query(url: &str, stream_path: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let after_scheme = ["http://", "https://", "//"].iter().find_map(|it| url.strip_prefix(it));
    if let Some(rest) = after_scheme {
        let path = rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/");
        return if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
    }
    match url.chars().next() {
        Some('/') => url.to_owned(),
        Some('?') => format!("{stream_path}{url}"),
        _ => {
            let folder = stream_path.rfind('/').and_then(|at| stream_path.get(..=at));
            format!("{}{url}", folder.unwrap_or("/"))
        }
    }
}

/// What of the URL of an `endpoint` event names the session.
pub(crate) fn session_key(path_and_query: &str) -> String {
    let is_session = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name: String = name.chars().filter(|it| !matches!(it, '_' | '-')).collect();
        SESSION_NAMES.contains(&name.to_ascii_lowercase().as_str())
    };
    // A parameter with another name may be the same in each session, such as the key of an API.
    parameters(path_and_query).find(is_session).unwrap_or(path_and_query).to_owned()
}

/// What may name the session of a POST: each parameter, or the whole.
pub(crate) fn possible_keys(path_and_query: &str) -> impl Iterator<Item = &str> {
    parameters(path_and_query).chain(std::iter::once(path_and_query))
}

fn parameters(path_and_query: &str) -> impl Iterator<Item = &str> {
    let query = path_and_query.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let pairs = query.split('&').filter(|it| it.contains('=') && !it.ends_with('='));
    pairs.take(PARAMETERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_an_endpoint_event_is_read() {
        let url = |event: &'static str| endpoint_url(event.as_bytes());
        assert_eq!(url("event: endpoint\ndata: /messages/?s=1\n\n"), Some("/messages/?s=1"));
        assert_eq!(url("event:endpoint\r\ndata:/m\r\n\r\n"), Some("/m"));
        assert_eq!(url("event: message\ndata: {}\n\n"), None);
        assert_eq!(url("data: /m\n\n"), None);
        assert_eq!(url(": hi\n\n"), None);
    }

    #[test]
    fn a_url_is_relative_to_its_stream() {
        let of = |url| path_and_query(url, "/mcp/sse");
        assert_eq!(of("/messages?a=1"), "/messages?a=1");
        assert_eq!(of("http://127.0.0.1:9001/messages?a=1"), "/messages?a=1");
        assert_eq!(of("http://127.0.0.1:9001?a=1"), "/?a=1");
        assert_eq!(of("//host/m#x"), "/m");
        assert_eq!(of("messages?a=1"), "/mcp/messages?a=1");
        assert_eq!(of("?a=1"), "/mcp/sse?a=1");
        assert_eq!(of("m?to=http://x"), "/mcp/m?to=http://x");
    }

    #[test]
    fn the_session_is_found_among_other_parameters() {
        for (learned, posted) in [
            ("/messages/?session_id=abc", "/messages/?session_id=abc"),
            ("/message?sessionId=abc", "/message?apiKey=1&sessionId=abc"),
            ("/message?transport=sse&Session-Id=abc", "/x/message?Session-Id=abc&transport=sse"),
            ("/m?token=abc", "/m?token=abc"),
            ("/m/abc", "/m/abc"),
            ("/m?a=1&b=2", "/m?a=1&b=2"),
        ] {
            let key = session_key(learned);
            assert!(possible_keys(posted).any(|it| it == key), "{learned} {posted} {key}");
        }
        let key = session_key("/message?sessionId=abc");
        assert!(possible_keys("/message?sessionId=abd").all(|it| it != key));
        assert!(possible_keys("/message").all(|it| it != key));
        let key = session_key("/messages?api_key=abc");
        assert!(possible_keys("/mcp?api_key=abc").all(|it| it != key));
    }
}
