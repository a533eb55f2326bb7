//! Migrates a session: opens it at another release as the client opened it, with the credentials of
//! the request that caused the migration. They are used once and never stored.
//!
//! The target opens the session and gets the messages that restore it. Then the GET stream of the
//! client continues there, and the source closes its session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request,
    response,
};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::mcp::client::ResponseCollector;
use crate::mcp::headers::{
    EVENT_STREAM, JSON, JSON_OR_EVENT_STREAM, LAST_EVENT_ID, MCP_METHOD, MCP_NAME,
    MCP_PROTOCOL_VERSION, MCP_SESSION_ID,
};
use crate::mcp::message::Message;
use crate::mcp::outcome;
use crate::model::{MigrationRefused, Outcome};
use crate::proxy::backend::body::{BackendBody, ReleaseBody, decoded};
use crate::proxy::backend::pool::SendError;
use crate::proxy::backend::{Backend, headers};
use crate::proxy::session::live_session::Session;
use crate::proxy::session::resume_at::{ResumeAt, StreamCommand};
use crate::proxy::session::snapshot::OpeningSnapshot;

/// The longest response of a release during a migration.
const RESPONSE_MAX: usize = 4 * 1024 * 1024;
/// How long a release may take to close a session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers of the client's request that do not belong to the requests of a migration.
const NOT_FORWARDED: [HeaderName; 8] = [
    MCP_METHOD,
    MCP_NAME,
    LAST_EVENT_ID,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
];

/// A release, with the head of the client's request as that release gets it.
#[derive(Debug)]
pub(in crate::proxy) struct MigrationTarget {
    pub backend: Arc<Backend>,
    pub head: request::Parts,
}

/// Why a session did not migrate.
#[derive(Debug)]
pub(in crate::proxy) struct MigrationError {
    pub reason: MigrationRefused,
    /// What it says about the target, if its previous release serves the session.
    pub outcome: Outcome,
    /// The response of a release that rejected the credentials, for the client.
    pub auth_response: Option<Box<Response<Full<Bytes>>>>,
}

impl From<MigrationRefused> for MigrationError {
    fn from(reason: MigrationRefused) -> Self {
        Self { reason, outcome: Outcome::Neutral, auth_response: None }
    }
}

/// The target did not open the session.
fn open_failed(outcome: Outcome) -> MigrationError {
    MigrationError { outcome, ..MigrationRefused::OpenFailed.into() }
}

/// Opens a session at `to` within `timeout`, and completes its move. `from` is its old release; `None`
/// if that no longer has the session.
///
/// # Errors
/// The session did not move: the caller reports the reason to it.
pub(in crate::proxy) async fn migrate(
    session: &Session,
    from: Option<MigrationTarget>,
    to: MigrationTarget,
    timeout: Duration,
) -> Result<(), MigrationError> {
    let old_backend_id = session.backend_id();
    let snapshot = session.snapshot().ok_or(MigrationRefused::OpeningUnknown)?;
    let id = format!("rollbackd-move-{}", session.generation().wrapping_add(1));
    let to = to.prepared();
    let backend_id = tokio::time::timeout(timeout, open_session(&to, &snapshot, &id)).await;
    let backend_id = backend_id.map_err(|_| open_failed(Outcome::ServerFault))??;
    session.complete_move(&backend_id);
    if let Some(stream) = session.listen_stream() {
        let (release, generation) = (to.backend.number, session.generation());
        let mut head = with_session_id(to.head, &backend_id);
        head.method = Method::GET;
        head.headers.insert(header::ACCEPT, EVENT_STREAM);
        // A full queue means that the client no longer reads its stream.
        let resume_at = Box::new(ResumeAt { release, head, generation });
        let _ = stream.try_send(StreamCommand::Resume(resume_at));
    }
    if let Some(from) = from.map(MigrationTarget::prepared) {
        from.backend.count_migrated_session();
        tokio::spawn(close_session(from.backend, with_session_id(from.head, &old_backend_id)));
    }
    Ok(())
}

impl MigrationTarget {
    /// The same without the headers of the client's request that are not for it.
    fn prepared(mut self) -> Self {
        NOT_FORWARDED.iter().for_each(|name| _ = self.head.headers.remove(name));
        self.head.extensions = http::Extensions::new();
        self
    }
}

/// A head for the session with this id at its release; an empty id stands for none.
fn with_session_id(mut head: request::Parts, id: &str) -> request::Parts {
    match HeaderValue::from_str(id).ok().filter(|id| !id.is_empty()) {
        Some(id) => _ = head.headers.insert(MCP_SESSION_ID, id),
        None => _ = head.headers.remove(MCP_SESSION_ID),
    }
    head
}

/// Opens the session at its target. Returns its id there; empty if the target uses no ids.
async fn open_session(
    target: &MigrationTarget,
    snapshot: &OpeningSnapshot,
    id: &str,
) -> Result<Box<str>, MigrationError> {
    let mut template = with_session_id(target.head.clone(), "");
    template.method = Method::POST;
    template.headers.insert(header::ACCEPT, JSON_OR_EVENT_STREAM);
    template.headers.insert(header::CONTENT_TYPE, JSON);
    let protocol = template.headers.remove(MCP_PROTOCOL_VERSION);
    let backend = &target.backend;
    let request_id = Some(Value::from(id));
    let (headers, response) =
        post(backend, &template, snapshot.initialize_request(id), request_id).await?;
    let response = response.ok_or_else(|| open_failed(Outcome::ServerFault))?;
    let result = response.get("result").ok_or_else(|| open_failed(outcome_of_error(&response)))?;
    let backend_id = headers.get(MCP_SESSION_ID);
    template.headers.extend(backend_id.map(|id| (MCP_SESSION_ID, id.clone())));
    template.headers.extend(protocol.map(|protocol| (MCP_PROTOCOL_VERSION, protocol)));
    if let Err(reason) = snapshot.check_compatible(result) {
        tokio::spawn(close_session(Arc::clone(backend), template));
        return Err(reason.into());
    }
    for message in snapshot.followup_messages(id) {
        let is_notification = message.id.is_none();
        let sent = post(backend, &template, message.body, message.id).await;
        // Only `initialized` is essential; a session works without its log level or a subscription.
        if is_notification {
            sent?;
        }
    }
    Ok(backend_id.and_then(|id| id.to_str().ok()).unwrap_or_default().into())
}

/// Sends a message; returns the headers of the response, and the response to `id`.
async fn post(
    backend: &Backend,
    template: &request::Parts,
    body: String,
    id: Option<Value>,
) -> Result<(HeaderMap, Option<Value>), MigrationError> {
    let body = Bytes::from(body);
    // A session that was opened twice expires; a level or a subscription is set twice.
    let request = || Request::from_parts(template.clone(), BackendBody::from(body.clone()));
    let response = backend.send_repeatable(request).await.map_err(|error| unanswered(&error))?;
    let (head, body) = decoded(response).into_parts();
    match head.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let auth_response = Some(Box::new(auth_response(head, body).await));
            let (reason, outcome) = (MigrationRefused::Credentials, Outcome::ClientFault);
            return Err(MigrationError { reason, outcome, auth_response });
        }
        status if !status.is_success() => return Err(open_failed(outcome::from_status(status))),
        _ => (),
    }
    let Some(id) = id else { return Ok((head.headers, None)) };
    let response = read_response(&head.headers, body, id).await;
    Ok((head.headers, response))
}

/// The target did not answer. That it cannot be reached, for example because it restarts, is for its probes
/// to say: the session is served where it is.
fn unanswered(error: &SendError) -> MigrationError {
    open_failed(match error {
        SendError::Unreachable => Outcome::Neutral,
        SendError::OwnShortage | SendError::Unanswered { .. } => error.outcome(),
    })
}

/// What an error instead of the result of `initialize` says about the release.
fn outcome_of_error(response: &Value) -> Outcome {
    let error = response.get("error");
    let error_code = error.and_then(|error| error.get("code")).and_then(Value::as_i64);
    let message = Message { has_error: error.is_some(), error_code, ..Message::default() };
    match outcome::from_response(StatusCode::OK, &message) {
        // Neither a result nor an error.
        Outcome::Ok => Outcome::ServerFault,
        outcome => outcome,
    }
}

/// Reads until the response to `id`.
async fn read_response(headers: &HeaderMap, mut body: ReleaseBody, id: Value) -> Option<Value> {
    let mut collector = ResponseCollector::new(headers, id, RESPONSE_MAX);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if let Some(response) = collector.feed(&data).ok()? {
            return Some(response);
        }
    }
    collector.finish().ok()
}

/// The response of a release that rejected the credentials, as the client gets it.
async fn auth_response(mut head: response::Parts, body: ReleaseBody) -> Response<Full<Bytes>> {
    let body = http_body_util::Limited::new(body, RESPONSE_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    headers::strip_hop_by_hop(&mut head.headers);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(MCP_SESSION_ID);
    Response::from_parts(head, Full::new(body))
}

/// Ends a session at a release. It may fail, and no request waits for it.
async fn close_session(backend: Arc<Backend>, mut head: request::Parts) {
    if head.headers.contains_key(MCP_SESSION_ID) {
        head.method = Method::DELETE;
        let request = Request::from_parts(head, BackendBody::default());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, backend.send(request)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_instead_of_the_result_says_whose_fault_it_is() {
        for (response, want) in [
            (json!({"error": {"code": -32603, "message": "m"}}), Outcome::ServerFault),
            (json!({"error": {"code": -32602, "message": "m"}}), Outcome::ClientFault),
            (json!({"error": {}}), Outcome::ServerFault),
            (json!({}), Outcome::ServerFault),
        ] {
            assert_eq!(outcome_of_error(&response), want, "{response}");
        }
    }
}
