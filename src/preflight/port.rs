//! Whether a port can be bound.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::preflight::finding::Failure;

/// Who may have ports that the daemon will have.
#[derive(Debug, Default)]
pub(super) struct PortHolders {
    /// Whether the daemon runs.
    pub(super) is_running: bool,
    /// What rollbackd.socket listens on, and hands over at the start.
    pub(super) of_socket_unit: BTreeSet<SocketAddr>,
}

/// A port is free, or held for the daemon.
pub(super) fn check(
    what: &str,
    address: SocketAddr,
    holders: &PortHolders,
) -> Result<String, Failure> {
    let Err(error) = TcpListener::bind(address) else {
        return Ok(format!("{what} {address} is free"));
    };
    let help = match error.kind() {
        io::ErrorKind::AddrInUse if holders.is_running => {
            return Ok(format!("{what} {address} is in use while the daemon runs"));
        }
        io::ErrorKind::AddrInUse if holders.of_socket_unit.contains(&address) => {
            return Ok(format!("{what} {address} is held by rollbackd.socket for the daemon"));
        }
        io::ErrorKind::AddrInUse => "`ss -ltnp` shows the process that has it",
        io::ErrorKind::AddrNotAvailable => "no interface has this address: `ip address` lists them",
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 needs root or CAP_NET_BIND_SERVICE; use a higher port"
        }
        _ => "choose another address",
    };
    Err(Failure::new(format!("{what} {address} cannot be used: {error}"), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_held_for_the_daemon_is_not_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut holders = PortHolders::default();
        assert!(check("listen", address, &holders).is_err());
        holders.of_socket_unit.insert(address);
        assert!(check("listen", address, &holders).is_ok_and(|it| it.contains("rollbackd.socket")));
        holders = PortHolders { is_running: true, ..PortHolders::default() };
        assert!(check("listen", address, &holders).is_ok());
    }
}
