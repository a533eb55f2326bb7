//! The HTTP client of probes and scrapes, and why they fail.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};

use crate::config::Address;
use crate::mcp::ResponseContent;
use crate::model::ProbeResult;
use crate::open_files;
use crate::tls;

/// The most characters of a server's text that reach the timeline.
const SERVER_TEXT_MAX: usize = 160;

/// Redirects of one scrape that are followed.
const REDIRECTS_MAX: usize = 5;

/// Why a probe or scrape got no good response.
#[derive(Debug)]
pub(super) enum ProbeError {
    /// No process listens at the address.
    Refused,
    /// No response within the timeout.
    TimedOut,
    /// An HTTP error status, with its body.
    Status { status: u16, content: ResponseContent },
    /// A JSON-RPC error with a good status.
    RpcError { code: i64, message: String },
    /// This host lacks files, ports or memory: nothing was sent.
    OwnShortage(io::Error),
    /// Any other reason, as text.
    Other(String),
}

impl ProbeError {
    /// The reason in an I/O error of a socket.
    pub(super) fn from_io(error: &io::Error) -> Self {
        if let Some(code) = error.raw_os_error().filter(|_| open_files::is_shortage(error)) {
            return Self::OwnShortage(io::Error::from_raw_os_error(code));
        }
        match error.kind() {
            // A missing unix socket is like a closed port.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused,
            // A unix socket returns "would block" when its backlog is full.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            io::ErrorKind::PermissionDenied => Self::Other(format!(
                "may not connect: {error}; the user of the daemon needs write permission on a unix socket"
            )),
            _ => Self::Other(error.to_string()),
        }
    }

    /// The reason in an error of a body.
    pub(super) fn from_body(error: io::Error) -> Self {
        match error.downcast::<reqwest::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Other(format!("the response cannot be decoded: {error}")),
        }
    }

    pub(super) fn to_reply(&self) -> ProbeResult {
        match self {
            Self::Refused => ProbeResult::Refused,
            Self::TimedOut => ProbeResult::TimedOut,
            Self::Status { status: status @ (401 | 403), .. } => ProbeResult::Unexpected(format!(
                "status {status}: a probe has no token; if each request needs one, use the probe \
                 kind \"http\" or \"tcp\""
            )),
            Self::Status { status, content: ResponseContent::Error { code, message } } => {
                ProbeResult::Unexpected(format!(
                    "status {status}, error {code}: {}",
                    shorten(message)
                ))
            }
            Self::Status { status: status @ (404 | 405), .. } => ProbeResult::Unexpected(format!(
                "status {status}: no POST at this path; check `path`; a server of HTTP+SSE \
                 (2024-11-05) needs the probe kind \"tcp\" or \"http\""
            )),
            Self::Status { status, .. } => ProbeResult::Unexpected(format!("status {status}")),
            Self::RpcError { code, message } => {
                ProbeResult::Unexpected(format!("error {code}: {}", shorten(message)))
            }
            Self::OwnShortage(error) => ProbeResult::Unexpected(error.to_string()),
            Self::Other(reason) => ProbeResult::Unexpected(reason.clone()),
        }
    }
}

impl From<reqwest::Error> for ProbeError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        let mut cause: &(dyn Error + 'static) = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        match cause.downcast_ref::<io::Error>() {
            // Only a connect can be refused; a socket file that disappears later breaks nothing.
            Some(io) if error.is_connect() => Self::from_io(io),
            _ => Self::Other(format!("the connection broke: {}", shorten(&cause.to_string()))),
        }
    }
}

/// Where requests to a release go.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a> {
    /// The address of its slot.
    pub address: &'a Address,
    /// The `Host` of each request.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
}

/// A client for one address. Each request gets its own connection: a listener that accepts no
/// connection must be detected, and an idle connection that the server closes is not a failure.
pub(super) fn client_for(endpoint: Endpoint<'_>, timeout: Duration) -> Result<Client, String> {
    at_endpoint(client_builder(timeout)?, endpoint)?.build().map_err(|error| error.to_string())
}

/// Sets the address and the `Host` of every request.
fn at_endpoint(builder: ClientBuilder, endpoint: Endpoint<'_>) -> Result<ClientBuilder, String> {
    let builder = match endpoint.address {
        Address::Tcp(_) => builder,
        Address::Unix(path) => builder.unix_socket(path.as_path()),
    };
    let host = HeaderValue::from_str(endpoint.host)
        .map_err(|error| format!("{}: {error}", endpoint.host))?;
    let headers = HeaderMap::from_iter([(header::HOST, host)]);
    Ok(builder.default_headers(headers))
}

/// As [`client_for`], for scrapes: of one address or of any URL, with redirects on the same host.
pub(super) fn scrape_client(
    endpoint: Option<Endpoint<'_>>,
    timeout: Duration,
) -> Result<Client, String> {
    let builder = client_builder(timeout)?.redirect(Policy::custom(|attempt| {
        let origin = |url: &Url| url.origin();
        let is_same = attempt.previous().first().map(origin) == Some(origin(attempt.url()));
        if is_same && attempt.previous().len() <= REDIRECTS_MAX {
            attempt.follow()
        } else {
            attempt.stop()
        }
    }));
    let builder = match endpoint {
        Some(endpoint) => at_endpoint(builder, endpoint)?,
        None => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

/// What the clients have in common.
pub(super) fn client_builder(timeout: Duration) -> Result<ClientBuilder, String> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls::no_roots()?)
        .user_agent("rollbackd-probe")
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(timeout)
        .timeout(timeout);
    Ok(builder)
}

/// The URL of an endpoint.
pub(super) fn url_for(endpoint: Endpoint<'_>) -> Result<Url, String> {
    let Endpoint { address, path, .. } = endpoint;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let text = match address {
        Address::Tcp(address) => format!("http://{address}{slash}{path}"),
        Address::Unix(_) => format!("http://localhost{slash}{path}"),
    };
    Url::parse(&text).map_err(|error| format!("{text}: {error}"))
}

/// Reads a whole body of at most `max` bytes.
pub(super) async fn read_body(response: &mut Response, max: usize) -> Result<Vec<u8>, ProbeError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max {
            return Err(ProbeError::Other(format!(
                "the response is longer than {} KiB",
                max / 1024
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A server's text, shortened and on one line.
pub(super) fn shorten(text: &str) -> String {
    text.chars()
        .take(SERVER_TEXT_MAX)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_the_daemon_may_not_write_to_is_explained() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error());
        let reply = ProbeError::from_io(&error).to_reply().to_string();
        assert!(reply.starts_with("may not connect: Permission denied"), "{reply}");
    }
}
