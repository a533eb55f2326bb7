//! Connections to one release, over TCP or a unix socket.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::config::Address;

/// The time limit for one connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two attempts to reach a release that is still starting.
const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Opens connections to one address and ignores the authority of the URI.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    address: Address,
    startup_grace: Arc<StartupGrace>,
}

/// How long a release may refuse connections before it accepts its first one.
#[derive(Debug, Default)]
pub(super) struct StartupGrace {
    until: OnceLock<Instant>,
    was_connected: AtomicBool,
}

impl Connector {
    /// Connects to this address.
    pub(super) fn new(address: Address, startup_grace: Arc<StartupGrace>) -> Self {
        Self { address, startup_grace }
    }
}

/// A connection to a release.
#[derive(Debug)]
pub(super) enum BackendStream {
    /// To a TCP port.
    Tcp(TcpStream),
    /// To a unix socket.
    Unix(UnixStream),
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<BackendStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<BackendStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, startup_grace } = self.clone();
        Box::pin(async move {
            loop {
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect(&address)).await;
                match stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Err(error) if startup_grace.covers(&error) => {
                        tokio::time::sleep(CONNECT_RETRY_DELAY).await
                    }
                    Err(error) => return Err(error),
                    Ok(stream) => {
                        startup_grace.was_connected.store(true, Ordering::Relaxed);
                        return Ok(TokioIo::new(stream));
                    }
                }
            }
        })
    }
}

async fn connect(address: &Address) -> io::Result<BackendStream> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            BackendStream::Tcp(stream)
        }
        Address::Unix(path) => BackendStream::Unix(UnixStream::connect(path).await?),
    })
}

impl StartupGrace {
    /// Lets requests wait for the first connection until this instant.
    pub(super) fn set_deadline(&self, until: Instant) {
        // The daemon sets it once, when it starts; a second call has no effect.
        let _ = self.until.set(until);
    }

    /// Whether the release does not listen yet but may soon. Nothing was sent, so a retry is safe.
    fn covers(&self, error: &io::Error) -> bool {
        let is_not_listening =
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
        let in_grace = self.until.get().is_some_and(|until| monotonic() < *until);
        is_not_listening && in_grace && !self.was_connected.load(Ordering::Relaxed)
    }
}

impl Connection for BackendStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
