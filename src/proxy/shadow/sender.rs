//! Shadow calls: what failed on one release, asked once more of another, for nobody but the judge.
//!
//! If it fails there too, the new release is not to blame. The client never sees an answer of it,
//! nor does the other release's record: no outcome is counted, no session is known, nothing waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::mcp::message::{Message, same_id};
use crate::mcp::scan::MessageScanner;
use crate::mcp::sse::SseReader;
use crate::mcp::{Answered, Said, outcome, session_lost};
use crate::model::{Outcome, ReleaseNumber};
use crate::proxy::Proxy;
use crate::proxy::backend::body::BackendBody;
use crate::proxy::backend::{Backend, headers, request_head};
use crate::proxy::shadow::samples::SampledRequest;

/// How long an answer may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a refusal that are read.
const REFUSAL_MAX: usize = 64 * 1024;
/// What a client speaks that does not say it.
const DEFAULT_PROTOCOL: HeaderValue = HeaderValue::from_static("2025-03-26");

impl Proxy {
    /// Keeps what fails on `from` and is safe to repeat, and repeats up to `record_outcome` of it on `backend`
    /// now, in turn. At most 32 repeats are in flight; what would be more is not sent. To be called
    /// within a tokio runtime.
    pub fn send_shadow_calls(&self, from: ReleaseNumber, to: ReleaseNumber, count: u32) {
        let routes = self.state.routes.load();
        let (Some(from), Some(to)) = (routes.get(from), routes.get_open(to)) else { return };
        from.samples.set_sampling(true);
        let permits = &to.samples.permits;
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(permits.available_permits());
        for (repeat, times) in from.samples.next_batch(count, &to.read_only_tools, Instant::now()) {
            let acquired =
                u32::try_from(times).map(|it| Arc::clone(permits).try_acquire_many_owned(it));
            let Ok(Ok(permits)) = acquired else { return };
            tokio::spawn(run_batch(Arc::clone(to), repeat, times, permits));
        }
    }

    /// Forgets what failed on `from`, and keeps no more of it.
    pub fn stop_shadowing(&self, from: ReleaseNumber) {
        if let Some(from) = self.backend(from) {
            from.samples.set_sampling(false);
        }
    }

    /// Repeats that ended on `backend` since it was added, and how many of them were bad: server faults,
    /// tool faults, and no answer within 2 s. What says nothing about the release is in neither.
    pub fn shadow_results(&self, to: ReleaseNumber) -> (u64, u64) {
        self.backend(to).map(|to| to.samples.results()).unwrap_or_default()
    }

    /// Takes these tools for safe to repeat, and those that the operator names.
    pub fn set_read_only_tools(&self, tools: BTreeSet<String>) {
        self.read_only_tools.set_annotated(tools);
        self.refresh_read_only_tools();
    }

    /// Every release counts by what is safe now.
    pub(in crate::proxy) fn refresh_read_only_tools(&self) {
        self.state
            .routes
            .load()
            .backends()
            .iter()
            .for_each(|upstream| upstream.outcomes.refresh_repeatable());
    }
}

/// Some repeats of one request, on a session of their own where sessions are spoken.
async fn run_batch(
    backend: Arc<Backend>,
    sample: Arc<SampledRequest>,
    times: usize,
    permits: OwnedSemaphorePermit,
) {
    tokio::select! {
        // What a release that is left does not answer is not its fault.
        () = backend.cut.cancelled() => (),
        () = send_calls(&backend, &sample, times) => (),
    }
    drop(permits);
}

async fn send_calls(backend: &Backend, sample: &SampledRequest, times: usize) {
    let call = || {
        let id = next_request_id();
        sample.body_with_id(&id, &backend.read_only_tools).map(|body| (id, body))
    };
    let calls: Vec<_> = (0..times).map_while(|_| call()).collect();
    if calls.is_empty() {
        return;
    }
    let connection = match McpConnection::connect(backend, sample).await {
        Ok(road) => road,
        Err(class) => return calls.iter().for_each(|_| record_outcome(backend, class)),
    };
    let calls = calls
        .into_iter()
        .map(async |(id, body)| record_outcome(backend, connection.call(&id, body).await));
    join_all(calls).await;
    connection.close().await;
}

fn record_outcome(backend: &Backend, class: Outcome) {
    match class {
        Outcome::Ok => backend.samples.record_result(false),
        Outcome::ServerFault | Outcome::ToolFault => backend.samples.record_result(true),
        Outcome::ClientFault | Outcome::Neutral => (),
    }
}

/// An id that no client used.
fn next_request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("rollbackd-shadow-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The way to a release, with what each request on it bears.
struct McpConnection<'a> {
    backend: &'a Backend,
    sample: &'a SampledRequest,
    headers: HeaderMap,
}

/// What came back.
struct ShadowResult {
    class: Outcome,
    session: Option<HeaderValue>,
    protocol: Option<HeaderValue>,
}

impl<'a> McpConnection<'a> {
    /// A session of its own for a legacy request. The error is the class of the refusal.
    async fn connect(backend: &'a Backend, sample: &'a SampledRequest) -> Result<Self, Outcome> {
        let mut headers = sample.headers.clone();
        headers.insert(headers::SHADOW, HeaderValue::from_static("1"));
        if let Ok(host) = HeaderValue::from_str(&backend.authority) {
            headers.insert(http::header::HOST, host);
        }
        let mut connection = Self { backend, sample, headers };
        if headers::is_modern(&connection.headers) {
            return Ok(connection);
        }
        let protocol =
            connection.headers.remove(headers::MCP_PROTOCOL_VERSION).unwrap_or(DEFAULT_PROTOCOL);
        let id = next_request_id();
        let client_info = json!({"name": "rollbackd-shadow", "version": env!("CARGO_PKG_VERSION")});
        let protocol = protocol.to_str().unwrap_or_default();
        let params =
            json!({"protocolVersion": protocol, "capabilities": {}, "clientInfo": client_info});
        let initialize =
            json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params});
        let response = connection.post(Bytes::from(initialize.to_string()), &id).await;
        let ShadowResult { class: Outcome::Ok, session, protocol } = response else {
            return Err(response.class);
        };
        connection.headers.extend(session.map(|id| (headers::MCP_SESSION_ID, id)));
        connection.headers.extend(protocol.map(|it| (headers::MCP_PROTOCOL_VERSION, it)));
        let initialized =
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        match connection
            .send_for_status(Method::POST, BackendBody::from(Bytes::from(initialized)))
            .await
        {
            Some(_) => Ok(connection),
            None => Err(Outcome::ServerFault),
        }
    }

    async fn call(&self, id: &str, body: Bytes) -> Outcome {
        self.post(body, id).await.class
    }

    /// Ends the session. A server may refuse it; that is its right.
    async fn close(&self) {
        if self.headers.contains_key(headers::MCP_SESSION_ID) {
            self.send_for_status(Method::DELETE, BackendBody::default()).await;
        }
    }

    /// Sends a request, and reads until the answer to its id.
    async fn post(&self, body: Bytes, id: &str) -> ShadowResult {
        let failed = ShadowResult { class: Outcome::ServerFault, session: None, protocol: None };
        let exchange = async {
            let response = self.send_request(Method::POST, BackendBody::from(body)).await?;
            let session = response.headers().get(headers::MCP_SESSION_ID).cloned();
            let (status, answer, said) = answer(response, &format!("\"{id}\"")).await?;
            let (method, in_session) =
                (&Method::POST, self.headers.contains_key(headers::MCP_SESSION_ID));
            let said = &said;
            let session_lost =
                session_lost(&Answered { method, in_session, status: status.as_u16(), said });
            let (class, protocol) = match answer {
                // Without the client's credentials nothing can be said, whatever the body says.
                _ if matches!(status.as_u16(), 401 | 403) => (Outcome::ClientFault, None),
                // A session that was opened a moment ago.
                _ if session_lost => (Outcome::ServerFault, None),
                ShadowOutcome::Response(message) => {
                    (outcome::from_response(status, &message), message.protocol_version)
                }
                ShadowOutcome::Resumable => (Outcome::Neutral, None),
                ShadowOutcome::Missing if status.is_success() => (Outcome::ServerFault, None),
                ShadowOutcome::Missing | ShadowOutcome::Compressed => {
                    (outcome::from_status(status), None)
                }
            };
            let protocol = protocol.and_then(|it| HeaderValue::from_str(&it).ok());
            Some(ShadowResult { class, session, protocol })
        };
        tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.ok().flatten().unwrap_or(failed)
    }

    /// Sends what has no answer but its status. `None` when none came in time.
    async fn send_for_status(&self, method: Method, body: BackendBody) -> Option<StatusCode> {
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, self.send_request(method, body))
            .await
            .ok()
            .flatten();
        response.map(|response| response.status())
    }

    async fn send_request(&self, method: Method, body: BackendBody) -> Option<Response<Incoming>> {
        let uri = request_head::backend_uri(&self.backend.authority, self.sample.path.clone())?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        self.backend.send(request).await.ok()
    }
}

/// How an answer ended.
enum ShadowOutcome {
    /// With the message for the id.
    Response(Box<Message>),
    /// Early, to be taken up with a GET (2025-11-25).
    Resumable,
    /// Without a message for the id.
    Missing,
    /// It is compressed.
    Compressed,
}

/// Reads until the answer to an id, and what a refusal says. `None` when the stream broke.
async fn answer(
    response: Response<Incoming>,
    id: &str,
) -> Option<(StatusCode, ShadowOutcome, Said)> {
    let (head, mut body) = response.into_parts();
    let nothing = Said::Text(String::new());
    if headers::is_compressed(&head.headers) {
        return Some((head.status, ShadowOutcome::Compressed, nothing));
    }
    if head.status.is_client_error() && !headers::is_event_stream(&head.headers) {
        return refusal(head.status, body, id).await;
    }
    let mut events = headers::is_event_stream(&head.headers).then(SseReader::new);
    let mut scanner = MessageScanner::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        let mut response_message = None;
        let on_message = |message: Message| {
            if message.is_response() && message.id.as_deref().is_some_and(|it| same_id(it, id)) {
                response_message = Some(Box::new(message));
            }
        };
        match &mut events {
            Some(events) => events.feed(&data, on_message),
            None => scanner.feed(&data, on_message),
        }
        if let Some(message) = response_message {
            return Some((head.status, ShadowOutcome::Response(message), nothing));
        }
    }
    let resumable = events.is_some_and(|events| events.is_resumable());
    Some((
        head.status,
        if resumable { ShadowOutcome::Resumable } else { ShadowOutcome::Missing },
        nothing,
    ))
}

/// The same for an error that is no stream, as far as it is short.
async fn refusal(
    status: StatusCode,
    body: Incoming,
    id: &str,
) -> Option<(StatusCode, ShadowOutcome, Said)> {
    let (mut body, mut text) = (body, Vec::new());
    while let Some(frame) = body.frame().await
        && text.len() < REFUSAL_MAX
    {
        text.extend(frame.ok()?.data_ref().into_iter().flatten());
    }
    let mut answer = ShadowOutcome::Missing;
    MessageScanner::default().feed(&text, |message| {
        if message.is_response() && message.id.as_deref().is_some_and(|it| same_id(it, id)) {
            answer = ShadowOutcome::Response(Box::new(message));
        }
    });
    Some((status, answer, Said::of(&text)))
}
