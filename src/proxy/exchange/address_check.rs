//! The bounds of one client address: what it may have open, and how many sessions it may open.
//!
//! A refusal reaches no release, and is evidence about none.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use http_body_util::Full;

use crate::clock::monotonic;
use crate::config::ProxyLimits;
use crate::mcp::headers::{MCP_SESSION_ID, is_modern};
use crate::open_files;
use crate::proxy::backend::address_limits::AddressRequests;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::client_messages::PostKind;
use crate::proxy::exchange::error_response;
use crate::proxy::exchange::parsed_body::lock_parsed;
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::exchange::request_place::RequestPlace;
use crate::proxy::exchange::state::ProxyState;

/// When a client with too many connections may try again: some of them are idle by then.
const CONNECTIONS_RETRY: Duration = Duration::from_secs(5);

impl ProxyState {
    /// The place of a request. Behind a trusted proxy, a client may have as many open requests as
    /// another one may have connections; else its connection has the place. Each request may need a
    /// connection to a release, of which one address may use a share, and one source a part of that.
    pub(super) fn enter(
        &self,
        limits: &ProxyLimits,
        request: &ClientRequest,
    ) -> Result<RequestPlace, Box<Response<Full<Bytes>>>> {
        let place = self.request_place(limits, request);
        place.ok_or_else(|| {
            let text = "too many connections and open requests of this address";
            Box::new(with_retry_after(error_response::too_many(text, None), CONNECTIONS_RETRY))
        })
    }

    fn request_place(&self, limits: &ProxyLimits, request: &ClientRequest) -> Option<RequestPlace> {
        let source = || self.router.source_of_known(request);
        let share = open_files::address_share();
        // A client that waits goes before one that is slow.
        let begin = |requests: &AddressRequests| {
            requests.begin(share, source).or_else(|| {
                let has_room = self.addresses.end_slow_request(request.peer.address);
                has_room.then(|| requests.begin(usize::MAX, || None))?
            })
        };
        if let Some(requests) = &request.connection.address_requests {
            let request = match request.connection.is_refused {
                true => requests.begin_first(source()),
                false => begin(requests),
            };
            return request.map(RequestPlace::OnConnection);
        }
        let max = limits.address_connections_max.min(share);
        if let Some(client) = request.client {
            return self.addresses.enter(client, max).map(RequestPlace::BehindProxy);
        }
        // Once a connection: a place for each request would cost a lock and an allocation.
        let enter = || self.proxies.enter(request.peer.address, usize::MAX);
        let place = request.connection.place_of_proxy.get_or_init(enter).as_ref()?;
        begin(&place.requests()).map(RequestPlace::OnConnection)
    }

    /// A refusal of a POST that opens a session, where the address of the client has opened too many
    /// within a minute.
    pub(super) fn check_new_session(
        &self,
        request: &ClientRequest,
        request_body: &RequestBody,
        post: PostKind,
    ) -> Option<Response<Full<Bytes>>> {
        // Of a large body the method is not known yet.
        let may_open = || {
            request_body.buffered().is_none() && self.router.names_no_session(&request.head.headers)
        };
        if !post.opens_session && !may_open() {
            return None;
        }
        let wait = self.session_wait(request)?;
        let requests = lock_parsed(&request_body.parsed()).request_ids();
        Some(too_many_sessions(requests.first(), wait))
    }

    /// The same for a GET that opens a session of HTTP+SSE: one to a path where such sessions were opened
    /// before. That it opens one only the response shows.
    pub(super) fn check_new_sse_session(
        &self,
        request: &ClientRequest,
    ) -> Option<Response<Full<Bytes>>> {
        let headers = &request.head.headers;
        let may_open = request.head.method == Method::GET
            && self.sse_sessions.were_opened_at(request.head.uri.path())
            && !headers.contains_key(MCP_SESSION_ID)
            && !is_modern(headers);
        let wait = may_open.then(|| self.session_wait(request)).flatten()?;
        Some(too_many_sessions(None, wait))
    }

    fn session_wait(&self, request: &ClientRequest) -> Option<Duration> {
        let max = self.router.view.load().service.limits.address_sessions_max;
        self.addresses.session_wait(request.client?, max, monotonic())
    }

    /// The client has opened a session.
    pub(super) fn count_new_session(&self, limits: &ProxyLimits, request: &ClientRequest) {
        if let Some(client) = request.client {
            self.addresses.session_opened(client, limits.address_sessions_max, monotonic());
        }
    }
}

fn too_many_sessions(id: Option<&str>, wait: Duration) -> Response<Full<Bytes>> {
    let text = "too many new sessions of this address within a minute";
    with_retry_after(error_response::too_many(text, id), wait)
}

fn with_retry_after(mut response: Response<Full<Bytes>>, wait: Duration) -> Response<Full<Bytes>> {
    let seconds = wait.as_secs() + 1;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
