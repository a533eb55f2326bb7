//! Handles everything but a POST to the endpoint: GET streams, the end of a session, and other paths.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::mcp::endpoint::EndpointPath;
use crate::mcp::headers::{
    LAST_EVENT_ID, MCP_SESSION_ID, is_compressed, is_event_stream, is_readable_stream,
};
use crate::mcp::messages::FailureReason;
use crate::mcp::outcome;
use crate::mcp::sse::SseReader;
use crate::model::Outcome;
use crate::proxy::backend::body::{BackendBody, ReleaseBody, decoded};
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::pool::SendError;
use crate::proxy::backend::request_head::is_metadata;
use crate::proxy::exchange::body_limits::BodyLimits;
use crate::proxy::exchange::cancellation::cancelled;
use crate::proxy::exchange::client_body::ClientBody;
use crate::proxy::exchange::endpoint_capture::EndpointCapture;
use crate::proxy::exchange::error_response::{not_routed, plain_text};
use crate::proxy::exchange::id_rewrite::restore_last_event_id;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight, unless_left};
use crate::proxy::exchange::parsed_body::RequestIds;
use crate::proxy::exchange::public_url::restore_metadata;
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::exchange::response::{
    can_reopen, read_refusal, read_start, respond_with_error, streamed,
};
use crate::proxy::exchange::response_body::{BodyParser, ResponseBody};
use crate::proxy::exchange::resumable_stream::ResumableStream;
use crate::proxy::exchange::send::send_with_repetition;
use crate::proxy::exchange::state::{ProxyState, head_for_release};
use crate::proxy::exchange::waiting_stream::WaitingStream;
use crate::proxy::routing::router::{Route, RouteError};
use crate::proxy::routing::view::RoutingView;
use crate::proxy::session::{ClientMessageKind, StreamCommand};

/// The first wait for a release to notice that a stale stream has ended, and the last one; each is
/// twice as long as the one before.
const STALE_STREAM_DELAY: Duration = Duration::from_millis(20);
const STALE_STREAM_DELAY_MAX: Duration = Duration::from_secs(1);

/// What a request is, by its method and path.
#[derive(Debug, Clone, Copy)]
struct RequestKind {
    exchange: ExchangeKind,
    message: ClientMessageKind,
}

impl RequestKind {
    fn of(request: &ClientRequest) -> Self {
        // A release may serve MCP at other paths, too. There, the session makes it MCP.
        let is_mcp = request.path != EndpointPath::Other
            || request.head.headers.contains_key(MCP_SESSION_ID);
        match request.head.method {
            Method::GET if is_mcp => {
                Self { exchange: ExchangeKind::GetStream, message: ClientMessageKind::Listen }
            }
            Method::DELETE if request.path != EndpointPath::Other => {
                Self { exchange: ExchangeKind::Other, message: ClientMessageKind::Delete }
            }
            _ => Self { exchange: ExchangeKind::NotMcp, message: ClientMessageKind::Notification },
        }
    }
}

impl ProxyState {
    /// Handles a request that is not a POST to the endpoint.
    pub(super) async fn handle_other(
        self: &Arc<Self>,
        view: Arc<RoutingView>,
        request: &Arc<ClientRequest>,
        body: Incoming,
    ) -> Response<ClientBody> {
        let request_body =
            match RequestBody::opaque(body, BodyLimits::of(&view.service.limits, request)) {
                Ok(request_body) => request_body,
                Err(error) => {
                    return plain_text(error.status(), error.text()).map(ClientBody::Full);
                }
            };
        self.forward_other(view, request, request_body).await
    }

    /// Forwards a request that is not a POST to the endpoint.
    pub(super) async fn forward_other(
        self: &Arc<Self>,
        view: Arc<RoutingView>,
        request: &Arc<ClientRequest>,
        request_body: RequestBody,
    ) -> Response<ClientBody> {
        let kind = RequestKind::of(request);
        let can_retry = kind.exchange == ExchangeKind::GetStream;
        let mut response = self.forward_plain(view, request, request_body, kind, can_retry).await;
        // A stream whose release was cut while it opened opens at the next release. A stream whose
        // session the release has lost opens after the session was reopened.
        if response.is_none() && can_retry {
            let view = self.router.view.load();
            let body = RequestBody::default();
            response = self.forward_plain(view, request, body, kind, false).await;
        }
        response.unwrap_or_else(|| {
            let text =
                "the release did not respond: it was stopped, or lost the session; try again";
            plain_text(StatusCode::BAD_GATEWAY, text).map(ClientBody::Full)
        })
    }

    /// Forwards anything but a POST. `None` when the release is cut before it responds; with `reopen`,
    /// also when it has lost the session and that can be reopened.
    async fn forward_plain(
        self: &Arc<Self>,
        mut view: Arc<RoutingView>,
        request: &Arc<ClientRequest>,
        request_body: RequestBody,
        kind: RequestKind,
        reopen: bool,
    ) -> Option<Response<ClientBody>> {
        let mut route = match self.router.route(&mut view, request, kind.message).await {
            Ok(route) => route,
            Err(error) => {
                if matches!(error, RouteError::AlreadyEnded) {
                    self.end_session(request, kind);
                }
                return Some(not_routed(error, &RequestIds::default()).map(ClientBody::Full));
            }
        };
        let mut in_flight =
            self.start_in_flight(&view, &mut route, kind.exchange, request_body.parsed());
        let sent = send_plain(&view, &route, request, &request_body, &mut in_flight);
        let (mut head, mut body) = match sent.await? {
            Ok(response) if !response.status().is_informational() => {
                as_kind(response, kind, request).into_parts()
            }
            Err(error) => return Some(respond_with_error(in_flight, error.reason()).await),
            Ok(_) => {
                return Some(respond_with_error(in_flight, FailureReason::BackendFailed).await);
            }
        };
        let mut ready = VecDeque::new();
        let ends_session = kind.message == ClientMessageKind::Delete;
        let is_refused = in_flight.session.is_some() && head.status.is_client_error();
        if is_refused && (reopen || ends_session) {
            let (text, lost) = read_refusal(&mut in_flight, head.status, &mut body).await?;
            if lost && ends_session {
                return Some(self.end_lost_session(request, kind, &mut in_flight));
            }
            if lost && can_reopen(&self.router, &in_flight) {
                return None;
            }
            ready = text;
        }
        if head.status == StatusCode::CONFLICT
            && let Some(other) = stream_to_wait_for(&route, request, &in_flight)
        {
            in_flight.count_response(Outcome::Neutral);
            let head = self.client_head(head, &view, &route, request, &mut in_flight);
            let waiting = ClientBody::Waiting(Box::new(WaitingStream::new(other, self, &view)));
            return Some(Response::from_parts(WaitingStream::head_of(head), waiting));
        }
        // A server may refuse to end a session; then the session continues.
        if head.status.is_success() {
            self.end_session(request, kind);
        }
        let is_stream = kind.exchange == ExchangeKind::GetStream;
        count_plain(&mut in_flight, head.status, is_stream, request.path);
        if is_metadata(request.head.uri.path()) && !is_compressed(&head.headers) {
            let is_whole = read_start(&mut in_flight, &mut body, &mut ready).await?;
            let backend = &route.backend;
            if is_whole && restore_metadata(&mut ready, backend, &view.service, request) {
                head.headers.remove(header::CONTENT_LENGTH);
            }
        }
        let head = self.client_head(head, &view, &route, request, &mut in_flight);
        Some(self.plain_response(request, head, ready, body, in_flight))
    }

    /// The response to anything but a POST, with a stream that the proxy reads if it is one of MCP.
    fn plain_response(
        self: &Arc<Self>,
        request: &Arc<ClientRequest>,
        mut head: response::Parts,
        ready: VecDeque<Bytes>,
        body: ReleaseBody,
        in_flight: InFlight,
    ) -> Response<ClientBody> {
        let is_stream = in_flight.kind() == ExchangeKind::GetStream;
        let has_session = in_flight.session.is_some();
        let endpoint = EndpointCapture::new(self, request, &head).filter(|_| !has_session);
        let is_read = is_stream && is_readable_stream(&head.headers);
        if is_read || endpoint.is_some() {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        if !is_read {
            if is_stream && is_event_stream(&head.headers) {
                in_flight.backend.outcomes.count_unread();
            }
            let response = streamed(head, ready, body, BodyParser::Unparsed, in_flight);
            return response.map(|body| body.with_endpoint(endpoint));
        }
        let resumable = ResumableStream::new(self, request, &in_flight);
        let reader = BodyParser::Events(SseReader::new());
        let response_body =
            ResponseBody::new(VecDeque::new(), body, reader, head.status, in_flight)
                .with_endpoint(endpoint)
                .with_resumable(resumable, cancelled(&self.end_streams));
        Response::from_parts(head, ClientBody::Streaming(Box::new(response_body)))
    }

    /// Ends a session that its release lost, as after a restart: it is over, as the client wants. A status
    /// alone may mean that clients cannot end sessions.
    fn end_lost_session(
        &self,
        request: &ClientRequest,
        kind: RequestKind,
        in_flight: &mut InFlight,
    ) -> Response<ClientBody> {
        in_flight.count_response(Outcome::Neutral);
        self.end_session(request, kind);
        not_routed(RouteError::AlreadyEnded, &RequestIds::default()).map(ClientBody::Full)
    }

    /// Removes the session that the client ended.
    fn end_session(&self, request: &ClientRequest, kind: RequestKind) {
        let id = request.head.headers.get(MCP_SESSION_ID);
        let id = id.filter(|_| kind.message == ClientMessageKind::Delete);
        let id = id.and_then(|id| id.to_str().ok());
        if let Some(session_id) = id.and_then(|id| self.router.sessions.decode(id)) {
            self.router.sessions.remove(&session_id);
        }
    }
}

/// The response with a body that the proxy can read, where it has to.
fn as_kind(
    response: Response<Incoming>,
    kind: RequestKind,
    request: &ClientRequest,
) -> Response<ReleaseBody> {
    let is_read = kind.exchange == ExchangeKind::GetStream
        || (request.head.method == Method::GET && is_metadata(request.head.uri.path()));
    if is_read { decoded(response) } else { response.map(ReleaseBody::AsSent) }
}

/// The stream that has the place of this one, where that is another one of the same client: this one
/// continues a stream of a release that the session has left. A client that comes back after its connection
/// was lost finds its place again as soon as that is noticed.
fn stream_to_wait_for(
    route: &Route,
    request: &ClientRequest,
    in_flight: &InFlight,
) -> Option<mpsc::Sender<StreamCommand>> {
    let last_event_id = request.head.headers.get(LAST_EVENT_ID)?;
    let is_of_this_release = restore_last_event_id(last_event_id, route.generation).is_some();
    let is_stream = in_flight.kind() == ExchangeKind::GetStream;
    let session = in_flight.session.as_ref().filter(|_| is_stream && !is_of_this_release)?;
    session.listen_stream()
}

/// Sends a request. A GET stream that meets an earlier one of the same session ends that: its client
/// came back, and a release may allow one stream for a session.
async fn send_plain(
    view: &RoutingView,
    route: &Route,
    request: &ClientRequest,
    request_body: &RequestBody,
    in_flight: &mut InFlight,
) -> Option<Result<Response<Incoming>, SendError>> {
    let mut delay = STALE_STREAM_DELAY;
    loop {
        let sent = send_repeatable(view, route, request, request_body, in_flight).await?;
        let conflicts = sent.as_ref().is_ok_and(|it| it.status() == StatusCode::CONFLICT)
            && in_flight.kind() == ExchangeKind::GetStream;
        if conflicts && stream_to_wait_for(route, request, in_flight).is_some() {
            return Some(sent);
        }
        let session = in_flight.session.as_ref().filter(|_| conflicts);
        // After the end of the earlier stream, the release may need a moment to notice it.
        // A full queue means that it ends or moves already.
        let stale = session.and_then(|session| session.listen_stream());
        let is_ending = stale.is_some_and(|stream| stream.try_send(StreamCommand::End).is_ok());
        let is_waiting = conflicts && delay > STALE_STREAM_DELAY && delay <= STALE_STREAM_DELAY_MAX;
        if !is_ending && !is_waiting {
            return Some(sent);
        }
        unless_left(in_flight, tokio::time::sleep(delay)).await?;
        delay *= 2;
    }
}

/// Sends a request, again where its method allows that.
async fn send_repeatable(
    view: &RoutingView,
    route: &Route,
    request: &ClientRequest,
    request_body: &RequestBody,
    in_flight: &mut InFlight,
) -> Option<Result<Response<Incoming>, SendError>> {
    let body = request_body.to_backend_body();
    let can_repeat = request.head.method.is_idempotent() && body.is_end_stream();
    let sending = Request::from_parts(head_for_release(view, route, request), body);
    let repetition = |_: &InFlight| {
        let head = can_repeat.then(|| head_for_release(view, route, request))?;
        Some(Request::from_parts(head, BackendBody::default()))
    };
    send_with_repetition(in_flight, &route.backend, sending, repetition).await
}

/// Counts the response to anything but a POST.
fn count_plain(in_flight: &mut InFlight, status: StatusCode, is_stream: bool, path: EndpointPath) {
    // Servers without a GET stream respond with 405, and some, by their router, with 404. That is
    // no fault.
    let no_stream = matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND);
    let class = outcome::from_status(status);
    if is_stream && path == EndpointPath::Other && !status.is_success() {
        in_flight.backend.outcomes.count_not_mcp(class);
    } else {
        in_flight.count_response(if is_stream && no_stream { Outcome::Neutral } else { class });
    }
}
