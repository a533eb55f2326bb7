//! Listeners that were made for us: by a socket unit, or by the daemon before this one.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// The listeners that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Open>);

#[derive(Debug)]
struct Open {
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

impl Inherited {
    /// Takes over what the service manager passed on. Only before any thread is started: it takes
    /// the variables out of the environment.
    ///
    /// # Errors
    /// When something that was passed on is no listener.
    pub fn take() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut all = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let Some(listener) = passed.take_tcp_listener(index)? else { continue };
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            all.push(Open { name, address, listener });
        }
        Ok(Self(all))
    }

    /// The listener of this address, if there is one.
    pub(super) fn claim(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|open| open.address == address)?;
        Some(self.0.swap_remove(at).listener)
    }

    /// Whose address no service has: the names of the listeners, and their addresses. They are closed.
    pub(super) fn unclaimed(self) -> impl Iterator<Item = (String, SocketAddr)> {
        self.0.into_iter().map(|open| (open.name, open.address))
    }
}
