//! Moves a session: opens it anew at another release, as the client opened it, with the credentials
//! of the request that asks for it. They are used once and never kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

use crate::mcp::sse_splitter;
use crate::mcp::sse_splitter::{SseEvent, SseSplitter};
use crate::model::{MigrationRefused, ReleaseNumber};
use crate::proxy::backend::body::BackendBody;
use crate::proxy::backend::{Backend, headers};
use crate::proxy::exchange::error_response::ClientBody;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::routing::router::Route;
use crate::proxy::session::{OpeningSnapshot, ResumeAt, Session};

/// Longest answer of a release to what a move asks.
const RESPONSE_MAX: usize = 256 * 1024;
/// How long the end of the session at the release that it left may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON_OR_EVENT_STREAM: HeaderValue =
    HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a session stays, and what the release said to it.
pub(in crate::proxy) type MigrationError = (MigrationRefused, Option<Box<Response<ClientBody>>>);

impl ProxyState {
    /// Moves a session, and tells it how that went. It comes to its end also when the client that
    /// waits for it leaves.
    pub(in crate::proxy) async fn migrate_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        to: ReleaseNumber,
        head: &request::Parts,
        peer: IpAddr,
    ) -> Result<(), MigrationError> {
        let (state, session, head) = (Arc::clone(self), Arc::clone(session), head.clone());
        let migration = tokio::spawn(async move { state.migrate(&session, to, head, peer).await });
        migration.await.unwrap_or(Err((MigrationRefused::OpenFailed, None)))
    }

    async fn migrate(
        &self,
        session: &Arc<Session>,
        to: ReleaseNumber,
        head: request::Parts,
        peer: IpAddr,
    ) -> Result<(), MigrationError> {
        let (routes, from) = (self.routes.load_full(), session.release());
        // One that forgot it has nothing to take leave of.
        let lost = session.with_machine(|life| life.is_lost());
        let old_backend = routes.get(from).filter(|_| !lost).cloned();
        let old_backend_id = session.backend_id();
        let timeout = self.service.load().limits.migration_timeout;
        let opened = async {
            let target = routes.get_open(to).ok_or((MigrationRefused::OpenFailed, None))?;
            let snapshot = session.snapshot().ok_or((MigrationRefused::OpeningUnknown, None))?;
            let id = format!("rollbackd-move-{}", session.generation().wrapping_add(1));
            let routed = Route::new(Arc::clone(target), None);
            let id = open_session(self, &snapshot, &id, &routed, head.clone(), peer).await?;
            Ok((routed, id))
        };
        let opened = tokio::time::timeout(timeout, opened).await;
        let (routed, backend_id) = match opened.unwrap_or(Err((MigrationRefused::OpenFailed, None)))
        {
            Ok(opened) => opened,
            Err((refusal, response)) => {
                session.refuse_move(refusal, self.can_stay(session));
                let (service, word) = (&self.service.load().name, refusal.label());
                tracing::info!(service, from = from.0, to = to.0, "a session stays: {word}");
                return Err((refusal, response));
            }
        };
        session.complete_move(&backend_id);
        self.sessions.mark_changed(session);
        let request_head = |routed: &Route| self.request_head(head.clone(), routed, peer);
        let target = Route { backend_id, generation: session.generation(), ..routed };
        if let Some(stream) = session.listen_stream() {
            let (upstream, generation) = (Arc::clone(&target.backend), target.generation);
            let mut head = request_head(&target);
            head.method = Method::GET;
            head.headers.insert(header::ACCEPT, EVENT_STREAM);
            // A stream that takes nothing is of a client that is gone.
            let _ = stream.try_send(ResumeAt { backend: upstream, head, generation });
        }
        if let Some(old_backend) = old_backend {
            old_backend.count_migrated_session();
            let mut head = request_head(&Route {
                backend_id: old_backend_id,
                ..Route::new(old_backend.clone(), None)
            });
            head.method = Method::DELETE;
            tokio::spawn(close_old_session(old_backend, head));
        }
        Ok(())
    }

    /// A head of ours, with the credentials of the client's.
    fn request_head(
        &self,
        mut head: request::Parts,
        routed: &Route,
        peer: IpAddr,
    ) -> request::Parts {
        self.to_backend_head(&mut head, routed, peer);
        let not_forwarded =
            ["mcp-method", "mcp-name", "last-event-id", "traceparent", "tracestate"];
        not_forwarded.into_iter().for_each(|name| _ = head.headers.remove(name));
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_TYPE] {
            head.headers.remove(name);
        }
        head.extensions = http::Extensions::new();
        head
    }
}

/// Opens the session at its new release; its id there, empty if that has none.
async fn open_session(
    state: &ProxyState,
    snapshot: &OpeningSnapshot,
    id: &str,
    routed: &Route,
    head: request::Parts,
    peer: IpAddr,
) -> Result<Box<str>, MigrationError> {
    let mut template = state.request_head(head, routed, peer);
    template.method = Method::POST;
    template.headers.insert(header::ACCEPT, JSON_OR_EVENT_STREAM);
    template.headers.insert(header::CONTENT_TYPE, JSON);
    let protocol = template.headers.remove(headers::MCP_PROTOCOL_VERSION);
    let target = &routed.backend;
    let (head, response) =
        post(target, &template, snapshot.initialize_request(id), Some(id)).await?;
    let response = response.ok_or((MigrationRefused::OpenFailed, None))?;
    let result = response.get("result").ok_or((MigrationRefused::OpenFailed, None))?;
    let backend_id = head.headers.get(headers::MCP_SESSION_ID);
    if let Some(id) = backend_id {
        template.headers.insert(headers::MCP_SESSION_ID, id.clone());
    }
    if let Some(protocol) = protocol {
        template.headers.insert(headers::MCP_PROTOCOL_VERSION, protocol);
    }
    if let Err(refusal) = snapshot.check_compatible(result) {
        template.method = Method::DELETE;
        tokio::spawn(close_old_session(Arc::clone(target), template));
        return Err((refusal, None));
    }
    for text in snapshot.followup_messages(id) {
        let request_id: Option<String> = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|it| Some(it.get("id")?.as_str()?.to_owned()));
        let sent = post(target, &template, text, request_id.as_deref()).await;
        // Without a level or a subscription the session lives; without this it does not.
        if request_id.is_none() {
            sent?;
        }
    }
    Ok(backend_id.and_then(|id| id.to_str().ok()).unwrap_or_default().into())
}

/// Asks a release something of ours; the head of its answer, and the message for `id`.
async fn post(
    target: &Backend,
    template: &request::Parts,
    body: String,
    id: Option<&str>,
) -> Result<(response::Parts, Option<Value>), MigrationError> {
    let request = Request::from_parts(template.clone(), BackendBody::from(Bytes::from(body)));
    let response = target.send(request).await;
    let (head, body) = response.map_err(|_| (MigrationRefused::OpenFailed, None))?.into_parts();
    match head.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err((
                MigrationRefused::Credentials,
                Some(Box::new(auth_error_response(head, body).await)),
            ));
        }
        status if !status.is_success() => return Err((MigrationRefused::OpenFailed, None)),
        _ => (),
    }
    let Some(id) = id else { return Ok((head, None)) };
    let response = read_response(&head, body, id).await;
    Ok((head, response))
}

/// Reads until the message for `id` has come.
async fn read_response(head: &response::Parts, mut body: Incoming, id: &str) -> Option<Value> {
    let is_response = |message: &Value| message.get("id").and_then(Value::as_str) == Some(id);
    let (mut text, mut splitter, mut size) = (Vec::new(), SseSplitter::default(), 0);
    let is_event_stream = headers::is_event_stream(&head.headers);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        size += data.len();
        if size > RESPONSE_MAX {
            return None;
        }
        if !is_event_stream {
            text.extend_from_slice(&data);
            continue;
        }
        let mut found = None;
        splitter.feed(&data, |block| {
            if let SseEvent::Whole(block) = block
                && let Some(message) =
                    sse_splitter::parse_message(&block).filter(|it| is_response(it))
            {
                found = Some(message);
            }
        });
        if found.is_some() {
            return found;
        }
    }
    serde_json::from_slice(&text).ok().filter(|message| is_response(message))
}

/// What the release says to credentials that it does not take, for the client.
async fn auth_error_response(mut head: response::Parts, body: Incoming) -> Response<ClientBody> {
    let body = http_body_util::Limited::new(body, RESPONSE_MAX).collect().await;
    let body: Bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    headers::strip_hop_by_hop(&mut head.headers);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(headers::MCP_SESSION_ID);
    Response::from_parts(head, ClientBody::Full(Full::new(body)))
}

/// Ends the session at the release that it left. Nobody waits for it, and it may fail.
async fn close_old_session(backend: Arc<Backend>, head: request::Parts) {
    if head.headers.contains_key(headers::MCP_SESSION_ID) {
        let request = Request::from_parts(head, BackendBody::default());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, backend.send(request)).await;
    }
}
