//! The proxies in front of this one, and the name by which a release is called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use toml::Spanned;

use crate::config::address::Address;
use crate::config::hosts::{is_host, without_port};
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::value::Raw;

/// The most entries of `trusted_proxies`: each request of an unknown address is compared with all.
const TRUSTED_MAX: usize = 64;

/// The proxies whose forwarding headers are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether the peer with this address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Default for TrustedProxies {
    /// Loopback: only software of this host can come from there, such as the TLS proxy in front.
    fn default() -> Self {
        let v4 = IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8);
        Self(vec![v4, IpAddr::from(Ipv6Addr::LOCALHOST).into()])
    }
}

/// The `Host` of requests to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The address of its slot; for a unix socket, `localhost` and the port of the service.
    Slot,
    /// What the client called.
    Client,
    /// This name, with or without a port.
    Name(String),
}

/// The `Host` that names a slot of a service that listens on this port. Servers that check `Host`
/// expect a port, also on a unix socket.
pub fn slot_host(address: &Address, listen_port: u16) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => format!("localhost:{listen_port}"),
    }
}

/// Checks `trusted_proxies`.
pub(super) fn trusted_proxies(
    raw: &Raw<Vec<Spanned<String>>>,
    problems: &mut Problems,
) -> TrustedProxies {
    let Some(given) = raw else { return TrustedProxies::default() };
    let count = given.get_ref().len();
    if count > TRUSTED_MAX {
        let what = format!("`trusted_proxies` has {count} entries, more than {TRUSTED_MAX}");
        let help = "write networks, such as \"10.0.0.0/8\", in place of single addresses";
        problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    }
    let networks = given.get_ref().iter().take(TRUSTED_MAX);
    TrustedProxies(networks.filter_map(|entry| trusted_network(entry, problems)).collect())
}

fn trusted_network(entry: &Spanned<String>, problems: &mut Problems) -> Option<IpNet> {
    let text = entry.get_ref();
    if text == "unix" {
        let what = "\"unix\" has no effect: clients connect over TCP";
        let help = "remove it; a proxy of this host comes from 127.0.0.1 or ::1";
        problems.push(Problem::warning(ProblemCode::BadValue, entry.span(), what).help(help));
        return None;
    }
    let network =
        text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if network.is_none() {
        let what = format!("\"{}\" is not an address or a network", shorten(text));
        let help = "write such as \"10.0.0.7\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
        problems.push(Problem::error(ProblemCode::BadValue, entry.span(), what).help(help));
    }
    network
}

/// Checks `upstream_host`.
pub(super) fn upstream_host(raw: &Raw<String>, problems: &mut Problems) -> UpstreamHost {
    let Some(given) = raw else { return UpstreamHost::Slot };
    match given.get_ref().as_str() {
        "slot" => UpstreamHost::Slot,
        "client" => UpstreamHost::Client,
        name => {
            if !is_host(without_port(name)) {
                let what = format!("`upstream_host` is \"{}\", which is not a host", shorten(name));
                let help = "write \"slot\", \"client\", or a name such as \"mcp.example.org\"";
                problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
            }
            UpstreamHost::Name(name.to_owned())
        }
    }
}
