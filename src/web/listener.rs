//! The listener of the page: TCP or a unix socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Address;
use crate::control::server;
use crate::proxy;

/// After this time without an acknowledgement, the kernel closes a connection with unsent data.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// A listener of the page.
#[derive(Debug)]
pub enum PageListener {
    /// A port.
    Tcp(TcpListener),
    /// A socket.
    Unix(UnixListener),
}

/// A connection of a client.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl PageListener {
    /// Listens on `address`, with the listener of the previous daemon where that has the address.
    ///
    /// # Errors
    /// When the address is not available.
    pub(crate) fn open(address: &Address, inherited: Option<OwnedFd>) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let inherited = inherited
                    .map(std::net::TcpListener::from)
                    .filter(|listener| listener.local_addr().is_ok_and(|local| local == *address));
                match inherited {
                    Some(listener) => {
                        listener.set_nonblocking(true)?;
                        TcpListener::from_std(listener).map(Self::Tcp)
                    }
                    None => proxy::bind(*address).map(Self::Tcp),
                }
            }
            Address::Unix(path) => {
                type Listener = std::os::unix::net::UnixListener;
                let inherited = inherited.map(Listener::from).filter(|listener| {
                    let local = listener.local_addr();
                    local.is_ok_and(|local| local.as_pathname() == Some(path))
                });
                match inherited {
                    Some(listener) => {
                        listener.set_nonblocking(true)?;
                        UnixListener::from_std(listener).map(Self::Unix)
                    }
                    None => server::listen(path).map(Self::Unix),
                }
            }
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// When it cannot be accepted, such as for too many open files.
    pub(super) async fn accept(&self) -> io::Result<Box<dyn Connection>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let socket = socket2::SockRef::from(&stream);
                socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl AsFd for PageListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
