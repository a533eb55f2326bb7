//! HTTP for the page: limits, Host check, routes, headers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock::monotonic;
use crate::model::ReleaseNumber;
use crate::proxy::check_host;
use crate::record;
use crate::web::collector::{self, CompleteStatus, Handles};
use crate::web::follower::{FOLLOWERS_MAX, Followers};
use crate::web::listener::{Connection, PageListener};
use crate::web::pages::{self, PageHead};
use crate::web::snapshot::{Snapshot, View};

/// Connections at a time; more wait in the backlog.
const CONNECTIONS_MAX: usize = 2 * FOLLOWERS_MAX;
/// How long a client may take to send a request, and a connection may be idle.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a connection lives. A browser opens its event stream again.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Wait after a failure to accept, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// How long a request waits for the first snapshot.
const FIRST_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3);
/// Without a new snapshot for this long, a page says so.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// Timelines of earlier deploys that are read at a time. A file has at most 64 MiB.
const FILE_READS_MAX: usize = 2;

/// No script or style but those of the daemon, no other host, no frame around it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The files of the page: path, content type, content.
const ASSETS: [(&str, &str, &str); 3] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("script.js", "text/javascript; charset=utf-8", include_str!("script.js")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// A response, whole or an event stream.
pub(super) type PageResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What every request uses.
struct Site {
    hosts: Arc<BTreeSet<String>>,
    handles: Handles,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    followers: Followers,
    file_reads: Semaphore,
}

/// Serves the page until the task is aborted. That also ends all connections, so that browsers
/// connect to the daemon that takes over.
pub(crate) async fn serve(
    listener: Arc<PageListener>,
    hosts: Arc<BTreeSet<String>>,
    handles: Handles,
    complete: CompleteStatus,
) {
    let (publisher, snapshots) = watch::channel(None);
    let site = Arc::new(Site {
        hosts,
        handles: Arc::clone(&handles),
        snapshots,
        followers: Followers::new(),
        file_reads: Semaphore::new(FILE_READS_MAX),
    });
    tokio::select! {
        () = collector::run(handles, complete, publisher) => (),
        () = accept(&listener, &site) => (),
    }
}

async fn accept(listener: &PageListener, site: &Arc<Site>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let Ok(stream) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let site = Arc::clone(site);
        connections.spawn(async move {
            let connection = serve_connection(stream, site);
            let _ = tokio::time::timeout(CONNECTION_LIFETIME, connection).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: Box<dyn Connection>, site: Arc<Site>) {
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(respond(&request, &site).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Errors are the client's: it disconnected, or does not speak HTTP.
    let _ = connection.await;
}

async fn respond<B>(request: &Request<B>, site: &Site) -> PageResponse {
    let mut response = match check(request, site) {
        Some(refused) => refused,
        None => route(request.uri().path(), site).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The refusal of a request that names another host, or wants to change something.
fn check<B>(request: &Request<B>, site: &Site) -> Option<PageResponse> {
    let no_origins = BTreeSet::new();
    if let Err(rejected) = check_host(&site.hosts, &no_origins, request.uri(), request.headers()) {
        let text = "this Host or Origin is not allowed; add the host to `page_hosts`\n";
        return Some(whole(rejected.status, PLAIN, text));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let text = "the page is read-only: GET or HEAD\n";
    let mut response = whole(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(response)
}

async fn route(path: &str, site: &Site) -> PageResponse {
    let segments: Vec<_> = path.split('/').skip(1).collect();
    match *segments.as_slice() {
        [""] => overview(site).await,
        ["events"] => follow(site, View::Host),
        ["service", name] => service(site, name).await,
        ["service", name, "events"] if site.handles.contains_key(name) => {
            follow(site, View::Service(name.to_owned()))
        }
        ["service", name, "deploy", number] => deploy(site, name, number).await,
        [file] => match ASSETS.iter().find(|(name, _, _)| *name == file) {
            Some((_, kind, content)) => whole(StatusCode::OK, kind, *content),
            None => not_found(site, segments.len()),
        },
        _ => not_found(site, segments.len()),
    }
}

async fn overview(site: &Site) -> PageResponse {
    let Some(snapshot) = current(site).await else { return starting("./") };
    let head = PageHead { root: "./", events: Some("events"), stale: stale(&snapshot) };
    whole(StatusCode::OK, HTML, pages::host(&snapshot, &head))
}

async fn service(site: &Site, name: &str) -> PageResponse {
    let Some(snapshot) = current(site).await else { return starting("../") };
    let Some(service) = snapshot.service(name) else { return not_found(site, 2) };
    let events = format!("{name}/events");
    let head = PageHead { root: "../", events: Some(&events), stale: stale(&snapshot) };
    whole(StatusCode::OK, HTML, pages::service(&snapshot, service, &head))
}

async fn deploy(site: &Site, name: &str, number: &str) -> PageResponse {
    let (Some(handle), Ok(number)) = (site.handles.get(name), number.parse()) else {
        return not_found(site, 4);
    };
    let Ok(_permit) = site.file_reads.acquire().await else { return not_found(site, 4) };
    let (dir, number) = (handle.dir().to_owned(), ReleaseNumber(number));
    let read = tokio::task::spawn_blocking(move || record::read_deploy(&dir, Some(number)));
    let Ok(Ok(entries)) = read.await else { return not_found(site, 4) };
    let head = PageHead { root: "../../../", events: None, stale: None };
    whole(StatusCode::OK, HTML, pages::deploy(name, number, &entries, &head))
}

fn follow(site: &Site, view: View) -> PageResponse {
    let Some(body) = site.followers.follow(site.snapshots.clone(), view) else {
        let text = format!("{FOLLOWERS_MAX} pages follow already; close one, or reload\n");
        let mut response = whole(StatusCode::SERVICE_UNAVAILABLE, PLAIN, text);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would buffer the stream.
    let no_buffer = HeaderName::from_static("x-accel-buffering");
    headers.insert(no_buffer, HeaderValue::from_static("no"));
    response
}

/// The newest snapshot; waits for the first one.
async fn current(site: &Site) -> Option<Arc<Snapshot>> {
    let mut snapshots = site.snapshots.clone();
    let first = snapshots.wait_for(Option::is_some);
    let first = tokio::time::timeout(FIRST_SNAPSHOT_TIMEOUT, first).await;
    first.ok()?.ok()?.clone()
}

/// How old a snapshot is, if that is longer than it should be.
fn stale(snapshot: &Snapshot) -> Option<Duration> {
    Some(monotonic().duration_since(snapshot.taken_at)).filter(|age| STALE_AFTER < *age)
}

fn starting(root: &str) -> PageResponse {
    let text = "The daemon reads its timelines. This page tries again.";
    let mut response =
        whole(StatusCode::SERVICE_UNAVAILABLE, HTML, pages::message(root, "Starting", text));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn not_found(site: &Site, depth: usize) -> PageResponse {
    // A hostile path is not repeated in a link.
    let root = "../".repeat(depth.clamp(1, 16) - 1) + "./";
    let names: Vec<_> = site.handles.keys().map(String::as_str).collect();
    let text = format!(
        "There is no such page, service or deploy. The services are: {}.",
        names.join(", ")
    );
    whole(StatusCode::NOT_FOUND, HTML, pages::message(&root, "Not found", &text))
}

fn whole(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> PageResponse {
    let mut response = Response::new(Full::new(content.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
