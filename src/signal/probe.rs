use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{Address, ProbeKind, ProbeSettings, Service};
use crate::model::{Contract, ProbeResult, Release};
use crate::open_files;
use crate::signal::http_client::{Endpoint, ProbeError};
use crate::signal::{command_probe, http_probe, mcp_probe, tcp_probe};

/// Contract discovery takes several requests; together they may take this many timeouts.
const CONTRACT_TIMEOUTS: u32 = 10;
/// Between two attempts to send a probe while this host is short of files.
const SHORTAGE_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Probes one release at one address.
#[derive(Debug)]
pub struct Prober {
    timeout: Duration,
    driver: ProbeDriver,
}

#[derive(Debug)]
enum ProbeDriver {
    Mcp(Box<mcp_probe::McpProbe>),
    Http(http_probe::HttpProbe),
    Tcp(Address),
    Command(Vec<String>),
    /// The HTTP client could not be built, and why.
    Unavailable(String),
}

impl Prober {
    /// A prober of a release of this service at `address`. Sends nothing yet.
    pub fn new(service: &Service, address: &Address, release: &Release) -> Self {
        let host = service.probe_host(address);
        let endpoint = Endpoint { address, host: &host, path: &service.path };
        Self::with_endpoint(&service.probe, endpoint, release)
    }

    /// A prober of `release`; `endpoint` is that of MCP. Sends nothing yet.
    pub fn with_endpoint(probe: &ProbeSettings, endpoint: Endpoint<'_>, release: &Release) -> Self {
        Self { timeout: probe.timeout, driver: ProbeDriver::new(probe, endpoint, release) }
    }

    /// Sends one probe. Takes no longer than the probe's timeout, unless this host is short of files,
    /// ports or memory: then it waits until the probe can be sent.
    pub async fn probe(&mut self) -> ProbeResult {
        loop {
            match tokio::time::timeout(self.timeout, self.driver.probe()).await {
                Err(_) => return ProbeResult::TimedOut,
                Ok(Ok(())) => return ProbeResult::Ok,
                Ok(Err(ProbeError::OwnShortage(error))) => {
                    open_files::report("rollbackd cannot probe a release", &error);
                    tokio::time::sleep(SHORTAGE_RETRY_DELAY).await;
                }
                Ok(Err(error)) => return error.to_reply(),
            }
        }
    }

    /// The server's name and version in its last response; `None` unless the probe speaks MCP.
    pub fn server_identity(&self) -> Option<&str> {
        match &self.driver {
            ProbeDriver::Mcp(mcp) => mcp.server_identity.as_deref(),
            ProbeDriver::Http(_)
            | ProbeDriver::Tcp(_)
            | ProbeDriver::Command(_)
            | ProbeDriver::Unavailable(_) => None,
        }
    }

    /// Reads the contract of the release: all that it offers to clients. `None` unless the probe
    /// speaks MCP, or if a response is missing: half a contract would look like a broken one. Takes
    /// no longer than ten timeouts. `in_use`: versions that sessions negotiated, to be asked for as well.
    pub async fn discover_contract(&mut self, in_use: &BTreeSet<String>) -> Option<Contract> {
        let ProbeDriver::Mcp(mcp) = &mut self.driver else { return None };
        tokio::time::timeout(self.timeout * CONTRACT_TIMEOUTS, mcp.discover_contract(in_use))
            .await
            .ok()
            .flatten()
    }

    /// Ends the probe's session on the server. Takes no longer than the probe's timeout.
    pub async fn close(&mut self) {
        if let ProbeDriver::Mcp(mcp) = &mut self.driver {
            // A server that does not answer expires the session by itself.
            let _ = tokio::time::timeout(self.timeout, mcp.close()).await;
        }
    }
}

impl ProbeDriver {
    async fn probe(&mut self) -> Result<(), ProbeError> {
        match self {
            Self::Mcp(mcp) => mcp.probe().await,
            Self::Http(http) => http.probe().await,
            Self::Tcp(address) => tcp_probe::probe(address).await,
            Self::Command(argv) => command_probe::probe(argv).await,
            Self::Unavailable(why) => Err(ProbeError::Other(why.clone())),
        }
    }

    fn new(probe: &ProbeSettings, endpoint: Endpoint<'_>, release: &Release) -> Self {
        let address = endpoint.address;
        let built = match &probe.kind {
            ProbeKind::Tcp => return Self::Tcp(address.clone()),
            ProbeKind::Command(argv) => {
                return Self::Command(command_probe::fill_placeholders(argv, address, release));
            }
            ProbeKind::Mcp => mcp_probe::McpProbe::new(endpoint, probe.timeout)
                .map(|mcp| Self::Mcp(Box::new(mcp))),
            ProbeKind::Http { path, status, field } => http_probe::HttpProbe::new(
                Endpoint { path, ..endpoint },
                *status,
                field.clone(),
                probe.timeout,
            )
            .map(Self::Http),
        };
        built.unwrap_or_else(|why| {
            Self::Unavailable(format!("the probe of {address} cannot be built: {why}"))
        })
    }
}
