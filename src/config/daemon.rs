//! The settings of the daemon itself: `[daemon]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use crate::config::address::{Address, AddressRegistry};
use crate::config::hosts::served_hosts;
use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::settings::PageSettings;
use crate::config::toml_table::TomlTable;
use crate::config::value::{
    Raw, absolute_path, address, socket_address, socket_path, string, string_list,
};

/// `[daemon]`.
pub(super) struct RawDaemon {
    pub(super) state_dir: Raw<PathBuf>,
    pub(super) control_socket: Raw<PathBuf>,
    pub(super) metrics: Raw<SocketAddr>,
    pub(super) page: Raw<Address>,
    pub(super) page_hosts: Raw<Vec<Spanned<String>>>,
    pub(super) page_url: Raw<String>,
    pub(super) podman: Raw<PathBuf>,
}

/// Reads the table.
pub(super) fn read(mut table: TomlTable<'_>, problems: &mut Problems) -> RawDaemon {
    let daemon = RawDaemon {
        state_dir: table.read("state_dir", absolute_path, problems),
        control_socket: table.read("control_socket", socket_path, problems),
        metrics: table.read("metrics", socket_address, problems),
        page: table.read("page", address, problems),
        page_hosts: table.read("page_hosts", string_list, problems),
        page_url: table.read("page_url", string, problems),
        podman: table.read("podman", socket_path, problems),
    };
    table.reject_unknown_keys(problems);
    daemon
}

impl RawDaemon {
    pub(super) fn state_dir(&self) -> PathBuf {
        or_default(&self.state_dir, "/var/lib/rollbackd")
    }

    pub(super) fn control_socket(&self) -> PathBuf {
        or_default(&self.control_socket, "/run/rollbackd/control.sock")
    }

    pub(super) fn podman(&self) -> PathBuf {
        or_default(&self.podman, "/run/podman/podman.sock")
    }
}

fn or_default(raw: &Raw<PathBuf>, default: &str) -> PathBuf {
    raw.as_ref().map_or_else(|| PathBuf::from(default), |path| path.get_ref().clone())
}

/// The address of the metrics. Only loopback: versions and tool names must not leave the host.
pub(super) fn metrics(
    raw: &Raw<SocketAddr>,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> Option<SocketAddr> {
    let given = raw.as_ref()?;
    let address = *given.get_ref();
    if !address.ip().is_loopback() || address.port() == 0 {
        let what = format!("`metrics` is {address}, which is not a port on loopback");
        let help = "write \"127.0.0.1:9469\", and collect the metrics on this host";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    }
    let owner = "the metrics of the daemon".to_owned();
    addresses.claim(Address::Tcp(address), owner, given.span(), problems);
    Some(address)
}

/// The status page. Only loopback or a unix socket: it shows reasons and versions to everybody who
/// can connect.
pub(super) fn page(
    raw: &RawDaemon,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> Option<PageSettings> {
    let Some(given) = &raw.page else {
        if let Some(hosts) = &raw.page_hosts {
            let what = "`page_hosts` has no effect without `page`";
            let help = "write page = \"127.0.0.1:9470\", or leave page_hosts out";
            problems
                .push(Problem::error(ProblemCode::Contradiction, hosts.span(), what).help(help));
        }
        return None;
    };
    let address = given.get_ref().clone();
    let hosts = match &address {
        Address::Tcp(address) => {
            if !address.ip().is_loopback() || address.port() == 0 {
                let what = format!("`page` is {address}, which is not a port on loopback");
                let help = "write \"127.0.0.1:9470\" or \"unix:/run/rollbackd/page.sock\"; for other \
                            hosts put a proxy with a login in front of it";
                problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
            }
            served_hosts(&raw.page_hosts, *address, problems)
        }
        // Only who may open the socket connects: no web page can, under any name.
        Address::Unix(_) if raw.page_hosts.is_none() => ["*".to_owned()].into(),
        Address::Unix(_) => served_hosts(&raw.page_hosts, ([127, 0, 0, 1], 0).into(), problems),
    };
    addresses.claim(address.clone(), "the status page".to_owned(), given.span(), problems);
    Some(PageSettings { address, hosts })
}

/// The address of the status page for people: notices link to it.
pub(super) fn page_url(raw: &RawDaemon, problems: &mut Problems) -> Option<String> {
    let given = raw.page_url.as_ref()?;
    let uri = given.get_ref().parse::<http::Uri>().ok().filter(|it| it.host().is_some());
    if !uri.is_some_and(|it| matches!(it.scheme_str(), Some("http" | "https"))) {
        let what = "`page_url` is not an http or https URL";
        let help = "write such as \"https://status.example.org\"";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    }
    Some(given.get_ref().trim_end_matches('/').to_owned())
}
