//! Connections of clients: HTTP/1.1, and HTTP/2 by prior knowledge.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Version, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::server::connections::{
    ClientConnection, ConnectionInFlight, CountedBody, Lifecycle,
};

/// A client that takes nothing for this long is gone.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Limits of a request's head.
const HEADERS_MAX: usize = 128;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BACKLOG: i32 = 4096;
/// Wait after a failure to accept, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Listens on an address.
///
/// # Errors
/// When it is taken, or not of this host.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until told to stop; beyond `max` at once they wait in the backlog. It holds
/// the listener, and nobody else does.
pub(in crate::proxy) async fn accept_loop(
    listener: Arc<TcpListener>,
    state: Arc<ProxyState>,
    max: usize,
    lifecycle: Arc<Lifecycle>,
) {
    tokio::select! {
        () = lifecycle.accepting.cancelled() => (),
        () = lifecycle.stop_accepting.cancelled() => return,
        () = lifecycle.shutdown.cancelled() => return,
    }
    let permits = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            () = lifecycle.stop_accepting.cancelled() => return,
            () = lifecycle.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (state, lifecycle) = (Arc::clone(&state), Arc::clone(&lifecycle));
                let tracked = lifecycle.register();
                tokio::spawn(async move {
                    serve_connection(stream, peer, state, &lifecycle, tracked).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    state: Arc<ProxyState>,
    lifecycle: &Lifecycle,
    tracked: ClientConnection,
) {
    // Neither is needed to serve; a socket that refuses them works without.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_TIMEOUT));
    let header_timeout = state.service.load().limits.header_timeout;
    let builder = connection_builder(header_timeout);
    let (got_request, is_http2) = (AtomicBool::new(false), AtomicBool::new(false));
    let in_flight = ConnectionInFlight::default();
    let service = service_fn(|request| {
        got_request.store(true, Ordering::Relaxed);
        let http2 = request.version() == Version::HTTP_2;
        is_http2.fetch_or(http2, Ordering::Relaxed);
        let (state, close_after_response, in_flight) =
            (Arc::clone(&state), lifecycle.close_after_response.clone(), in_flight.clone());
        async move {
            let mut response = state.handle(peer.ip(), request).await;
            // Closing after an answer is safe; closing an idle connection can meet a request.
            if !http2 && close_after_response.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| CountedBody::new(body, in_flight)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // hyper-util waits without limit for the bytes that tell HTTP/1.1 from HTTP/2.
    let no_request = async {
        tokio::time::sleep(header_timeout).await;
        if got_request.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // Errors here are the client's: it left, or spoke no HTTP, and was told so.
        _ = connection.as_mut() => return,
        () = no_request => return,
        () = lifecycle.shutdown.cancelled() => (),
        () = lifecycle.close_idle.cancelled(), if !tracked.is_late() => (),
    }
    let shutdown_timeout = async {
        lifecycle.shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    // One future polls the connection until its end, and this waits once for either: nothing is
    // polled again that has completed.
    let end = async {
        // HTTP/2 has a word for it. In HTTP/1.1 the head of an answer that is on its way did not
        // say that it is the last: the client may use the connection again, and is told then.
        if lifecycle.close_after_response.is_cancelled() && !is_http2.load(Ordering::Relaxed) {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = lifecycle.wait_idle(&in_flight) => (),
            }
        }
        connection.as_mut().graceful_shutdown();
        // An error here is the client's, too.
        let _ = connection.await;
    };
    tokio::select! {
        () = end => (),
        () = shutdown_timeout => (),
    }
}

fn connection_builder(header_timeout: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    // Not `pipeline_flush`: with it, hyper buffers without limit for a client that does not read.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Some(header_timeout))
        .keep_alive_timeout(STALL_TIMEOUT);
    builder
}
