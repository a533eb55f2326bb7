//! Shadow calls: requests that failed on one release, sent once more to another one for the judge.
//!
//! If such a request fails there too, the new release is not to blame. No client gets the response,
//! and it does not count as traffic of the release. A legacy request gets a session of its own, which
//! is not in the session table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::monotonic;
use crate::mcp::client::{Client, OutgoingMessage, ResponseScanner};
use crate::mcp::headers::{
    MCP_PROTOCOL_VERSION, MCP_SESSION_ID, is_compressed, is_event_stream, is_modern,
};
use crate::mcp::message::Message;
use crate::mcp::{Answered, ResponseContent, jsonrpc, methods, outcome, session_lost, versions};
use crate::model::Outcome;
use crate::proxy::backend::body::{BackendBody, decoded};
use crate::proxy::backend::failed_samples::{SHADOW_TIMEOUT, SampledRequest, ShadowBatch};
use crate::proxy::backend::pool::SendError;
use crate::proxy::backend::{Backend, headers};

/// The most bytes of an error response that are read.
const ERROR_BODY_MAX: usize = 64 * 1024;

const CLIENT: Client = Client { name: "rollbackd-shadow", version: env!("CARGO_PKG_VERSION") };

/// Samples what fails on `from`, and sends up to `count` of its samples to `to`.
pub(in crate::proxy) fn send_samples(from: &Backend, to: &Arc<Backend>, count: u32) {
    from.samples.set_sampling(true);
    let permits = &to.samples.permits;
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(permits.available_permits());
    for batch in from.samples.next_batch(count, &to.read_only_tools, monotonic()) {
        let acquired =
            u32::try_from(batch.calls).map(|it| Arc::clone(permits).try_acquire_many_owned(it));
        let Ok(Ok(permits)) = acquired else { return };
        tokio::spawn(run_batch(Arc::clone(to), batch, permits));
    }
}

/// Sends the calls of one sample, in one session where the protocol has sessions.
async fn run_batch(backend: Arc<Backend>, batch: ShadowBatch, permits: OwnedSemaphorePermit) {
    tokio::select! {
        // A call that the cut interrupts is not a fault of the release.
        () = backend.cut.cancelled() => (),
        () = send_calls(&backend, &batch) => (),
    }
    drop(permits);
}

async fn send_calls(backend: &Backend, batch: &ShadowBatch) {
    let sample = &batch.sample;
    let call = || {
        let id = next_request_id();
        sample.body_with_id(&id, &backend.read_only_tools).map(|body| (Value::from(id), body))
    };
    let calls: Vec<_> = (0..batch.calls).map_while(|_| call()).collect();
    if calls.is_empty() {
        return;
    }
    let connection = match McpConnection::connect(backend, sample).await {
        Ok(connection) => connection,
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

/// An id that is unique among all shadow calls.
fn next_request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("rollbackd-shadow-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A release, and the headers of each request to it.
struct McpConnection<'a> {
    backend: &'a Backend,
    sample: &'a SampledRequest,
    headers: HeaderMap,
}

/// The result of one request.
struct ShadowResult {
    class: Outcome,
    session: Option<HeaderValue>,
    protocol: Option<HeaderValue>,
}

impl<'a> McpConnection<'a> {
    /// Opens a session for a legacy request. The error is the class of the failure.
    async fn connect(backend: &'a Backend, sample: &'a SampledRequest) -> Result<Self, Outcome> {
        let mut headers = sample.headers.clone();
        headers.insert(headers::SHADOW, HeaderValue::from_static("1"));
        if let Ok(host) = HeaderValue::from_str(&backend.authority) {
            headers.entry(http::header::HOST).or_insert(host);
        }
        let mut connection = Self { backend, sample, headers };
        if is_modern(&connection.headers) {
            return Ok(connection);
        }
        let protocol = connection.headers.remove(MCP_PROTOCOL_VERSION);
        let protocol = protocol.as_ref().and_then(|it| it.to_str().ok());
        let id = Value::from(next_request_id());
        let OutgoingMessage { body, .. } =
            CLIENT.initialize(&id, protocol.unwrap_or(versions::DEFAULT));
        let opened = tokio::time::timeout(SHADOW_TIMEOUT, connection.exchange(&id, body)).await;
        let response = opened.unwrap_or_else(|_| ShadowResult::of(Outcome::ServerFault));
        let ShadowResult { class: Outcome::Ok, session, protocol } = response else {
            return Err(response.class);
        };
        connection.headers.extend(session.map(|id| (MCP_SESSION_ID, id)));
        connection.headers.extend(protocol.map(|it| (MCP_PROTOCOL_VERSION, it)));
        let initialized = Bytes::from(jsonrpc::notification(methods::INITIALIZED).to_string());
        match connection.send_for_status(Method::POST, initialized).await {
            Some(_) => Ok(connection),
            None => Err(Outcome::ServerFault),
        }
    }

    /// Sends the call of the sample. One that is late says nothing, unless the call is usually quick there:
    /// a slow call is no failure.
    async fn call(&self, id: &Value, body: Bytes) -> Outcome {
        let called = tokio::time::timeout(SHADOW_TIMEOUT, self.exchange(id, body)).await;
        called.map_or_else(|_| self.class_if_late(), |result| result.class)
    }

    fn class_if_late(&self) -> Outcome {
        let call = self.sample.call();
        let is_quick = call.is_some_and(|call| self.backend.outcomes.is_usually_quick(&call));
        if is_quick { Outcome::ServerFault } else { Outcome::Neutral }
    }

    /// Ends the session. A server may refuse to end it.
    async fn close(&self) {
        if self.headers.contains_key(MCP_SESSION_ID) {
            self.send_for_status(Method::DELETE, Bytes::new()).await;
        }
    }

    /// Sends a request, and reads until the response to its id.
    async fn exchange(&self, id: &Value, body: Bytes) -> ShadowResult {
        let response = match self.send_request(&Method::POST, body).await {
            Ok(response) => response,
            Err(error) => return ShadowResult::of(error.outcome()),
        };
        let session = response.headers().get(MCP_SESSION_ID).cloned();
        let Some(response) = read_response(response, id).await else {
            return ShadowResult::of(Outcome::ServerFault);
        };
        let (class, protocol) = self.classify(response);
        let protocol = protocol.and_then(|it| HeaderValue::from_str(&it).ok());
        ShadowResult { class, session, protocol }
    }

    /// The class of a response, and the protocol version in it.
    fn classify(&self, response: ShadowResponse) -> (Outcome, Option<Box<str>>) {
        let ShadowResponse { status, outcome, content } = response;
        let (method, status_code) = (&Method::POST, status.as_u16());
        let in_session = self.headers.contains_key(MCP_SESSION_ID);
        let session_lost =
            session_lost(&Answered { method, in_session, status: status_code, content: &content });
        match outcome {
            // A rejection of the credentials says nothing about the release.
            _ if matches!(status_code, 401 | 403) => (Outcome::ClientFault, None),
            // The session was opened a moment ago.
            _ if session_lost => (Outcome::ServerFault, None),
            ShadowOutcome::Response(message) => {
                (outcome::from_response(status, &message), message.protocol_version)
            }
            ShadowOutcome::Resumable => (Outcome::Neutral, None),
            ShadowOutcome::Missing if status.is_success() => (Outcome::ServerFault, None),
            // What was not read is never good.
            ShadowOutcome::Compressed if status.is_success() => (Outcome::Neutral, None),
            ShadowOutcome::Missing | ShadowOutcome::Compressed => {
                (outcome::from_status(status), None)
            }
        }
    }

    /// Sends a request that has no response but its status. `None` when none arrived in time.
    async fn send_for_status(&self, method: Method, body: Bytes) -> Option<StatusCode> {
        let sent = tokio::time::timeout(SHADOW_TIMEOUT, self.send_request(&method, body)).await;
        sent.ok()?.ok().map(|response| response.status())
    }

    async fn send_request(
        &self,
        method: &Method,
        body: Bytes,
    ) -> Result<Response<Incoming>, SendError> {
        self.backend.send_repeatable(|| self.request(method, &body)).await
    }

    fn request(&self, method: &Method, body: &Bytes) -> Request<BackendBody> {
        let mut request = Request::new(BackendBody::from(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = self.sample.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl ShadowResult {
    fn of(class: Outcome) -> Self {
        Self { class, session: None, protocol: None }
    }
}

/// A response that was read.
struct ShadowResponse {
    status: StatusCode,
    outcome: ShadowOutcome,
    /// The body of an error status.
    content: ResponseContent,
}

/// How a response ended.
enum ShadowOutcome {
    /// With the message for the id.
    Response(Box<Message>),
    /// Without it, but a client can resume the stream (2025-11-25).
    Resumable,
    /// Without the message for the id.
    Missing,
    /// The body is compressed, so it was not read.
    Compressed,
}

/// Reads until the response to an id. `None` when the connection broke.
async fn read_response(response: Response<Incoming>, id: &Value) -> Option<ShadowResponse> {
    let (head, mut body) = decoded(response).into_parts();
    let status = head.status;
    let respond = |outcome, content| Some(ShadowResponse { status, outcome, content });
    let nothing = ResponseContent::Text(String::new());
    if is_compressed(&head.headers) {
        return respond(ShadowOutcome::Compressed, nothing);
    }
    let mut scanner = ResponseScanner::new(&head.headers, id);
    let is_error = status.is_client_error() && !is_event_stream(&head.headers);
    let (mut error_body, mut found) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        found = found.or(scanner.feed(&data));
        if is_error {
            error_body.extend_from_slice(&data);
        }
        let is_complete =
            if is_error { error_body.len() >= ERROR_BODY_MAX } else { found.is_some() };
        if is_complete {
            break;
        }
    }
    let content = if is_error { ResponseContent::of(&error_body) } else { nothing };
    let outcome = match found {
        Some(message) => ShadowOutcome::Response(Box::new(message)),
        None if scanner.is_resumable() => ShadowOutcome::Resumable,
        None => ShadowOutcome::Missing,
    };
    respond(outcome, content)
}
