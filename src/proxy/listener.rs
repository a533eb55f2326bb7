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

use super::door::{Counted, Door, Guest, Open};
use super::front::Front;

/// How long a client may take over a head, and stay idle between requests.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// A client that takes nothing for this long is gone.
const STALLED_MAX: Duration = Duration::from_secs(60);
/// Limits of a request's head.
const HEADERS_MAX: usize = 128;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const BACKLOG: i32 = 4096;
/// Wait after a failure to accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

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
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    front: Arc<Front>,
    max: usize,
    door: Arc<Door>,
) {
    tokio::select! {
        () = door.opened.cancelled() => (),
        () = door.shut.cancelled() => return,
        () = door.stop.cancelled() => return,
    }
    let places = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            () = door.shut.cancelled() => return,
            () = door.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (front, door) = (Arc::clone(&front), Arc::clone(&door));
                let guest = door.enter();
                tokio::spawn(async move {
                    serve(stream, peer, front, &door, guest).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, front: Arc<Front>, door: &Door, guest: Guest) {
    // Neither is needed to serve; a socket that refuses them works without.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED_MAX));
    let builder = builder();
    let (served, multiplexed) = (AtomicBool::new(false), AtomicBool::new(false));
    let open = Open::default();
    let service = service_fn(|request| {
        served.store(true, Ordering::Relaxed);
        let http2 = request.version() == Version::HTTP_2;
        multiplexed.fetch_or(http2, Ordering::Relaxed);
        let (front, closing, open) = (Arc::clone(&front), door.closing.clone(), open.clone());
        async move {
            let mut response = front.serve(peer.ip(), request).await;
            // Closing after an answer is safe; closing an idle connection can meet a request.
            if !http2 && closing.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| Counted::new(body, open)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // hyper-util waits without limit for the bytes that tell HTTP/1.1 from HTTP/2.
    let silent = async {
        tokio::time::sleep(HEAD_MAX).await;
        if served.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // Errors here are the client's: it left, or spoke no HTTP, and was told so.
        _ = connection.as_mut() => return,
        () = silent => return,
        () = door.stop.cancelled() => (),
        () = door.hush.cancelled(), if !guest.is_late() => (),
    }
    let last = async {
        door.stop.cancelled().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    // One future polls the connection until its end, and this waits once for either: nothing is
    // polled again that has completed.
    let end = async {
        // HTTP/2 has a word for it. In HTTP/1.1 the head of an answer that is on its way did not
        // say that it is the last: the client may use the connection again, and is told then.
        if door.closing.is_cancelled() && !multiplexed.load(Ordering::Relaxed) {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = door.silent(&open) => (),
            }
        }
        connection.as_mut().graceful_shutdown();
        // An error here is the client's, too.
        let _ = connection.await;
    };
    tokio::select! {
        () = end => (),
        () = last => (),
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    // Not `pipeline_flush`: with it, hyper buffers without limit for a client that does not read.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Some(HEAD_MAX))
        .keep_alive_timeout(STALLED_MAX);
    builder
}
