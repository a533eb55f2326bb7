use std::time::Duration;

use super::{command, http, mcp, tcp};
use crate::config::{Address, Probe, ProbeKind};
use crate::model::{Contract, Release, Reply};

/// A contract takes several exchanges. All of them together get this many timeouts.
const CONTRACT_TIMEOUTS: u32 = 10;

/// Asks one release, at one address, how it is.
#[derive(Debug)]
pub struct Prober {
    timeout: Duration,
    how: How,
}

#[derive(Debug)]
enum How {
    Mcp(Box<mcp::Mcp>),
    Http(http::Http),
    Tcp(Address),
    Command(Vec<String>),
    /// The HTTP client could not be built; why.
    Unable(String),
}

impl Prober {
    /// Gets ready to probe `release` at `address`; `path` is that of the MCP endpoint. Asks nothing yet.
    pub fn new(probe: &Probe, path: &str, address: &Address, release: &Release) -> Self {
        Self { timeout: probe.timeout, how: How::new(probe, path, address, release) }
    }

    /// Asks one question. Takes no longer than the probe's timeout.
    pub async fn ask(&mut self) -> Reply {
        let question = async {
            match &mut self.how {
                How::Mcp(mcp) => mcp.ask().await,
                How::Http(http) => http.ask().await,
                How::Tcp(address) => tcp::ask(address).await,
                How::Command(argv) => command::ask(argv).await,
                How::Unable(why) => Reply::Wrong(why.clone()),
            }
        };
        tokio::time::timeout(self.timeout, question).await.unwrap_or(Reply::Late)
    }

    /// Name and version that the server gave itself when it was last asked; `None` unless the probe
    /// speaks MCP.
    pub fn server(&self) -> Option<&str> {
        match &self.how {
            How::Mcp(mcp) => mcp.server.as_deref(),
            How::Http(_) | How::Tcp(_) | How::Command(_) | How::Unable(_) => None,
        }
    }

    /// Looks at everything that the release promises its clients. `None` unless the probe speaks
    /// MCP, and when an answer that is needed did not come: half a contract would read as a broken
    /// one. Takes no longer than ten timeouts.
    pub async fn contract(&mut self) -> Option<Contract> {
        let How::Mcp(mcp) = &mut self.how else { return None };
        tokio::time::timeout(self.timeout * CONTRACT_TIMEOUTS, mcp.contract()).await.ok().flatten()
    }

    /// Ends the probe's session on the server. Takes no longer than the probe's timeout.
    pub async fn close(&mut self) {
        if let How::Mcp(mcp) = &mut self.how {
            // A server that does not answer now forgets the session by itself.
            let _ = tokio::time::timeout(self.timeout, mcp.close()).await;
        }
    }
}

impl How {
    fn new(probe: &Probe, path: &str, address: &Address, release: &Release) -> Self {
        let built = match &probe.kind {
            ProbeKind::Tcp => return Self::Tcp(address.clone()),
            ProbeKind::Command(argv) => {
                return Self::Command(command::fill(argv, address, release));
            }
            ProbeKind::Mcp => {
                mcp::Mcp::new(address, path, probe.timeout).map(|mcp| Self::Mcp(Box::new(mcp)))
            }
            ProbeKind::Http { path, status, field } => {
                http::Http::new(address, path, *status, field.clone(), probe.timeout)
                    .map(Self::Http)
            }
        };
        built.unwrap_or_else(|why| {
            Self::Unable(format!("the probe of {address} can not be built: {why}"))
        })
    }
}
