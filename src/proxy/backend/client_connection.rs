//! What a client connection and its exchanges know of each other.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, Version};
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mcp::headers::is_modern;
use crate::proxy::backend::address_limits::{AddressPlace, AddressRequests};

/// The client owes no part of a body.
const NOT_OWED: u64 = u64::MAX;

/// What one client connection and its exchanges know of each other.
#[derive(Debug)]
pub(in crate::proxy) struct ClientConnectionState {
    /// The address of the client.
    pub peer: SocketAddr,
    /// The port that it connected to.
    pub local_port: u16,
    /// Whether its address has too many connections, so that its requests are refused.
    pub is_refused: bool,
    /// The open requests of its address; `None` for a trusted proxy.
    pub address_requests: Option<AddressRequests>,
    is_http2: AtomicBool,
    requests: AtomicU32,
    waits_for_response: AtomicBool,
    has_sent_all: AtomicBool,
    half_closed_at: OnceLock<Instant>,
    /// Its place among the connections of its address, where that is a trusted proxy that names no client.
    pub(in crate::proxy) place_of_proxy: OnceLock<Option<AddressPlace>>,
    since: Instant,
    /// Milliseconds from `since` to the time since which the client sends too little of a body.
    body_owed_since: AtomicU64,
}

impl ClientConnectionState {
    /// The state of a new connection.
    pub(in crate::proxy) fn new(peer: SocketAddr, local_port: u16, is_refused: bool) -> Self {
        Self {
            peer,
            local_port,
            is_refused,
            address_requests: None,
            is_http2: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            waits_for_response: AtomicBool::new(false),
            has_sent_all: AtomicBool::new(false),
            half_closed_at: OnceLock::new(),
            place_of_proxy: OnceLock::new(),
            since: monotonic(),
            body_owed_since: AtomicU64::new(NOT_OWED),
        }
    }

    /// The state of a connection whose requests count for its address.
    pub(in crate::proxy) fn with_address_requests(self, of: Option<AddressRequests>) -> Self {
        Self { address_requests: of, ..self }
    }

    /// A request begins. A client may close its half of the connection and still wait for the response
    /// to a POST. In 2026-07-28 that is a cancellation; before, it is not.
    pub(in crate::proxy) fn begin_request<B>(&self, request: &Request<B>) {
        let is_http2 = request.version() == Version::HTTP_2;
        self.is_http2.store(is_http2, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let is_post = request.method() == Method::POST;
        let may_half_close = !is_http2 && is_post && !is_modern(request.headers());
        self.waits_for_response.store(may_half_close, Ordering::Relaxed);
        self.has_sent_all.store(false, Ordering::Relaxed);
        self.set_body_owed(None);
    }

    /// Whether the client speaks HTTP/2; known from its first request on.
    pub(in crate::proxy) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// The number of requests so far, modulo 2^32.
    pub(in crate::proxy) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The whole body of the request has arrived.
    pub(in crate::proxy) fn set_sent_all(&self) {
        self.has_sent_all.store(true, Ordering::Relaxed);
    }

    /// Whether a client that closes its half may still wait for a response.
    pub(in crate::proxy) fn may_wait(&self) -> bool {
        self.waits_for_response.load(Ordering::Relaxed)
    }

    /// Whether the whole body of the request has arrived.
    pub(in crate::proxy) fn has_sent_all(&self) -> bool {
        self.has_sent_all.load(Ordering::Relaxed)
    }

    /// Whether the client must send the next piece of a body, and for how long it has sent too little.
    pub(in crate::proxy) fn set_body_owed(&self, owed: Option<Duration>) {
        let since = owed.map(|it| self.since.elapsed().saturating_sub(it).as_millis());
        let since = since.map_or(NOT_OWED, |it| u64::try_from(it).unwrap_or(NOT_OWED));
        self.body_owed_since.store(since, Ordering::Relaxed);
    }

    /// How long the client has sent too little of the body of its only request, if it has.
    pub(in crate::proxy) fn body_owed_for(&self) -> Option<Duration> {
        let since = self.body_owed_since.load(Ordering::Relaxed);
        let is_owed = since != NOT_OWED && !self.is_http2();
        is_owed.then(|| self.since.elapsed().saturating_sub(Duration::from_millis(since)))
    }

    /// The client closed its half of the connection. It may have closed both. Returns whether that was
    /// not known yet.
    pub(in crate::proxy) fn set_half_closed(&self) -> bool {
        self.half_closed_at.set(monotonic()).is_ok()
    }

    /// When the client closed its half of the connection, if it did.
    pub(in crate::proxy) fn half_closed_at(&self) -> Option<Instant> {
        self.half_closed_at.get().copied()
    }
}
