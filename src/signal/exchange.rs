use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};

use crate::config::Address;
use crate::mcp::Said;
use crate::model::Reply;

/// Characters of a server's own words that reach the timeline.
const BRIEF_MAX: usize = 160;

/// Why an exchange brought no good answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nobody was listening.
    Refused,
    /// Not in time.
    Late,
    /// An HTTP status that is no success, and what its body says.
    Status { status: u16, said: Said },
    /// A JSON-RPC error under a good status.
    Error { code: i64, said: String },
    /// Anything else; what, in words.
    Wrong(String),
}

impl Fault {
    /// What it means that a socket could not be connected or broke.
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            // A unix socket that is not there is a port nobody listens on.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused,
            // A unix socket says "would block" when its backlog is full.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Late,
            _ => Self::Wrong(error.to_string()),
        }
    }

    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Refused => Reply::Refused,
            Self::Late => Reply::Late,
            Self::Status { status: status @ (401 | 403), .. } => Reply::Wrong(format!(
                "status {status}: the server wants a token, which a probe does not have; \
                 use the probe kind \"http\" or \"tcp\""
            )),
            Self::Status { status, said: Said::Error { code, message } } => {
                Reply::Wrong(format!("status {status}, error {code}: {}", brief(message)))
            }
            Self::Status { status, .. } => Reply::Wrong(format!("status {status}")),
            Self::Error { code, said } => Reply::Wrong(format!("error {code}: {}", brief(said))),
            Self::Wrong(what) => Reply::Wrong(what.clone()),
        }
    }
}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Late;
        }
        let mut cause: &(dyn Error + 'static) = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        match cause.downcast_ref::<io::Error>() {
            // Only a connect can be refused: a socket file that goes away later breaks nothing.
            Some(io) if error.is_connect() => Self::of_io(io),
            _ => Self::Wrong(format!("the exchange broke: {}", brief(&cause.to_string()))),
        }
    }
}

/// A client for one address. Each question gets its own connection: a listener that accepts nobody
/// must be seen, and an idle connection that the server closes must not read as a failure.
pub(super) fn client(address: &Address, timeout: Duration) -> Result<Client, String> {
    let builder = match address {
        Address::Tcp(_) => builder(timeout),
        Address::Unix(path) => builder(timeout).unix_socket(path.as_path()),
    };
    builder.build().map_err(|error| error.to_string())
}

/// As [`client`], for any URL.
pub(super) fn client_anywhere(timeout: Duration) -> Result<Client, String> {
    builder(timeout).build().map_err(|error| error.to_string())
}

fn builder(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .user_agent("rollbackd-probe")
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(timeout)
        .timeout(timeout)
}

/// The URL of a path at an address.
pub(super) fn url(address: &Address, path: &str) -> Result<Url, String> {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let text = match address {
        Address::Tcp(address) => format!("http://{address}{slash}{path}"),
        Address::Unix(_) => format!("http://localhost{slash}{path}"),
    };
    Url::parse(&text).map_err(|error| format!("{text}: {error}"))
}

/// The whole body of an answer, when it has no more than `max` bytes.
pub(super) async fn body(answer: &mut Response, max: usize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > max {
            return Err(Fault::Wrong(format!("the answer is longer than {} KiB", max / 1024)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A server's own words, short and on one line.
pub(super) fn brief(said: &str) -> String {
    said.chars()
        .take(BRIEF_MAX)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}
