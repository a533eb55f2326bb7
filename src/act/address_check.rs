use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use crate::config::Address;

/// Whether a release may listen there. A stranger that listens already would answer our probes, and
/// be taken for the release.
///
/// # Errors
/// Somebody listens there.
pub(super) fn free(address: &Address) -> Result<(), String> {
    let taken = match address {
        // Other errors, such as a port that needs privileges, are for the release to meet.
        Address::Tcp(address) => {
            TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        }
        // The file of a socket outlives who listened; only a connection tells.
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
    };
    if taken {
        return Err(format!(
            "{address} is taken: another process listens there; stop it, or give the slot another \
             address"
        ));
    }
    Ok(())
}
