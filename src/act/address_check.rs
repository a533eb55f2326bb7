use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use crate::config::Address;

/// Checks that a release can listen at the address. Another process that listens there would answer
/// the probes and look like the release.
///
/// # Errors
/// A process listens there.
pub(super) fn ensure_free(address: &Address) -> Result<(), String> {
    let taken = match address {
        // The release itself reports other errors, such as a port that needs privileges.
        Address::Tcp(address) => {
            TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        }
        // The socket file outlives its process, so only a connection shows a listener.
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
