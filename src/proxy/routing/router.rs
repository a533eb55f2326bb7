//! Finds the release for a request: by its session, by its `requestState`, by the coin of its subject
//! during a ramp, or the active one.

use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Response, Version, response};
use http_body_util::Full;
use serde_json::Value;

use crate::clock::Clock;
use crate::mcp::headers::{MCP_SESSION_ID, is_modern};
use crate::model::{Arm, ReleaseNumber};
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::counted_subject::CountedSubject;
use crate::proxy::backend::identity::Identity;
use crate::proxy::backend::recent_subjects::RecentSubjects;
use crate::proxy::backend::request_head::RequestTarget;
use crate::proxy::backend::{Backend, headers};
use crate::proxy::routing::assignment::{Assignment, client_identity};
use crate::proxy::routing::migrate::Migration;
use crate::proxy::routing::request_states::RequestStates;
use crate::proxy::routing::view::{CurrentView, RoutingView};
use crate::proxy::session::migration::MigrationError;
use crate::proxy::session::{
    Action, Admission, BACKEND_ID_MAX, ClientMessageKind, InFlightGuard, Session, SessionId,
    SessionKey, Sessions,
};

/// What routing needs to know.
#[derive(Debug)]
pub(in crate::proxy) struct Router {
    /// The settings and the routing table.
    pub view: Arc<CurrentView>,
    /// The live legacy sessions.
    pub sessions: Arc<Sessions>,
    /// Which release issued which `requestState`.
    pub request_states: Arc<RequestStates>,
    /// Who sent requests while one release had all traffic.
    pub recent: Arc<RecentSubjects>,
    /// Timestamps the last use of sessions.
    pub clock: Clock,
}

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
    /// The subject of the request, if it is counted for a trial.
    pub counted: Option<CountedSubject>,
    /// The assignment that chose the release of a new session.
    pub assignment: Option<Arc<Assignment>>,
}

/// Why no release gets a request.
#[derive(Debug)]
pub(in crate::proxy) enum RouteError {
    /// Its session ended.
    SessionEnded,
    /// Its session would have to be opened again, and belongs to other credentials.
    NotOwner,
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
    CredentialsRejected(Box<Response<Full<Bytes>>>),
}

/// The head of a response, as the client gets it.
#[derive(Debug)]
pub(in crate::proxy) struct ClientHead {
    /// The head.
    pub head: response::Parts,
    /// Whether it has the id of a new session.
    pub has_new_id: bool,
    /// The session that the response opens.
    pub opened: Option<Arc<Session>>,
}

impl Router {
    /// The release that issued the `requestState` of a request, if it is known: no other can decode it.
    pub(in crate::proxy) fn route_by_state(
        &self,
        view: &RoutingView,
        headers: &HeaderMap,
        request_state: Option<u64>,
    ) -> Option<Result<Route, RouteError>> {
        let state = request_state.filter(|_| is_modern(headers))?;
        let release = self.request_states.owner(state)?;
        let backend = view.routes.get_open(release).ok_or(RouteError::StateOwnerGone);
        Some(backend.map(|backend| Route::new(Arc::clone(backend), None)))
    }

    /// Whether a request names no session, or one that is over or never was. An `initialize` then opens
    /// one.
    pub(in crate::proxy) fn names_no_session(&self, headers: &HeaderMap) -> bool {
        let id = headers.get(MCP_SESSION_ID).filter(|_| !is_modern(headers));
        id.is_none_or(|id| id.to_str().map_or(true, |id| self.sessions.is_unknown(id)))
    }

    /// What tells the client of a request from others of its address: its session, else its credentials.
    pub(in crate::proxy) fn source_of_known(&self, request: &ClientRequest) -> Option<u64> {
        let headers = &request.head.headers;
        let id = headers.get(MCP_SESSION_ID).filter(|_| !is_modern(headers));
        let session = id.and_then(|id| self.sessions.known_key(id.to_str().ok()?));
        let session = session.map(|key| self.recent.source_hash(Identity::Session(key)));
        let has_credentials = headers.contains_key(AUTHORIZATION);
        session.or_else(|| has_credentials.then(|| client_identity(request, &self.recent)))
    }

    /// Whether the session of a request has moved, so that ids in its messages may have to be restored.
    pub(in crate::proxy) fn has_moved(&self, headers: &HeaderMap) -> bool {
        let id = headers.get(MCP_SESSION_ID).filter(|_| !is_modern(headers));
        id.and_then(|id| id.to_str().ok()).is_some_and(|id| self.sessions.generation(id) > 0)
    }

    /// The active release, for a request without a session. During a ramp, the one that the coin of its
    /// subject says; a request that opens a session is a subject of its own.
    pub(in crate::proxy) fn route_without_session(
        &self,
        view: &RoutingView,
        request: &ClientRequest,
        opens_session: bool,
    ) -> Result<Route, RouteError> {
        let active = view.routes.active().ok_or(RouteError::NoRelease)?;
        let Some(assignment) = &view.assignment else {
            let counted = Some(self.counted_client(view, request, opens_session, active));
            return Ok(Route { counted, ..Route::new(Arc::clone(active), None) });
        };
        let client = assignment.of_client(request);
        let subject = if opens_session {
            assignment.of_new_session(request, self.clock.now())
        } else {
            client
        };
        let on_trial = view.routes.get_open(assignment.plan.trial);
        let on_trial = on_trial.filter(|it| !it.draining.is_cancelled());
        let backend = on_trial.filter(|_| assignment.arm(subject) == Arm::Trial).unwrap_or(active);
        let subject = assignment.counted((subject, client), backend.number);
        let source = self.client_source(request, opens_session);
        Ok(Route {
            counted: Some(self.counted_on_trial(source, backend, subject)),
            assignment: Some(Arc::clone(assignment)),
            ..Route::new(Arc::clone(backend), None)
        })
    }

    /// Finds the release: the one of the session, which may have to migrate first, or the active one.
    /// After a wait, `view` is the view of then.
    pub(in crate::proxy) async fn route(
        &self,
        view: &mut Arc<RoutingView>,
        request: &Arc<ClientRequest>,
        message_kind: ClientMessageKind,
    ) -> Result<Route, RouteError> {
        let client_headers = &request.head.headers;
        let id = client_headers.get(MCP_SESSION_ID).filter(|_| !is_modern(client_headers));
        let Some(id) = id else {
            return self.route_without_session(view, request, false);
        };
        let session_id = id.to_str().ok().and_then(|id| self.sessions.decode(id));
        let session_id = session_id.ok_or(RouteError::SessionEnded)?;
        let Some(session) = self.sessions.get_or_restore(&session_id, self.clock.now()) else {
            let backend = view.routes.get_open(session_id.release);
            let backend = Arc::clone(backend.ok_or(RouteError::SessionEnded)?);
            let backend_id = session_id.backend_id.as_str().into();
            return Ok(Route { backend_id, ..Route::new(backend, Some(session_id)) });
        };
        let timeout = view.service.limits.migration_timeout;
        let routing = self.route_session(view, &session, request, message_kind);
        let result =
            tokio::time::timeout(timeout, routing).await.unwrap_or(Err(RouteError::NotMigrated));
        if matches!(result, Err(RouteError::SessionEnded)) {
            self.sessions.remove(&session_id);
        }
        result.map(|route| Route { session_id: Some(session_id), ..route })
    }

    async fn route_session(
        &self,
        view: &mut Arc<RoutingView>,
        session: &Arc<Session>,
        request: &Arc<ClientRequest>,
        message_kind: ClientMessageKind,
    ) -> Result<Route, RouteError> {
        loop {
            let environment = view.environment(session);
            // Another client that knows the id must not have the session opened again, or ended.
            if (environment.draining || session.with_machine(|machine| machine.is_lost()))
                && !self.sessions.is_owner(session, &request.head.headers)
            {
                if !view.can_stay(session) {
                    return Err(RouteError::NotOwner);
                }
                let admission = session.admit_here(message_kind);
                return self.route_admitted(view, session, request, admission);
            }
            let action = match session.admit(message_kind, environment) {
                Ok(admission) => return self.route_admitted(view, session, request, admission),
                Err(action) => action,
            };
            match action {
                Action::Migrate(to) => {
                    let migrated = self.migrate(session, to, request).await;
                    *view = self.view.load();
                    let Err(error) = migrated else { continue };
                    if view.can_stay(session) {
                        let admission = session.admit_here(message_kind);
                        let mut route = self.route_admitted(view, session, request, admission)?;
                        if let Some(counted) = &mut route.counted {
                            let outcome = error.outcome;
                            counted.refused_by =
                                self.refused_by(view, session, request, (to, outcome));
                        }
                        return Ok(route);
                    }
                    return Err(match error.auth_response {
                        Some(response) => RouteError::CredentialsRejected(response),
                        None if error.reason.is_final() => RouteError::SessionEnded,
                        None => RouteError::NotMigrated,
                    });
                }
                Action::Wait => {
                    session.wait_settled().await;
                    *view = self.view.load();
                }
                Action::Discard => return Err(RouteError::Discarded),
                Action::Acknowledge => return Err(RouteError::AlreadyEnded),
                Action::NoRelease => return Err(RouteError::NoRelease),
                Action::SessionEnded | Action::Forward => return Err(RouteError::SessionEnded),
            }
        }
    }

    /// Turns the head of a release's response into one for the client, with the proxy's session id.
    pub(in crate::proxy) fn to_client_head(
        &self,
        mut head: response::Parts,
        route: &Route,
        client_session: Option<HeaderValue>,
        lacks_id: bool,
    ) -> ClientHead {
        headers::strip_hop_by_hop(&mut head.headers);
        // Not the release's version: the proxy speaks 1.1 to the client.
        head.version = Version::HTTP_11;
        let (mut opened, mut has_new_id) = (None, false);
        let backend_id = head.headers.remove(MCP_SESSION_ID);
        let backend_id = backend_id.as_ref().and_then(|id| id.to_str().ok());
        let backend_id = backend_id.filter(|id| !id.is_empty()).or(lacks_id.then_some(""));
        if let Some(backend_id) = backend_id {
            let is_current = route.session_id.is_some() && *route.backend_id == *backend_id;
            if backend_id.len() > BACKEND_ID_MAX {
                let (length, release) = (backend_id.len(), route.backend.number.0);
                tracing::warn!(release, length, "session id over {BACKEND_ID_MAX} bytes dropped");
            }
            let id = if is_current {
                client_session
            } else {
                let (release, assignment) = (route.backend.number, route.assignment.as_deref());
                let fits = |key: &SessionKey| assignment.is_none_or(|it| it.fits(key, release));
                self.sessions.mint(release, backend_id, fits).and_then(|minted| {
                    has_new_id = true;
                    // Some servers name a session in an error, too. It is one when a client uses it.
                    if head.status.is_success() {
                        opened = self.sessions.get_or_restore(&minted.1, self.clock.now());
                    }
                    HeaderValue::from_str(&minted.0).ok()
                })
            };
            if let Some(id) = id {
                head.headers.insert(MCP_SESSION_ID, id);
            }
        }
        ClientHead { head, has_new_id, opened }
    }

    /// Whether a client that has just initialized at a release without session ids needs one of the
    /// proxy: another release, to which its traffic may move, serves no request without.
    pub(in crate::proxy) fn lacks_id(&self, view: &RoutingView, route: &Route) -> bool {
        let mut others = view.routes.backends().iter().map(|it| it.number);
        route.session_id.is_none()
            && view.pinned_reason().is_none()
            && others.any(|it| it != route.backend.number && self.sessions.gives_ids(it))
    }

    /// Records how a session was opened.
    pub(in crate::proxy) fn session_opened(
        &self,
        session: &Session,
        request: &[u8],
        result: &Value,
    ) {
        session.record_opening(request, result);
        self.sessions.mark_changed(session);
    }

    /// Makes the next request reopen a session that its release has lost. `false` when it cannot be
    /// reopened.
    pub(in crate::proxy) fn mark_session_lost(&self, session: &Session, generation: u32) -> bool {
        let can_reopen = self.view.load().pinned_reason().is_none() && session.snapshot().is_some();
        if can_reopen {
            session.with_machine(|machine| machine.mark_lost(generation));
        }
        can_reopen
    }

    fn route_admitted(
        &self,
        view: &mut Arc<RoutingView>,
        session: &Arc<Session>,
        request: &ClientRequest,
        admission: Admission,
    ) -> Result<Route, RouteError> {
        // Another request may have moved the session to a release that this view does not hold yet.
        if view.routes.get(admission.release).is_none() {
            *view = self.view.load();
        }
        // After a cut, the request gets the same answer as all that was open.
        let backend = view.routes.get(admission.release).ok_or(RouteError::NotMigrated)?;
        Ok(Route {
            backend: Arc::clone(backend),
            session_id: None,
            counted: Some(self.counted_session(view, session, request, backend)),
            assignment: None,
            session: Some(Arc::clone(session)),
            generation: admission.generation,
            backend_id: admission.backend_id,
            session_guard: admission.guard,
        })
    }

    async fn migrate(
        &self,
        session: &Arc<Session>,
        to: ReleaseNumber,
        request: &Arc<ClientRequest>,
    ) -> Result<(), MigrationError> {
        let migration = Migration {
            view: Arc::clone(&self.view),
            sessions: Arc::clone(&self.sessions),
            session: Arc::clone(session),
            to,
            request: Arc::clone(request),
        };
        migration.run().await
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
            counted: None,
            assignment: None,
        }
    }

    /// What the head of a request to it needs.
    pub(in crate::proxy) fn target(&self) -> RequestTarget<'_> {
        RequestTarget { authority: &self.backend.authority, backend_id: &self.backend_id }
    }
}
