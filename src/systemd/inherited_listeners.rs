//! Listeners that this process inherits from a socket unit, the fd store, or the previous daemon.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

/// The inherited listeners that are not claimed yet.
#[derive(Debug, Default)]
pub struct InheritedListeners {
    services: Vec<ServiceListener>,
    control: Option<UnixListener>,
    metrics: Option<TcpListener>,
    page: Option<OwnedFd>,
}

#[derive(Debug)]
struct ServiceListener {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

impl InheritedListeners {
    /// Takes the listeners that the service manager passed. Call it before any thread starts: it
    /// removes the variables from the environment.
    ///
    /// # Errors
    /// When a passed file descriptor is not a listener.
    pub fn from_environment() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut fds = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..fds.len() {
            let name = names.next().unwrap_or_default();
            let Some(listener) = fds.take_tcp_listener(index)? else { continue };
            inherited.add_service(name, listener)?;
        }
        Ok(inherited)
    }

    /// Adds the listener of a service.
    ///
    /// # Errors
    /// When it is not a listener.
    pub(crate) fn add_service(&mut self, name: &str, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        self.services.push(ServiceListener { name: name.to_owned(), address, listener });
        Ok(())
    }

    /// Adds the listener of the control API.
    ///
    /// # Errors
    /// When it is not a socket.
    pub(crate) fn add_control(&mut self, listener: OwnedFd) -> io::Result<()> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        self.control = Some(listener);
        Ok(())
    }

    /// Adds the listener of the metrics.
    ///
    /// # Errors
    /// When it is not a socket.
    pub(crate) fn add_metrics(&mut self, listener: OwnedFd) -> io::Result<()> {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        self.metrics = Some(listener);
        Ok(())
    }

    /// Adds the listener of the status page: TCP or a unix socket.
    pub(crate) fn add_page(&mut self, listener: OwnedFd) {
        self.page = Some(listener);
    }

    /// Claims the service listener with this address.
    pub(crate) fn claim_service(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.services.iter().position(|it| it.address == address)?;
        Some(self.services.swap_remove(at).listener)
    }

    /// Claims the listener of the control API.
    pub(crate) fn claim_control(&mut self) -> Option<UnixListener> {
        self.control.take()
    }

    /// Claims the listener of the metrics, if it has this address.
    pub(crate) fn claim_metrics(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.metrics.take().filter(|it| it.local_addr().is_ok_and(|local| local == address))
    }

    /// Claims the listener of the status page.
    pub(crate) fn claim_page(&mut self) -> Option<OwnedFd> {
        self.page.take()
    }

    /// Closes the service listeners that are not claimed: their names and addresses.
    pub(crate) fn into_unclaimed(self) -> impl Iterator<Item = (String, SocketAddr)> {
        self.services.into_iter().map(|it| (it.name, it.address))
    }
}
