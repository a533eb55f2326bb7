//! The daemon's own metrics over HTTP, for a collector such as Prometheus.

mod channels;
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
use tokio::sync::Semaphore;

use crate::control::Status;
use crate::daemon::metrics::encoder::Format;
use crate::daemon::reporting::Services;

/// Collectors that the daemon serves at a time; more wait.
const COLLECTORS_MAX: usize = 4;
/// How long one connection may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a service may take to report its status; less than the time-out of a collector.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait after a failure to accept, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves metrics until the task is aborted.
pub(super) async fn serve(listener: Arc<TcpListener>, services: Services) {
    let permits = Arc::new(Semaphore::new(COLLECTORS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let services = services.clone();
        tokio::spawn(async move {
            // A collector that is too slow tries again at its next interval.
            let _ =
                tokio::time::timeout(CONNECTION_TIMEOUT, serve_connection(stream, services)).await;
            drop(permit);
        });
    }
}

/// One response a connection: an idle connection would occupy a permit.
async fn serve_connection(stream: TcpStream, services: Services) {
    let service = service_fn(|request| {
        let services = services.clone();
        async move { Ok::<_, Infallible>(respond(&request, &services).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Errors are the collector's: it disconnected, or does not speak HTTP.
    let _ = connection.await;
}

async fn respond<B>(request: &Request<B>, services: &Services) -> Response<Full<Bytes>> {
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
        Response::new(Full::from(families::render(&query_all(services).await, format)));
    let kind = http::HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The status of every service; `None` for one that does not answer in time.
async fn query_all(services: &Services) -> Vec<(String, Option<Status>)> {
    let all = services.handles.iter().map(|(name, handle)| async {
        let status = tokio::time::timeout(STATUS_TIMEOUT, services.status(handle)).await;
        (name.clone(), status.ok().flatten())
    });
    futures_util::future::join_all(all).await
}
