//! The daemon's own metrics, for a collector on this host.

mod encoder;
mod families;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::control::Status;
use crate::daemon::control_api::{ServiceHandle, ServiceHandles};
use crate::daemon::metrics::encoder::Format;
use crate::service::inbox::ServiceMessage;

/// Collectors that are answered at once; more wait.
const COLLECTORS_MAX: usize = 4;
/// How long one may take over its request and over taking the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a service may take to tell how it stands; less than a collector waits.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait after a failure to accept, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves metrics for ever.
pub(super) async fn serve(listener: Arc<TcpListener>, handles: ServiceHandles) {
    let permits = Arc::new(Semaphore::new(COLLECTORS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let handles = Arc::clone(&handles);
        tokio::spawn(async move {
            // Whoever is too slow comes again with the next interval.
            let _ =
                tokio::time::timeout(CONNECTION_TIMEOUT, serve_connection(stream, handles)).await;
            drop(permit);
        });
    }
}

/// One connection, one answer: a connection that is kept would keep a place.
async fn serve_connection(stream: TcpStream, handles: ServiceHandles) {
    let service = service_fn(|request| {
        let handles = Arc::clone(&handles);
        async move { Ok::<_, Infallible>(respond(&request, &handles).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Errors here are the collector's: it left, or spoke no HTTP.
    let _ = connection.await;
}

async fn respond<B>(request: &Request<B>, handles: &ServiceHandles) -> Response<Full<Bytes>> {
    let text_response = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return text_response(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let accept = request.headers().get_all(ACCEPT).iter();
    let format = Format::from_accept(accept.filter_map(|value| value.to_str().ok()));
    let mut response =
        Response::new(Full::from(families::render(&query_all(handles).await, format)));
    let kind = http::HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// How every service stands; nothing of those that do not answer in time.
async fn query_all(handles: &ServiceHandles) -> Vec<(String, Option<Status>)> {
    let all = handles.iter().map(|(name, handle)| async {
        let status = tokio::time::timeout(STATUS_TIMEOUT, query_status(handle)).await;
        (name.clone(), status.ok().flatten())
    });
    futures_util::future::join_all(all).await
}

async fn query_status(handle: &ServiceHandle) -> Option<Status> {
    let (reply, answer) = oneshot::channel();
    handle.inbox.send(ServiceMessage::Status(reply)).await.ok()?;
    answer.await.ok()
}
