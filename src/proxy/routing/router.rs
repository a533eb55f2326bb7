//! Finds the release for a request: by its session, by its `requestState`, or the active one.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Response, StatusCode, Uri, Version, header, request, response};
use serde_json::Value;

use crate::mcp::messages::FailureReason;
use crate::model::{MigrationRefused, ReleaseNumber};
use crate::proxy::backend::{Backend, headers};
use crate::proxy::exchange::error_response::ClientBody;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::exchange::in_flight::InFlight;
use crate::proxy::exchange::request_body::{ParsedBody, RequestBody};
use crate::proxy::exchange::{error_response, id_rewrite};
use crate::proxy::session::{
    Action, ClientMessageKind, Environment, InFlightGuard, Session, SessionId,
};

/// The release of a request, and the session that it belongs to.
#[derive(Debug)]
pub(in crate::proxy) struct Route {
    /// The release.
    pub backend: Arc<Backend>,
    /// The decoded session id of the request.
    pub session_id: Option<SessionId>,
    /// The session; `None` also when the session table is full.
    pub session: Option<Arc<Session>>,
    /// How often the session had moved.
    pub generation: u32,
    /// The session's id at the release; empty where it has none.
    pub backend_id: Box<str>,
    /// Keeps the session from moving meanwhile.
    pub session_guard: Option<InFlightGuard>,
}

/// Why no release gets a request.
#[derive(Debug)]
pub(in crate::proxy) enum RouteError {
    /// Its session ended.
    SessionEnded,
    /// No release is active.
    NoRelease,
    /// Its session cannot stay, and could not be migrated in time.
    NotMigrated,
    /// It concerns a previous release: the proxy accepts it and drops it.
    Discarded,
    /// It ends a session that no release has any more.
    AlreadyEnded,
    /// The release that issued its `requestState` is gone.
    StateOwnerGone,
    /// The next release rejected the client's credentials.
    CredentialsRejected(Box<Response<ClientBody>>),
}

impl RouteError {
    /// The response for the client. `ids` are those of its requests; `batch`: they came in an array.
    pub(in crate::proxy) fn into_response(self, ids: &[&str], batch: bool) -> Response<ClientBody> {
        match self {
            Self::SessionEnded => error_response::session_not_found(ids.first().copied()),
            Self::NoRelease => error_response::rpc_errors(ids, batch, FailureReason::NoRelease),
            Self::NotMigrated => {
                error_response::rpc_errors(ids, batch, FailureReason::SessionNotMoved)
            }
            Self::Discarded => error_response::plain_text(StatusCode::ACCEPTED, ""),
            Self::AlreadyEnded => error_response::plain_text(StatusCode::OK, ""),
            Self::StateOwnerGone => error_response::request_state_lost(ids.first().copied()),
            Self::CredentialsRejected(response) => *response,
        }
    }
}

/// What the messages of a POST are.
pub(in crate::proxy) fn classify_body(parsed: &ParsedBody) -> ClientMessageKind {
    let messages = &parsed.messages;
    let requests = messages.iter().any(|it| it.method.is_some() && it.id.is_some());
    let responses: Vec<_> =
        messages.iter().filter(|it| it.is_response()).filter_map(|it| it.id.as_deref()).collect();
    match responses.as_slice() {
        _ if requests => ClientMessageKind::Request,
        [] => ClientMessageKind::Notification,
        ids => ClientMessageKind::Response(id_rewrite::response_generation(ids)),
    }
}

/// Whether a POST is an `initialize` request.
pub(in crate::proxy) fn is_initialize(request_body: &RequestBody) -> bool {
    let parsed = request_body.parsed();
    let parsed = parsed.lock().unwrap_or_else(PoisonError::into_inner);
    let methods = parsed.messages.iter().map(|message| message.method.as_deref());
    methods.eq([Some("initialize")])
}

impl ProxyState {
    /// Updates the session by the messages of a POST, and restores the ids that its release knows.
    pub(in crate::proxy) fn observe_messages(
        &self,
        route: &Route,
        message_kind: ClientMessageKind,
        head: &mut request::Parts,
        request_body: RequestBody,
    ) -> RequestBody {
        let Some(session) = &route.session else { return request_body };
        let parsed = request_body.parsed();
        let parsed = parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for message in parsed.messages.iter().filter(|it| it.method.is_some()) {
            let level = message.method.as_deref() == Some("logging/setLevel");
            let level = request_body
                .buffered()
                .filter(|_| level)
                .and_then(|body| id_rewrite::logging_level(body));
            changed |= session.observe(message, level.as_deref());
        }
        if changed {
            self.sessions.mark_changed(session);
        }
        let responses = parsed.messages.iter().filter(|it| it.is_response());
        for id in responses.filter_map(|it| it.id.as_deref()) {
            session.with_machine(|life| {
                life.server_request_closed(route.generation, &id_rewrite::restore_request_id(id))
            });
        }
        let has_rewritten_ids = matches!(message_kind, ClientMessageKind::Response(1..));
        drop(parsed);
        match request_body
            .buffered()
            .filter(|_| has_rewritten_ids)
            .and_then(|body| id_rewrite::restore_response_ids(body))
        {
            Some(body) => {
                head.headers.remove(header::CONTENT_LENGTH);
                RequestBody::from_bytes(body)
            }
            None => request_body,
        }
    }

    /// Records how a session was opened.
    pub(in crate::proxy) fn session_opened(
        &self,
        in_flight: &InFlight,
        request: &[u8],
        result: &Value,
    ) {
        if let Some(session) = &in_flight.session {
            session.record_opening(request, result);
            self.sessions.mark_changed(session);
        }
    }

    /// Makes the next request reopen a session that its release has lost. `false` when it cannot be
    /// reopened.
    pub(in crate::proxy) fn forgot(&self, exchange: &InFlight) -> bool {
        let session = exchange.session.as_ref().filter(|_| self.pinned_reason().is_none());
        let Some(session) = session.filter(|session| session.snapshot().is_some()) else {
            return false;
        };
        session.with_machine(|life| life.mark_lost(exchange.generation));
        true
    }

    /// The release that issued the `requestState` of a request, if it is known: no other can decode it.
    pub(in crate::proxy) fn route_by_state(
        &self,
        head: &request::Parts,
        request_state: Option<u64>,
    ) -> Option<Result<Route, RouteError>> {
        let release = self
            .request_states
            .owner(request_state.filter(|_| headers::is_modern(&head.headers))?)?;
        let routes = self.routes.load();
        let backend = routes.get_open(release).ok_or(RouteError::StateOwnerGone);
        Some(backend.map(|backend| Route::new(Arc::clone(backend), None)))
    }

    /// Finds the release: the one of the session, which may have to migrate first, or the active one.
    pub(in crate::proxy) async fn route(
        self: &Arc<Self>,
        head: &request::Parts,
        message_kind: ClientMessageKind,
        peer: IpAddr,
    ) -> Result<Route, RouteError> {
        let id = head
            .headers
            .get(headers::MCP_SESSION_ID)
            .filter(|_| !headers::is_modern(&head.headers));
        let Some(id) = id else {
            let routes = self.routes.load();
            let backend = Arc::clone(routes.active().ok_or(RouteError::NoRelease)?);
            return Ok(Route::new(backend, None));
        };
        let session_id = id.to_str().ok().and_then(|id| self.sessions.decode(id));
        let session_id = session_id.ok_or(RouteError::SessionEnded)?;
        let Some(session) = self.sessions.get_or_restore(&session_id, self.clock.now()) else {
            let routes = self.routes.load();
            let backend = routes.get_open(session_id.release).ok_or(RouteError::SessionEnded)?;
            let backend_id = session_id.backend_id.as_str().into();
            let route = Route::new(Arc::clone(backend), Some(session_id));
            return Ok(Route { backend_id, ..route });
        };
        if let Some(protocol) = head.headers.get(headers::MCP_PROTOCOL_VERSION) {
            session.set_protocol(protocol.to_str().unwrap_or_default());
        }
        let move_timeout = self.service.load().limits.migration_timeout;
        let routing = self.route_session(&session, head, message_kind, peer);
        let result = tokio::time::timeout(move_timeout, routing)
            .await
            .unwrap_or(Err(RouteError::NotMigrated));
        if matches!(result, Err(RouteError::SessionEnded)) {
            self.sessions.remove(&session_id);
        }
        result.map(|route| Route { session_id: Some(session_id), ..route })
    }

    async fn route_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        head: &request::Parts,
        message_kind: ClientMessageKind,
        peer: IpAddr,
    ) -> Result<Route, RouteError> {
        loop {
            let action =
                match session.admit(message_kind, self.session_environment(session.release())) {
                    Ok(admission) => return self.route_admitted(session, admission),
                    Err(action) => action,
                };
            match action {
                Action::Migrate(to) => {
                    let Err((refusal, rejection)) =
                        self.migrate_session(session, to, head, peer).await
                    else {
                        continue;
                    };
                    if self.can_stay(session) {
                        return self.route_admitted(session, session.admit_here(message_kind));
                    }
                    return Err(match rejection {
                        Some(response) if refusal == MigrationRefused::Credentials => {
                            RouteError::CredentialsRejected(response)
                        }
                        _ if refusal.is_final() => RouteError::SessionEnded,
                        _ => RouteError::NotMigrated,
                    });
                }
                Action::Wait => session.wait_settled().await,
                Action::Discard => return Err(RouteError::Discarded),
                Action::Acknowledge => return Err(RouteError::AlreadyEnded),
                Action::NoRelease => return Err(RouteError::NoRelease),
                Action::SessionEnded | Action::Forward => return Err(RouteError::SessionEnded),
            }
        }
    }

    /// Whether a session can stay at its release.
    pub(in crate::proxy) fn can_stay(&self, session: &Session) -> bool {
        let lost = session.with_machine(|life| life.is_lost());
        !lost && self.routes.load().get_open(session.release()).is_some()
    }

    fn route_admitted(
        &self,
        session: &Arc<Session>,
        admission: crate::proxy::session::Admission,
    ) -> Result<Route, RouteError> {
        let routes = self.routes.load();
        // After a cut, the request gets the same answer as all that was open.
        let backend = routes.get(admission.release).ok_or(RouteError::NotMigrated)?;
        Ok(Route {
            backend: Arc::clone(backend),
            session_id: None,
            session: Some(Arc::clone(session)),
            generation: admission.generation,
            backend_id: admission.backend_id,
            session_guard: admission.guard,
        })
    }

    /// What the state machine of a session at this release must know.
    fn session_environment(&self, release: ReleaseNumber) -> Environment {
        let routes = self.routes.load();
        let own = routes.get_open(release);
        let active =
            routes.active().filter(|it| !it.draining.is_cancelled() && !it.cut.is_cancelled());
        let active_is_other = active.is_some_and(|active| active.number != release);
        let is_migrating =
            active_is_other && self.migrating_from.load(Ordering::Relaxed) == release.0;
        Environment {
            backend_reachable: own.is_some(),
            draining: own.is_none_or(|here| here.draining.is_cancelled()) || is_migrating,
            active: active.map(|active| active.number),
            migration_forbidden: self.pinned_reason(),
            in_backoff: false,
        }
    }

    /// Why no session of this service may move, if that is so.
    pub(in crate::proxy) fn pinned_reason(&self) -> Option<MigrationRefused> {
        use crate::config::SessionState;
        let is_hard = self.service.load().session_state == SessionState::Hard;
        is_hard.then_some(MigrationRefused::StateNotRestorable)
    }

    /// Turns the head of a client's request into one for the release.
    pub(in crate::proxy) fn to_backend_head(
        &self,
        head: &mut request::Parts,
        route: &Route,
        peer: IpAddr,
    ) {
        let target_host =
            head.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
        // The name that the host check saw: that of the request target where there is one.
        let host = target_host.or_else(|| head.headers.get(header::HOST).cloned());
        if head.uri.path() == self.service.load().path {
            // The proxy cannot parse or extend a compressed response.
            head.headers.remove(header::ACCEPT_ENCODING);
        }
        headers::strip_hop_by_hop(&mut head.headers);
        headers::set_forwarded(&mut head.headers, peer, host);
        let authority = &route.backend.authority;
        let path = head.uri.path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Authority::try_from(authority.as_str()).ok();
        uri.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        head.version = Version::HTTP_11;
        if let Ok(host) = HeaderValue::from_str(authority) {
            head.headers.insert(header::HOST, host);
        }
        let id = Some(&route.backend_id).filter(|id| !id.is_empty());
        match id.and_then(|id| HeaderValue::from_str(id).ok()) {
            Some(id) => head.headers.insert(headers::MCP_SESSION_ID, id),
            None => head.headers.remove(headers::MCP_SESSION_ID),
        };
        if let Some(last_event_id) = head.headers.remove(headers::LAST_EVENT_ID)
            && let Some(last_event_id) =
                id_rewrite::restore_last_event_id(&last_event_id, route.generation)
        {
            head.headers.insert(headers::LAST_EVENT_ID, last_event_id);
        }
    }

    /// Turns the head of a release's response into one for the client, with the proxy's session id.
    pub(in crate::proxy) fn to_client_head(
        &self,
        mut head: response::Parts,
        route: &Route,
        client_session: Option<HeaderValue>,
        in_flight: &mut InFlight,
    ) -> response::Parts {
        headers::strip_hop_by_hop(&mut head.headers);
        // Not the release's version: the proxy speaks 1.1 to the client.
        head.version = Version::HTTP_11;
        let backend_id = head.headers.remove(headers::MCP_SESSION_ID);
        let Some(backend_id) = backend_id.as_ref().and_then(|id| id.to_str().ok()) else {
            return head;
        };
        let is_current = route.session_id.is_some() && *route.backend_id == *backend_id;
        let id = if is_current {
            client_session
        } else {
            let minted = self.sessions.mint(route.backend.number, backend_id);
            minted.and_then(|(id, session_id)| {
                in_flight.session = self.sessions.get_or_restore(&session_id, self.clock.now());
                in_flight.generation = 0;
                HeaderValue::from_str(&id).ok()
            })
        };
        if let Some(id) = id {
            head.headers.insert(headers::MCP_SESSION_ID, id);
        }
        head
    }
}

impl Route {
    /// A route to a release, without a live session.
    pub(in crate::proxy) fn new(backend: Arc<Backend>, session_id: Option<SessionId>) -> Self {
        Self {
            backend,
            session_id,
            session: None,
            generation: 0,
            backend_id: Box::default(),
            session_guard: None,
        }
    }
}
