//! The bounds of one client address: what it may have open, and how many sessions it may open.
//!
//! A refusal reaches no release, and is evidence about none.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;

use crate::clock::monotonic;
use crate::config::ProxyLimits;
use crate::mcp::methods;
use crate::proxy::backend::address_limits::AddressPlace;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::error_response;
use crate::proxy::exchange::parsed_body::lock_parsed;
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::exchange::state::ProxyState;

/// When a client with too many connections may try again: some of them are idle by then.
const CONNECTIONS_RETRY: Duration = Duration::from_secs(5);

impl ProxyState {
    /// The place of a request. Behind a trusted proxy, each client has so many as it could have
    /// connections; else its connection has the place.
    pub(super) fn enter(
        &self,
        limits: &ProxyLimits,
        request: &ClientRequest,
    ) -> Result<Option<AddressPlace>, Box<Response<Full<Bytes>>>> {
        let refusal = || {
            let text = "too many connections and open requests of this address";
            Box::new(with_retry_after(error_response::too_many(text, None), CONNECTIONS_RETRY))
        };
        if request.connection.is_refused {
            return Err(refusal());
        }
        let client = request.client.filter(|_| request.peer.is_trusted_proxy);
        let place = client.map(|it| self.addresses.enter(it, limits.address_connections_max));
        place.map(|place| place.ok_or_else(refusal)).transpose()
    }

    /// A refusal, where the address of the client has opened too many sessions within a minute.
    pub(super) fn check_new_session(
        &self,
        request: &ClientRequest,
        request_body: &RequestBody,
    ) -> Option<Response<Full<Bytes>>> {
        let client = request.client?;
        let parsed = request_body.parsed();
        let parsed = lock_parsed(&parsed);
        let opens = |method: &str| method == methods::INITIALIZE;
        let is_initialize =
            parsed.messages.iter().any(|it| it.method.as_deref().is_some_and(opens));
        // Of a large body the method is not known yet.
        let may_be = request_body.buffered().is_none()
            && self.router.names_no_session(&request.head.headers);
        if !is_initialize && !may_be {
            return None;
        }
        let max = self.router.view.load().service.limits.address_sessions_max;
        let wait = self.addresses.session_wait(client, max, monotonic())?;
        let text = "too many new sessions of this address within a minute";
        let requests = parsed.request_ids();
        Some(with_retry_after(error_response::too_many(text, requests.first()), wait))
    }

    /// The client has opened a session.
    pub(super) fn count_new_session(&self, limits: &ProxyLimits, request: &ClientRequest) {
        if let Some(client) = request.client {
            self.addresses.session_opened(client, limits.address_sessions_max, monotonic());
        }
    }
}

fn with_retry_after(mut response: Response<Full<Bytes>>, wait: Duration) -> Response<Full<Bytes>> {
    let seconds = wait.as_secs() + 1;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
