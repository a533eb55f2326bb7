//! What all requests of a service share.

use std::sync::Arc;

use http::{StatusCode, request, response};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::mcp::headers::{LAST_EVENT_ID, MCP_SESSION_ID};
use crate::proxy::backend::address_limits::AddressLimits;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::request_head::to_backend_head;
use crate::proxy::exchange::held_events::HeldEvents;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::mcp_paths::McpPaths;
use crate::proxy::exchange::parsed_body::SharedParse;
use crate::proxy::exchange::sse_sessions::SseSessions;
use crate::proxy::exchange::{id_rewrite, public_url};
use crate::proxy::routing::router::{Route, Router};
use crate::proxy::routing::view::RoutingView;

/// What all requests of a service share.
#[derive(Debug)]
pub(in crate::proxy) struct ProxyState {
    /// Finds the release for a request.
    pub router: Arc<Router>,
    /// Fires when listening streams must end, because the proxy closes.
    pub end_streams: CancellationToken,
    /// The paths besides the endpoint at which clients send JSON-RPC.
    pub paths: Arc<McpPaths>,
    /// What each client address holds.
    pub addresses: Arc<AddressLimits>,
    /// The open requests of trusted proxies that name no client.
    pub proxies: Arc<AddressLimits>,
    /// The sessions of the HTTP+SSE transport.
    pub sse_sessions: Arc<SseSessions>,
    /// What streams keep of events.
    pub held_events: Arc<HeldEvents>,
    /// The large bodies of moved sessions that may be in memory.
    pub moved_bodies: Semaphore,
}

/// Large bodies of moved sessions that are in memory at once.
pub(in crate::proxy) const MOVED_BODIES_MAX: usize = 8;

impl ProxyState {
    /// Starts to track an exchange.
    pub(super) fn start_in_flight(
        &self,
        view: &RoutingView,
        route: &mut Route,
        kind: ExchangeKind,
        parsed: SharedParse,
    ) -> InFlight {
        let request_states = Arc::clone(&self.router.request_states);
        let backend = Arc::clone(&route.backend);
        let mut in_flight =
            InFlight::new(backend, kind, parsed, request_states, &view.service.limits);
        in_flight.session = route.session.clone();
        in_flight.generation = route.generation;
        in_flight.session_guard = route.session_guard.take();
        in_flight.counted = route.counted.take();
        in_flight
    }

    /// The head of a response, for the client. The exchange learns which session it opens.
    pub(super) fn client_head(
        &self,
        mut head: response::Parts,
        view: &RoutingView,
        route: &Route,
        request: &ClientRequest,
        in_flight: &mut InFlight,
    ) -> response::Parts {
        public_url::restore_headers(&mut head.headers, &route.backend, &view.service, request);
        let client_session = request.head.headers.get(MCP_SESSION_ID).cloned();
        let is_initialized = in_flight.initialize_body.is_some() && head.status == StatusCode::OK;
        let lacks_id = is_initialized && self.router.lacks_id(view, route);
        let client_head = self.router.to_client_head(head, route, client_session, lacks_id);
        if client_head.has_new_id {
            self.count_new_session(&view.service.limits, request);
        }
        if let Some(session) = client_head.opened {
            self.router.sessions.set_owner(&session, &request.head.headers);
            in_flight.session = Some(session);
            in_flight.generation = 0;
        }
        client_head.head
    }
}

/// The head of a request, for the release of this route.
pub(super) fn head_for_release(
    view: &RoutingView,
    route: &Route,
    request: &ClientRequest,
) -> request::Parts {
    let mut head = to_backend_head(request, route.target(), &view.service);
    if let Some(id) = head.headers.remove(LAST_EVENT_ID)
        && let Some(id) = id_rewrite::restore_last_event_id(&id, route.generation)
    {
        head.headers.insert(LAST_EVENT_ID, id);
    }
    head
}
