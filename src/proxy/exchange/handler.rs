//! Handles one request, from the head of the request to the head of the response.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use http::{Method, Request, Response, StatusCode, header, request};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Service;
use crate::mcp::messages::FailureReason;
use crate::mcp::sse::SseReader;
use crate::mcp::{outcome, ttl_clamp};
use crate::model::Outcome;
use crate::proxy::backend::headers;
use crate::proxy::exchange::error_response::ClientBody;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight, unless_left};
use crate::proxy::exchange::request_body::{RequestBody, SharedParse};
use crate::proxy::exchange::response::{
    Interrupted, OnReleaseLeft, read_refusal, relay, respond_with_error, streamed,
};
use crate::proxy::exchange::response_body::{BodyParser, ResponseBody};
use crate::proxy::exchange::resumable_stream::{Replay, ResumableStream};
use crate::proxy::exchange::subscription::Subscription;
use crate::proxy::exchange::{error_response, host_check};
use crate::proxy::routing::request_states::RequestStates;
use crate::proxy::routing::router;
use crate::proxy::routing::router::Route;
use crate::proxy::routing::routing_table::RoutingTable;
use crate::proxy::session::{ClientMessageKind, ReplayDecision, Sessions};
use crate::proxy::shadow::samples::SampledRequest;

/// What all requests of a service share.
#[derive(Debug)]
pub(in crate::proxy) struct ProxyState {
    /// The settings.
    pub service: ArcSwap<Service>,
    /// The releases that requests can go to.
    pub routes: ArcSwap<RoutingTable>,
    /// The live legacy sessions.
    pub sessions: Sessions,
    /// Which release issued which `requestState`.
    pub request_states: Arc<RequestStates>,
    /// The release on trial; 0 for none.
    pub trial: AtomicU32,
    /// The release whose sessions migrate although it does not drain; 0 for none.
    pub migrating_from: AtomicU32,
    /// Timestamps the last use of sessions.
    pub clock: Clock,
    /// Fires when listening streams must end, because the proxy closes.
    pub end_streams: CancellationToken,
}

impl ProxyState {
    /// Handles one request. Every path returns a response.
    pub(in crate::proxy) async fn handle(
        self: &Arc<Self>,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<ClientBody> {
        let service = self.service.load();
        let checked =
            host_check::check(&service.hosts, &service.origins, request.uri(), request.headers());
        if let Err(rejected) = checked {
            return error_response::plain_text(rejected.status, rejected.text);
        }
        if request.method() == Method::CONNECT {
            return error_response::plain_text(
                StatusCode::METHOD_NOT_ALLOWED,
                "CONNECT is not supported",
            );
        }
        if request.uri().path() == service.path && request.method() == Method::POST {
            self.handle_post(&service, peer, request).await
        } else {
            self.handle_other(&service, peer, request).await
        }
    }

    /// Handles JSON-RPC: each request must get a response for its id.
    async fn handle_post(
        self: &Arc<Self>,
        service: &Service,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<ClientBody> {
        let (head, body) = request.into_parts();
        let request_body = match RequestBody::read(body, service.limits.body_max).await {
            Ok(request_body) => request_body,
            Err(error) => return error_response::plain_text(error.status(), error.text()),
        };
        if let Some(response) = self.check_headers_match(&head.headers, &request_body) {
            return response;
        }
        self.forward_with_retry(peer, head, request_body).await
    }

    /// Forwards a POST, and a second time when its release drained, was cut or lost the session, and a
    /// replay is safe.
    pub(in crate::proxy) async fn forward_with_retry(
        self: &Arc<Self>,
        peer: IpAddr,
        head: request::Parts,
        request_body: RequestBody,
    ) -> Response<ClientBody> {
        let replay_body = request_body.buffered().cloned();
        let interrupted = match self.forward_once(peer, head.clone(), request_body).await {
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
        match self.forward_once(peer, head, RequestBody::from_bytes(body)).await {
            Ok(response) => response,
            Err(interrupted) => respond_with_error(interrupted.in_flight, interrupted.cause).await,
        }
    }

    /// Forwards a POST to its release. An error when the release is cut before the client saw anything.
    async fn forward_once(
        self: &Arc<Self>,
        peer: IpAddr,
        mut head: request::Parts,
        request_body: RequestBody,
    ) -> Result<Response<ClientBody>, Interrupted> {
        let parsed = request_body.parsed();
        let (message_kind, is_subscription, may_have_ttl, request_state) = {
            let parsed = parsed.lock().unwrap_or_else(PoisonError::into_inner);
            let first = parsed.messages.first();
            let method = first.and_then(|it| it.method.as_deref()).unwrap_or_default();
            let request_state = first.and_then(|it| it.request_state_hash);
            let (is_subscription, may_have_ttl) =
                (method == "subscriptions/listen", ttl_clamp::may_carry_ttl(method));
            (router::classify_body(&parsed), is_subscription, may_have_ttl, request_state)
        };
        let route = match self.route_by_state(&head, request_state) {
            Some(route) => route,
            None => self.route(&head, message_kind, peer).await,
        };
        let route = match route {
            Ok(route) => route,
            Err(error) => {
                request_body.read_to_end().await;
                let (ids, batch) =
                    parsed.lock().unwrap_or_else(PoisonError::into_inner).request_ids();
                let ids: Vec<_> = ids.iter().map(AsRef::as_ref).collect();
                return Ok(error.into_response(&ids, batch));
            }
        };
        let mut route = route;
        let request_body = self.observe_messages(&route, message_kind, &mut head, request_body);
        let kind = if is_subscription { ExchangeKind::Subscription } else { ExchangeKind::Call };
        let mut in_flight = self.start_in_flight(&mut route, kind, parsed);
        in_flight.record_cancellations();
        in_flight.clamp_ttl = may_have_ttl
            && headers::is_modern(&head.headers)
            && self.trial.load(Ordering::Relaxed) == route.backend.number.0;
        if router::is_initialize(&request_body) {
            in_flight.initialize_body = request_body.buffered().cloned();
        }
        let client_session = head.headers.get(headers::MCP_SESSION_ID).cloned();
        let on_release_left = OnReleaseLeft {
            replay: Replay::new(self, peer, &head, &request_body, &in_flight),
            subscription: Subscription::new(self, peer, &head, &request_body, &in_flight),
        };
        self.to_backend_head(&mut head, &route, peer);
        in_flight.sample = sampled(&route, &head, &request_body);
        in_flight.request_body = Some(request_body.clone());
        let sending = route.backend.send(Request::from_parts(head, request_body.to_backend_body()));
        match unless_left(&mut in_flight, sending).await {
            Some(Ok(response)) if !response.status().is_informational() => {
                let (head, body) = response.into_parts();
                let head = self.to_client_head(head, &route, client_session, &mut in_flight);
                relay(self, head, body, in_flight, on_release_left).await
            }
            Some(Err(error)) if error.is_connect() && in_flight.backend.draining.is_cancelled() => {
                Err(Interrupted { in_flight, sent: false, cause: FailureReason::Rollback })
            }
            Some(_) => Ok(respond_with_error(in_flight, FailureReason::BackendFailed).await),
            None => Err(Interrupted { in_flight, sent: true, cause: FailureReason::Rollback }),
        }
    }

    /// Starts to track an exchange.
    pub(in crate::proxy) fn start_in_flight(
        &self,
        route: &mut Route,
        kind: ExchangeKind,
        parsed: SharedParse,
    ) -> InFlight {
        let service = self.service.load();
        let (slow, deadline) = (service.limits.slow_after, service.limits.deadline);
        let slow = matches!(kind, ExchangeKind::Call | ExchangeKind::Subscription).then_some(slow);
        let mut in_flight = InFlight::new(Arc::clone(&route.backend), kind, parsed, slow, deadline);
        in_flight.session = route.session.clone();
        in_flight.generation = route.generation;
        in_flight.session_guard = route.session_guard.take();
        in_flight
    }

    /// Handles everything else: GET streams, the end of a session, and other paths.
    async fn handle_other(
        self: &Arc<Self>,
        service: &Service,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<ClientBody> {
        let (head, body) = request.into_parts();
        let request_body = match RequestBody::opaque(body, service.limits.body_max) {
            Ok(request_body) => request_body,
            Err(error) => return error_response::plain_text(error.status(), error.text()),
        };
        let is_endpoint = head.uri.path() == service.path;
        if !(is_endpoint && head.method == Method::GET) {
            let response = self.forward_plain(peer, head, request_body, is_endpoint, false).await;
            return response.unwrap_or_else(release_left_response);
        }
        // A stream whose release was cut while it opened opens at the next release. A stream whose
        // session the release has lost opens after the session was reopened.
        match self.forward_plain(peer, head.clone(), request_body, is_endpoint, true).await {
            Some(response) => response,
            None => {
                let again = self
                    .forward_plain(peer, head, RequestBody::default(), is_endpoint, false)
                    .await;
                again.unwrap_or_else(release_left_response)
            }
        }
    }

    /// Forwards anything but a POST. `None` when the release is cut before it responds; with `reopen`,
    /// also when it has lost the session and that can be reopened.
    async fn forward_plain(
        self: &Arc<Self>,
        peer: IpAddr,
        mut head: request::Parts,
        request_body: RequestBody,
        is_endpoint: bool,
        reopen: bool,
    ) -> Option<Response<ClientBody>> {
        let kind = if is_endpoint && head.method == Method::GET {
            ExchangeKind::GetStream
        } else {
            ExchangeKind::Other
        };
        let message_kind = match kind {
            ExchangeKind::GetStream => ClientMessageKind::Listen,
            _ if is_endpoint && head.method == Method::DELETE => ClientMessageKind::Delete,
            _ => ClientMessageKind::Notification,
        };
        let mut route = match self.route(&head, message_kind, peer).await {
            Ok(route) => route,
            Err(error) => {
                self.end_session(&head, message_kind);
                return Some(error.into_response(&[], false));
            }
        };
        let mut in_flight = self.start_in_flight(&mut route, kind, request_body.parsed());
        let client_session = head.headers.get(headers::MCP_SESSION_ID).cloned();
        let client_head = head.clone();
        self.to_backend_head(&mut head, &route, peer);
        let sending = route.backend.send(Request::from_parts(head, request_body.to_backend_body()));
        let (head, mut body) = match unless_left(&mut in_flight, sending).await? {
            Ok(response) if !response.status().is_informational() => response.into_parts(),
            _ => return Some(respond_with_error(in_flight, FailureReason::BackendFailed).await),
        };
        let mut ready = VecDeque::new();
        if reopen && in_flight.session.is_some() && head.status.is_client_error() {
            let (text, lost) = read_refusal(&mut in_flight, head.status, &mut body).await?;
            if lost && self.forgot(&in_flight) {
                return None;
            }
            ready = text;
        }
        // A server may refuse to end a session; then the session continues.
        if head.status.is_success() {
            self.end_session(&client_head, message_kind);
        }
        // Servers without a GET stream respond with 405, and some, by their router, with 404. That is
        // no fault.
        let none = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND].contains(&head.status);
        let neutral = kind == ExchangeKind::GetStream && none;
        in_flight.count_response(if neutral {
            Outcome::Neutral
        } else {
            outcome::from_status(head.status)
        });
        let mut head = self.to_client_head(head, &route, client_session, &mut in_flight);
        let readable =
            headers::is_event_stream(&head.headers) && !headers::is_compressed(&head.headers);
        if kind != ExchangeKind::GetStream || !readable {
            return Some(streamed(head, ready, body, BodyParser::Unparsed, in_flight));
        }
        head.headers.remove(header::CONTENT_LENGTH);
        let resumable = ResumableStream::new(self, &in_flight);
        let status = head.status;
        let reader = BodyParser::Events(SseReader::new());
        let response_body = ResponseBody::new(VecDeque::new(), body, reader, status, in_flight)
            .with_resumable(resumable);
        Some(Response::from_parts(head, ClientBody::Streaming(Box::new(response_body))))
    }

    /// Removes the session that the client ended.
    fn end_session(&self, head: &request::Parts, message_kind: ClientMessageKind) {
        let id = head
            .headers
            .get(headers::MCP_SESSION_ID)
            .filter(|_| message_kind == ClientMessageKind::Delete);
        let id = id.and_then(|id| id.to_str().ok());
        if let Some(session_id) = id.and_then(|id| self.sessions.decode(id)) {
            self.sessions.remove(&session_id);
        }
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
    request_body
        .buffered()
        .filter(|_| is_sampled)
        .and_then(|body| SampledRequest::from_request(head, body))
}

fn release_left_response() -> Response<ClientBody> {
    error_response::plain_text(
        StatusCode::BAD_GATEWAY,
        "the release did not answer: it was stopped, or lost the session; send the request again",
    )
}
