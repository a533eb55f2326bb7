//! The settings of the daemon itself: `[daemon]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::address::{Address, AddressRegistry};
use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::toml_table::TomlTable;
use crate::config::value::{Raw, absolute_path, socket_address, socket_path};

/// `[daemon]`.
pub(super) struct RawDaemon {
    pub(super) state_dir: Raw<PathBuf>,
    pub(super) control_socket: Raw<PathBuf>,
    pub(super) metrics: Raw<SocketAddr>,
    pub(super) podman: Raw<PathBuf>,
}

/// Reads the table.
pub(super) fn read(mut table: TomlTable<'_>, problems: &mut Problems) -> RawDaemon {
    let daemon = RawDaemon {
        state_dir: table.read("state_dir", absolute_path, problems),
        control_socket: table.read("control_socket", socket_path, problems),
        metrics: table.read("metrics", socket_address, problems),
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
