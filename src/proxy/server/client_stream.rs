//! The bytes of one client connection, with two rules that HTTP/1.1 needs.
//!
//! A client that closes its half of the connection still gets the response that it waits for: the end
//! of its bytes is held back until then. And a head that has begun must be complete in time, while a
//! connection between two requests may be idle for longer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::proxy::backend::client_connection::ClientConnectionState;
use crate::proxy::server::connections::OpenRequests;

/// How long the end of the bytes is held back while a body is incomplete: its last bytes may have
/// arrived with it.
const INCOMPLETE_BODY_WAIT: Duration = Duration::from_secs(1);

/// The bytes of one client connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    stream: TcpStream,
    state: Arc<ClientConnectionState>,
    open_requests: OpenRequests,
    head_timeout: Duration,
    /// Whether bytes arrived since the last request.
    head_begun: bool,
    /// The number of requests when that was last decided.
    requests: u32,
    reached_end: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    /// Wraps a connection.
    pub(super) fn new(
        stream: TcpStream,
        state: Arc<ClientConnectionState>,
        open_requests: OpenRequests,
        head_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            state,
            open_requests,
            head_timeout,
            head_begun: false,
            requests: 0,
            reached_end: false,
            timer: None,
        }
    }

    /// Pending while the client may wait for a response; then the end of its bytes.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waits = self.state.may_wait() && self.open_requests.any();
        if !waits {
            return Poll::Ready(Ok(()));
        }
        if self.state.set_half_closed() {
            // The task polls the response as well, which then finds out whether the client is there.
            cx.waker().wake_by_ref();
        }
        if self.state.has_sent_all() {
            self.timer = None;
            return Poll::Pending;
        }
        self.poll_timer(cx, INCOMPLETE_BODY_WAIT).map(Ok)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, after: Duration) -> Poll<()> {
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(after))).as_mut().poll(cx)
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.reached_end {
            return this.poll_end(cx);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() == before && buf.remaining() > 0 => {
                (this.reached_end, this.timer) = (true, None);
                this.poll_end(cx)
            }
            Poll::Ready(Ok(())) => {
                this.head_begun = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                // The bytes belonged to a request that has begun meanwhile, or is open.
                let requests = this.state.requests();
                this.head_begun &= this.requests == requests && !this.open_requests.any();
                this.requests = requests;
                if !this.head_begun || this.state.is_http2() {
                    this.timer = None;
                    return Poll::Pending;
                }
                let late = this.poll_timer(cx, this.head_timeout);
                late.map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
