//! The settings that the daemon works with: checked, with every default filled in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::address::Address;
use crate::config::channel::ChannelSettings;
use crate::config::front::{TrustedProxies, UpstreamHost, slot_host};
use crate::config::incidents::IncidentSettings;
use crate::config::limits::ProxyLimits;
use crate::config::probe::ProbeSettings;
use crate::config::runtime::Runtime;
use crate::config::scrape::ScrapeSettings;
use crate::model::Slot;
use crate::{artifact, decide, judge};

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The folder of timelines, locks, keys and captured output.
    pub state_dir: PathBuf,
    /// The socket for the command line.
    pub control_socket: PathBuf,
    /// The loopback address of the daemon's own metrics, if it serves them.
    pub metrics: Option<SocketAddr>,
    /// The status page, if the daemon serves it.
    pub page: Option<PageSettings>,
    /// The address under which people reach the status page, without a slash at its end.
    pub page_url: Option<String>,
    /// How incidents are kept and reviewed.
    pub incidents: IncidentSettings,
    /// The channels that tell people, by name.
    pub channels: BTreeMap<String, ChannelSettings>,
    /// The API socket of the podman that has the images.
    pub podman: PathBuf,
    /// The services, by name.
    pub services: BTreeMap<String, Service>,
    /// What the file has otherwise and a running daemon cannot change: `daemon.SETTING`,
    /// `SERVICE.SETTING` or `service.SERVICE`. Empty until a reload.
    pub awaits_restart: Vec<String>,
}

/// The status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSettings {
    /// A port on loopback, or a unix socket.
    pub address: Address,
    /// Accepted values of the `Host` header, without port; `*` accepts all.
    pub hosts: BTreeSet<String>,
}

/// One logical MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name, as in `[service.NAME]`.
    pub name: String,
    /// Its public address.
    pub listen: SocketAddr,
    /// The path of its MCP endpoint, such as `/mcp`.
    pub path: String,
    /// Whether upper and lower case differ in that path.
    pub path_case_exact: bool,
    /// Accepted values of the `Host` header, without port; `*` accepts all.
    pub hosts: BTreeSet<String>,
    /// Accepted values of the `Origin` header; `*` accepts all. Requests without one are accepted.
    pub origins: BTreeSet<String>,
    /// The proxies in front, whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// The `Host` of requests to its releases.
    pub upstream_host: UpstreamHost,
    /// How its releases run.
    pub runtime: Runtime,
    /// The kind of its artifacts.
    pub artifact: artifact::ArtifactKind,
    /// How many of the latest releases keep their artifacts.
    pub keep_artifacts: u32,
    /// Where its releases run. At least two.
    pub slots: BTreeMap<Slot, Address>,
    /// How its releases are probed.
    pub probe: ProbeSettings,
    /// How its releases are scraped, if they are.
    pub scrape: Option<ScrapeSettings>,
    /// The objectives that the judge tests.
    pub slo: judge::SloSettings,
    /// How the daemon decides.
    pub policy: decide::Policy,
    /// Whether its sessions can be recreated.
    pub session_state: SessionState,
    /// Whether sessions also migrate to a new release.
    pub move_sessions: decide::MoveSessions,
    /// The limits of the proxy.
    pub limits: ProxyLimits,
}

impl Service {
    /// The `Host` of the requests to a slot that no client causes, such as probes.
    pub fn probe_host(&self, address: &Address) -> String {
        match &self.upstream_host {
            UpstreamHost::Slot => slot_host(address, self.listen.port()),
            UpstreamHost::Name(name) => name.clone(),
            UpstreamHost::Client => {
                let local = |host: &&String| {
                    ["localhost", "127.0.0.1", "[::1]", "*"].contains(&host.as_str())
                };
                let named = self.hosts.iter().find(|host| !local(host));
                named.cloned().unwrap_or_else(|| format!("localhost:{}", self.listen.port()))
            }
        }
    }
}

/// The state of a session that the protocol does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// None: a migration loses nothing.
    None,
    /// Little: sessions migrate, and the timeline records that state may be lost.
    Soft,
    /// State that cannot be recreated: a session stays with its release and ends with it.
    Hard,
}
