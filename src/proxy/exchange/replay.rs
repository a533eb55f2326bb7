//! A request that the proxy sends again, to another release, although its response already streams.

use std::pin::Pin;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use http::Response;
use http_body_util::combinators::UnsyncBoxBody;

use crate::proxy::backend::body::ReleaseBody;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::in_flight::InFlight;

/// The body of a response inside another response.
pub(in crate::proxy) type BoxedBody = UnsyncBoxBody<Bytes, io::Error>;
/// The response to a replayed request.
pub(in crate::proxy) type ReplayFuture = Pin<Box<dyn Future<Output = Response<BoxedBody>> + Send>>;
/// A stream that a release opens again.
pub(in crate::proxy) type ReopenFuture =
    Pin<Box<dyn Future<Output = Result<(ReleaseBody, InFlight), NotReopened>> + Send>>;

/// Why a stream is not open again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum NotReopened {
    /// The release does not want it.
    Refused,
    /// No release serves at the moment.
    Unavailable,
}

/// Routes a request again. The handler implements it: a response body outlives the call of the handler
/// that made it, and must not depend on the handler.
pub(in crate::proxy) trait Reroute: fmt::Debug + Send + Sync {
    /// Forwards a POST again.
    fn replay(self: Arc<Self>, request: Arc<ClientRequest>, body: Bytes) -> ReplayFuture;

    /// Opens a subscription at the release that is active now.
    fn reopen(self: Arc<Self>, request: Arc<ClientRequest>, body: Bytes) -> ReopenFuture;
}

/// What a replay needs.
#[derive(Debug)]
pub(in crate::proxy) struct Replay {
    reroute: Arc<dyn Reroute>,
    request: Arc<ClientRequest>,
    body: Bytes,
}

impl Replay {
    /// `None` when a replay is not safe or not possible.
    pub(in crate::proxy) fn new(
        reroute: Arc<dyn Reroute>,
        request: &Arc<ClientRequest>,
        in_flight: &InFlight,
    ) -> Option<Self> {
        let body = in_flight.request_body.as_ref()?.buffered()?;
        let is_safe = in_flight.is_idempotent() && in_flight.initialize_body.is_none();
        is_safe.then(|| Self { reroute, request: Arc::clone(request), body: body.clone() })
    }

    /// Sends the request again.
    pub(in crate::proxy) fn send(self) -> ReplayFuture {
        self.reroute.replay(self.request, self.body)
    }
}
