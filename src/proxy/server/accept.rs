//! Accepts and serves client connections: HTTP/1.1, and HTTP/2 by prior knowledge.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::config::ProxyLimits;
use crate::open_files;
use crate::proxy::backend::client_connection::ClientConnectionState;
use crate::proxy::backend::connector::keep_alive;
use crate::proxy::backend::headers::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::proxy::exchange::state::ProxyState;
use crate::proxy::routing::view::RoutingView;
use crate::proxy::server::admission::Admission;
use crate::proxy::server::answers::Answers;
use crate::proxy::server::client_stream::ClientStream;
use crate::proxy::server::connections::{ClientConnection, ConnectionInFlight, Lifecycle};
use crate::proxy::server::places::{OpenConnections, Places};

/// The connection closes when the client acknowledges nothing for this long.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of bodies that an HTTP/2 client may send before the proxy has read them.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a response that wait in the connection for an HTTP/2 client.
const SEND_BUFFER_MAX: usize = 16 * 1024;
/// Bytes that wait in the kernel to be sent. With more, a client that reads slowly would look like
/// one that does not read: the kernel may take megabytes.
const UNSENT_MAX: u32 = 128 * 1024;
const BACKLOG: i32 = 4096;
/// The pause after a failed accept, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Listens on an address.
///
/// # Errors
/// When another socket holds the address, or it does not belong to this host.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the lifecycle stops it. More than there are places wait in the backlog,
/// until an idle one has closed.
/// It holds the only strong reference to the listener.
pub(in crate::proxy) async fn accept_loop(
    listener: Arc<TcpListener>,
    state: Arc<ProxyState>,
    mut places: Places,
    lifecycle: Arc<Lifecycle>,
) {
    tokio::select! {
        () = lifecycle.accepting.cancelled() => (),
        () = lifecycle.stop_accepting.cancelled() => return,
        () = lifecycle.shutdown.cancelled() => return,
    }
    let open = places.open_connections();
    loop {
        let next = async {
            let place = places.take(&listener).await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            () = lifecycle.stop_accepting.cancelled() => return,
            () = lifecycle.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let view = state.router.view.load();
                let admission = Admission::of(&state.addresses, &view.service, &open, peer.ip());
                let Some(admission) = admission else { continue };
                let (state, lifecycle) = (Arc::clone(&state), Arc::clone(&lifecycle));
                let (tracked, open) = (lifecycle.register(), Arc::clone(&open));
                let accepted = AcceptedConnection { stream, peer, admission, view, open, tracked };
                tokio::spawn(async move {
                    serve_connection(accepted, state, &lifecycle).await;
                    drop(place);
                });
            }
            Err(error) if open_files::is_shortage(&error) => {
                open_files::report("rollbackd cannot accept a connection", &error);
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; retrying in 50 ms");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// A connection of a client, and what counts it while it is open.
struct AcceptedConnection {
    stream: TcpStream,
    peer: SocketAddr,
    admission: Admission,
    /// The settings at its beginning.
    view: Arc<RoutingView>,
    open: Arc<OpenConnections>,
    tracked: ClientConnection,
}

async fn serve_connection(
    accepted: AcceptedConnection,
    state: Arc<ProxyState>,
    lifecycle: &Lifecycle,
) {
    let AcceptedConnection { stream, peer, admission, view, open, tracked } = accepted;
    let limits = &view.service.limits;
    let (header_timeout, builder) = (limits.header_timeout, connection_builder(limits));
    let in_flight = ConnectionInFlight::default();
    let client = ClientConnectionState::new(peer, local_port(&stream), admission.is_refused);
    let client = Arc::new(client.with_address_requests(admission.address_requests()));
    let answers = Arc::new(Answers::new(limits, in_flight.observer(), Arc::clone(&client)));
    open.add(peer.ip().to_canonical(), &answers);
    drop(view);
    let (shared, observer) = (Arc::clone(&client), in_flight.observer());
    let stream = ClientStream::new(prepared(stream), shared, observer, header_timeout);
    let service = service_fn(|request: Request<Incoming>| {
        client.begin_request(&request);
        answers.begin_request();
        if client.is_refused {
            answers.close();
        }
        let (client, http2) = (Arc::clone(&client), client.is_http2());
        let (state, close_after_response, in_flight) =
            (Arc::clone(&state), lifecycle.close_after_response.clone(), in_flight.clone());
        let answers = Arc::clone(&answers);
        async move {
            let mut response = state.handle(client, request).await;
            // Closing after a response is safe; an idle connection may receive a request meanwhile.
            if !http2 && close_after_response.is_cancelled() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| answers.track(body, http2, in_flight)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // The client caused an error here: it disconnected, or it sent something else than HTTP.
        _ = connection.as_mut() => return,
        () = wait_no_request(&client, header_timeout) => return,
        () = answers.wait_unread() => return,
        () = answers.wait_closing() => (),
        () = lifecycle.shutdown.cancelled() => (),
        () = lifecycle.close_idle.cancelled(), if !tracked.is_late() => (),
    }
    // Hyper would wait for the rest of a first head.
    if answers.is_abandoned() || answers.is_closing() && client.requests() == 0 {
        return;
    }
    // One future owns the connection until its end, so that nothing polls it after completion.
    let end = async {
        // HTTP/2 has GOAWAY. In HTTP/1.1 a response that is already on its way did not carry
        // `Connection: close`: the client may reuse the connection, and the next response says it.
        if lifecycle.close_after_response.is_cancelled() && !client.is_http2() {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = lifecycle.wait_idle(&in_flight) => (),
            }
        }
        connection.as_mut().graceful_shutdown();
        // The client caused an error here, too.
        let _ = connection.await;
    };
    tokio::select! {
        () = end => (),
        // Otherwise a handover would wait for a client that does not read.
        () = answers.wait_unread() => (),
        () = shutdown_timeout(lifecycle) => (),
    }
}

/// What is open may take a second longer.
async fn shutdown_timeout(lifecycle: &Lifecycle) {
    lifecycle.shutdown.cancelled().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Waits until a connection has brought no request in time: hyper-util waits without limit for the
/// bytes that distinguish HTTP/1.1 from HTTP/2.
async fn wait_no_request(client: &ClientConnectionState, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    if client.requests() > 0 {
        std::future::pending::<()>().await;
    }
}

/// The connection with its options, which it could do without.
fn prepared(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(&stream);
    let _ = socket.set_tcp_user_timeout(Some(STALL_TIMEOUT));
    let _ = socket.set_tcp_notsent_lowat(UNSENT_MAX);
    let _ = keep_alive(&stream);
    stream
}

fn local_port(stream: &TcpStream) -> u16 {
    stream.local_addr().map(|address| address.port()).unwrap_or_default()
}

fn connection_builder(limits: &ProxyLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Of an idle connection as well; `ClientStream` has the limit of a head that has begun.
        .header_read_timeout(limits.client_idle)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    // Not `pipeline_flush`: with it, hyper buffers without limit for a client that does not read.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Some(limits.header_timeout))
        .keep_alive_timeout(STALL_TIMEOUT);
    builder
}
