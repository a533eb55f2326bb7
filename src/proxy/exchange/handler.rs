//! Handles one request, from the head of the request to the head of the response.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::SemaphorePermit;

use crate::mcp::endpoint::EndpointPath;
use crate::mcp::headers::{MCP_SESSION_ID, is_modern, is_readable_stream};
use crate::mcp::messages::FailureReason;
use crate::model::Outcome;
use crate::proxy::backend::body::{BackendBody, ReleaseBody, decoded};
use crate::proxy::backend::client_connection::ClientConnectionState;
use crate::proxy::backend::client_request::{ClientRequest, Peer};
use crate::proxy::backend::failed_samples::SampledRequest;
use crate::proxy::backend::forwarded::client_address;
use crate::proxy::backend::pool::SendError;
use crate::proxy::exchange::body_error::BodyError;
use crate::proxy::exchange::body_limits::BodyLimits;
use crate::proxy::exchange::client_body::ClientBody;
use crate::proxy::exchange::client_messages::{PostKind, observe_messages};
use crate::proxy::exchange::error_response::{header_mismatch, not_routed, plain_text};
use crate::proxy::exchange::header_check::ExpectedBody;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::parsed_body::{SharedParse, lock_parsed};
use crate::proxy::exchange::replay::{NotReopened, ReopenFuture, ReplayFuture, Reroute};
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::exchange::response::{Interrupted, RelayContext, relay, respond_with_error};
use crate::proxy::exchange::send::send_with_repetition;
use crate::proxy::exchange::state::{ProxyState, head_for_release};
use crate::proxy::exchange::{cors, host_check};
use crate::proxy::routing::router::{Route, RouteError};
use crate::proxy::routing::view::RoutingView;
use crate::proxy::session::{ClientMessageKind, ReplayDecision};

/// The largest body of a moved session that is read whole, and the time limit for it.
const MOVED_BODY_MAX: usize = 16 * 1024 * 1024;
const MOVED_BODY_TIMEOUT: Duration = Duration::from_secs(30);

impl ProxyState {
    /// Handles one request. Every path returns a response.
    pub(in crate::proxy) async fn handle(
        self: &Arc<Self>,
        client: Arc<ClientConnectionState>,
        request: Request<Incoming>,
    ) -> Response<ClientBody> {
        let view = self.router.view.load();
        let service = &view.service;
        let checked =
            host_check::check(&service.hosts, &service.origins, request.uri(), request.headers());
        if let Err(rejected) = checked {
            return plain_text(rejected.status, rejected.text).map(ClientBody::Full);
        }
        if request.method() == Method::CONNECT {
            let response = plain_text(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not supported");
            return response.map(ClientBody::Full);
        }
        let path = EndpointPath::of(request.uri().path(), &service.path, service.path_case_exact);
        let (head, body) = request.into_parts();
        let (address, local_port) = (client.peer.ip().to_canonical(), client.local_port);
        let is_trusted_proxy = service.trusted_proxies.contains(address);
        let peer = Peer { address, is_trusted_proxy, local_port };
        let is_trusted = |address| service.trusted_proxies.contains(address);
        let of_client = client_address(peer, &head.headers, is_trusted);
        let request = ClientRequest { peer, client: of_client, connection: client, head, path };
        let request = Arc::new(request);
        let response = match self.enter(&service.limits, &request) {
            Ok(place) => {
                let response = self.handle_entered(view, &request, body).await;
                response.map(|body| body.with_place(place))
            }
            Err(refusal) => refusal.map(ClientBody::Full),
        };
        cors::add_headers(response, &request.head)
    }

    async fn handle_entered(
        self: &Arc<Self>,
        view: Arc<RoutingView>,
        request: &Arc<ClientRequest>,
        body: Incoming,
    ) -> Response<ClientBody> {
        if request.head.method != Method::POST {
            return match self.check_new_sse_session(request) {
                Some(refusal) => refusal.map(ClientBody::Full),
                None => self.handle_other(view, request, body).await,
            };
        }
        if let Some(session) = self.sse_sessions.find(&request.head) {
            self.handle_sse_post(&view, request, body, &session).await
        } else if request.path == EndpointPath::Other {
            self.handle_post_elsewhere(view, request, body).await
        } else {
            self.handle_post(request, body, BodyLimits::of(&view.service.limits, request)).await
        }
    }

    /// Handles a POST to another path than the endpoint: it may be MCP all the same.
    async fn handle_post_elsewhere(
        self: &Arc<Self>,
        view: Arc<RoutingView>,
        request: &Arc<ClientRequest>,
        body: Incoming,
    ) -> Response<ClientBody> {
        let limits = BodyLimits::of(&view.service.limits, request);
        if request.head.headers.contains_key(MCP_SESSION_ID) {
            return self.handle_post(request, body, limits).await;
        }
        match RequestBody::read_if_json_rpc(body, limits).await {
            Ok((body, true)) => self.forward_post(request, body).await,
            Ok((body, false)) => self.forward_other(view, request, body).await,
            Err(error) => plain_text(error.status(), error.text()).map(ClientBody::Full),
        }
    }

    /// Handles JSON-RPC: each request must get a response for its id.
    async fn handle_post(
        self: &Arc<Self>,
        request: &Arc<ClientRequest>,
        body: Incoming,
        limits: BodyLimits,
    ) -> Response<ClientBody> {
        match RequestBody::read(body, limits).await {
            Ok(request_body) => self.forward_post(request, request_body).await,
            Err(error) => plain_text(error.status(), error.text()).map(ClientBody::Full),
        }
    }

    async fn forward_post(
        self: &Arc<Self>,
        request: &Arc<ClientRequest>,
        request_body: RequestBody,
    ) -> Response<ClientBody> {
        let (request_body, _permit) = match self.read_moved(request, request_body).await {
            Ok(read) => read,
            Err(error) => return plain_text(error.status(), error.text()).map(ClientBody::Full),
        };
        if request_body.buffered().is_some() {
            request.connection.set_sent_all();
        }
        let post = PostKind::of(&lock_parsed(&request_body.parsed()));
        if let Some(refusal) = self.check_new_session(request, &request_body, post) {
            return refusal.map(ClientBody::Full);
        }
        if let Some(response) = self.check_headers_match(&request.head.headers, &request_body) {
            return response.map(ClientBody::Full);
        }
        self.forward_with_retry(request, request_body, post).await
    }

    /// Reads a large body whole where its session has moved: it may be the response to a request of the
    /// server, whose id the proxy has to restore, and many clients write the id last.
    /// It is in memory until the permit is dropped.
    async fn read_moved(
        &self,
        request: &ClientRequest,
        request_body: RequestBody,
    ) -> Result<(RequestBody, Option<SemaphorePermit<'_>>), BodyError> {
        if request_body.is_small_or_request() || !self.router.has_moved(&request.head.headers) {
            return Ok((request_body, None));
        }
        let reading = async {
            // The semaphore is never closed.
            let permit = self.moved_bodies.acquire().await.ok();
            Ok((request_body.read_whole(MOVED_BODY_MAX).await?, permit))
        };
        let read = tokio::time::timeout(MOVED_BODY_TIMEOUT, reading).await;
        read.unwrap_or(Err(BodyError::TimedOut))
    }

    /// An error when the headers do not match the body so far; it counts as a client fault of the
    /// active release. The rest of the body is checked as it passes.
    fn check_headers_match(
        &self,
        headers: &HeaderMap,
        request_body: &RequestBody,
    ) -> Option<Response<Full<Bytes>>> {
        let expected = ExpectedBody::from_headers(headers)?;
        let is_one_message = request_body.is_one_message();
        let parsed = request_body.parsed();
        let parsed = lock_parsed(&parsed);
        if is_one_message && parsed.messages.iter().all(|message| expected.matches(message)) {
            drop(parsed);
            request_body.set_expected(expected);
            return None;
        }
        let view = self.router.view.load();
        if let Some(active) = view.routes.active() {
            for message in parsed.messages.iter().filter(|message| message.id.is_some()) {
                let Some(method) = message.method.as_deref() else { continue };
                let name = message.name.as_deref().unwrap_or_default();
                let counters = active.outcomes.for_call(method, name);
                active.outcomes.count(Some(&counters), Outcome::ClientFault);
            }
        }
        Some(header_mismatch(parsed.request_ids().first()))
    }

    /// Forwards a POST, and a second time when its release drained, was cut or lost the session, and a
    /// replay is safe.
    async fn forward_with_retry(
        self: &Arc<Self>,
        request: &Arc<ClientRequest>,
        request_body: RequestBody,
        post: PostKind,
    ) -> Response<ClientBody> {
        let replay_body = request_body.buffered().cloned();
        let interrupted = match self.forward_once(request, request_body, post).await {
            Ok(response) => return response,
            Err(interrupted) => interrupted,
        };
        let Some(body) =
            replay_body.filter(|_| interrupted.replay_decision() == ReplayDecision::Replay)
        else {
            return respond_with_error(interrupted.in_flight, interrupted.cause).await;
        };
        let mut in_flight = interrupted.in_flight;
        match interrupted.cause {
            FailureReason::Rollback => in_flight.mark_replayed(),
            _ => in_flight.finish(Outcome::ServerFault),
        }
        drop(in_flight);
        match self.forward_once(request, RequestBody::from_bytes(body), post).await {
            Ok(response) => response,
            Err(interrupted) => respond_with_error(interrupted.in_flight, interrupted.cause).await,
        }
    }

    /// Forwards a POST to its release. An error when the release is cut before the client saw anything.
    async fn forward_once(
        self: &Arc<Self>,
        request: &Arc<ClientRequest>,
        mut request_body: RequestBody,
        post: PostKind,
    ) -> Result<Response<ClientBody>, Interrupted> {
        let mut view = self.router.view.load();
        let parsed = request_body.parsed();
        let route = self.find_route(&mut view, request, post).await;
        let mut route = match route {
            Ok(route) => route,
            Err(error) => {
                request_body.read_to_end().await;
                let requests = lock_parsed(&parsed).request_ids();
                return Ok(not_routed(error, &requests).map(ClientBody::Full));
            }
        };
        let mut head = head_for_release(&view, &route, request);
        if let Some(body) = observe_messages(&self.router, &route, post.message_kind, &request_body)
        {
            request_body = RequestBody::from_bytes(body);
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let mut in_flight =
            self.start_call(&view, &mut route, request, &request_body, (post, parsed));
        in_flight.sample = sampled(&route, &head, &request_body);
        in_flight.request_body = Some(request_body.clone());
        let sending = Request::from_parts(head, request_body.to_backend_body());
        let repetition = |in_flight: &InFlight| {
            let body = request_body.buffered().filter(|_| in_flight.is_idempotent())?;
            let head = head_for_release(&view, &route, request);
            Some(Request::from_parts(head, BackendBody::from(body.clone())))
        };
        match send_with_repetition(&mut in_flight, &route.backend, sending, repetition).await {
            Some(Ok(response)) if !response.status().is_informational() => {
                let (head, body) = decoded(response).into_parts();
                let head = self.client_head(head, &view, &route, request, &mut in_flight);
                relay(RelayContext { state: self, request }, head, body, in_flight).await
            }
            Some(Err(SendError::Unreachable)) if in_flight.backend.draining.is_cancelled() => {
                Err(Interrupted { in_flight, sent: false, cause: FailureReason::Rollback })
            }
            Some(Err(error)) => Ok(respond_with_error(in_flight, error.reason()).await),
            Some(_) => Ok(respond_with_error(in_flight, FailureReason::BackendFailed).await),
            None => {
                let sent = request_body.was_read();
                Err(Interrupted { in_flight, sent, cause: FailureReason::Rollback })
            }
        }
    }

    /// The release for a POST: the one that issued its `requestState`, the active one for an `initialize`
    /// that names no session, or the one of its session.
    async fn find_route(
        &self,
        view: &mut Arc<RoutingView>,
        request: &Arc<ClientRequest>,
        post: PostKind,
    ) -> Result<Route, RouteError> {
        let headers = &request.head.headers;
        match self.router.route_by_state(view, headers, post.request_state) {
            Some(route) => route,
            None if post.is_initialize && self.router.names_no_session(headers) => {
                self.router.route_without_session(view, request, true)
            }
            None => self.router.route(view, request, post.message_kind).await,
        }
    }

    /// Starts to track a POST.
    fn start_call(
        &self,
        view: &RoutingView,
        route: &mut Route,
        request: &ClientRequest,
        request_body: &RequestBody,
        (post, parsed): (PostKind, SharedParse),
    ) -> InFlight {
        let kind =
            if post.is_subscription { ExchangeKind::Subscription } else { ExchangeKind::Call };
        let mut in_flight = self.start_in_flight(view, route, kind, parsed);
        // Nearly all requests name the path as it is configured.
        if request.path != EndpointPath::Same
            && let Some(path) = self.paths.count_request(request.head.uri.path())
        {
            in_flight.set_unconfirmed(path);
        }
        in_flight.record_cancellations(&self.router.sessions);
        in_flight.client = Some(Arc::clone(&request.connection));
        in_flight.clamp_ttl = post.is_cacheable
            && is_modern(&request.head.headers)
            && view.is_on_trial(route.backend.number);
        if post.is_initialize {
            in_flight.initialize_body = request_body.buffered().cloned();
        }
        if kind == ExchangeKind::Call {
            in_flight.client_body = request_body.buffered().cloned();
        }
        in_flight
    }

    /// Opens a subscription at the release that is active now.
    async fn open_subscription(
        &self,
        request: &Arc<ClientRequest>,
        body: Bytes,
    ) -> Result<(ReleaseBody, InFlight), NotReopened> {
        let mut view = self.router.view.load();
        let request_body = RequestBody::from_bytes(body);
        let route = self.router.route(&mut view, request, ClientMessageKind::Listen).await;
        let mut route = route.map_err(|_| NotReopened::Unavailable)?;
        if route.backend.draining.is_cancelled() {
            return Err(NotReopened::Unavailable);
        }
        let kind = ExchangeKind::Subscription;
        let in_flight = self.start_in_flight(&view, &mut route, kind, request_body.parsed());
        let head = head_for_release(&view, &route, request);
        let open = || Request::from_parts(head.clone(), request_body.to_backend_body());
        let sending = route.backend.send_repeatable(open);
        let sent = sending.await.map_err(|_| NotReopened::Unavailable)?;
        if sent.status().is_server_error() {
            return Err(NotReopened::Unavailable);
        }
        let response = decoded(sent);
        let is_stream = response.status().is_success() && is_readable_stream(response.headers());
        is_stream.then(|| (response.into_body(), in_flight)).ok_or(NotReopened::Refused)
    }
}

impl Reroute for ProxyState {
    fn replay(self: Arc<Self>, request: Arc<ClientRequest>, body: Bytes) -> ReplayFuture {
        Box::pin(async move {
            let body = RequestBody::from_bytes(body);
            let post = PostKind::of(&lock_parsed(&body.parsed()));
            let response = self.forward_with_retry(&request, body, post).await;
            response.map(BodyExt::boxed_unsync)
        })
    }

    fn reopen(self: Arc<Self>, request: Arc<ClientRequest>, body: Bytes) -> ReopenFuture {
        Box::pin(async move { self.open_subscription(&request, body).await })
    }
}

/// The request for a shadow call, should it fail; `None` unless the release is sampled.
fn sampled(
    route: &Route,
    head: &request::Parts,
    request_body: &RequestBody,
) -> Option<Box<SampledRequest>> {
    let backend = &route.backend;
    let is_sampled =
        backend.samples.is_sampling() && request_body.is_single_read_only(&backend.read_only_tools);
    let body = request_body.buffered().filter(|_| is_sampled)?;
    SampledRequest::from_request(head, body, &backend.authority)
}
