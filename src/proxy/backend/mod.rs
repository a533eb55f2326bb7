//! One release as the proxy sees it: how to reach it, what it carries, and whether it drains.

pub(super) mod body;
pub(super) mod client_request;
mod connector;
pub(super) mod failed_samples;
pub(super) mod forwarded;
pub(super) mod headers;
pub(super) mod outcome_counters;
pub(super) mod read_only_tools;
pub(super) mod request_head;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Address;
use crate::model::{DrainCost, ReleaseNumber};
use crate::proxy::backend::body::BackendBody;
use crate::proxy::backend::connector::{Connector, StartupGrace};
use crate::proxy::backend::failed_samples::FailedSamples;
use crate::proxy::backend::headers::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::proxy::backend::outcome_counters::OutcomeCounters;
use crate::proxy::backend::read_only_tools::ReadOnlyTools;

/// Below the keep-alive of common servers (Node and uvicorn close after 5 s), so that a request
/// does not reuse a connection that the server is about to close.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections that are kept.
const POOL_IDLE_MAX: usize = 256;

/// One release and the connections to it.
#[derive(Debug)]
pub(super) struct Backend {
    /// The release.
    pub number: ReleaseNumber,
    /// The outcomes of its requests.
    pub outcomes: OutcomeCounters,
    client: Client<Connector, BackendBody>,
    /// The address of its slot.
    pub address: Address,
    startup_grace: Arc<StartupGrace>,
    /// The `Host` that names its slot.
    pub authority: String,
    /// Fires when the release starts to drain: sessions and streams that can move do so.
    pub draining: CancellationToken,
    /// Fires when the proxy must answer everything that is still open.
    pub cut: CancellationToken,
    /// Open requests, without listening streams.
    pub in_flight_requests: AtomicU64,
    /// Open streams: GET, and `subscriptions/listen`.
    pub open_streams: AtomicU64,
    /// Open `subscriptions/listen` streams, which count as sessions.
    pub subscriptions: AtomicU64,
    /// Which calls are read-only.
    pub read_only_tools: Arc<ReadOnlyTools>,
    /// Its failed requests, and the results of shadow calls to it.
    pub samples: FailedSamples,
    error_responses: AtomicU64,
    closed_streams: AtomicU64,
    replayed_requests: AtomicU64,
    truncated_responses: AtomicU64,
    migrated_sessions: AtomicU64,
    ended_subscriptions: AtomicU64,
}

impl Backend {
    /// A release at its slot's address, which this `Host` names. The first request opens the first connection.
    pub(super) fn new(
        number: ReleaseNumber,
        address: Address,
        authority: String,
        read_only_tools: Arc<ReadOnlyTools>,
    ) -> Self {
        let startup_grace = Arc::<StartupGrace>::default();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .http1_max_headers(HEADERS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(Connector::new(address.clone(), Arc::clone(&startup_grace)));
        Self {
            number,
            address,
            startup_grace,
            outcomes: OutcomeCounters::new(Arc::clone(&read_only_tools)),
            client,
            authority,
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            in_flight_requests: AtomicU64::new(0),
            open_streams: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            read_only_tools,
            samples: FailedSamples::default(),
            error_responses: AtomicU64::new(0),
            closed_streams: AtomicU64::new(0),
            replayed_requests: AtomicU64::new(0),
            truncated_responses: AtomicU64::new(0),
            migrated_sessions: AtomicU64::new(0),
            ended_subscriptions: AtomicU64::new(0),
        }
    }

    /// Sends a request to it.
    pub(super) fn send(&self, request: Request<BackendBody>) -> ResponseFuture {
        self.client.request(request)
    }

    /// Lets requests wait for its first connection until this instant: it may still be starting.
    pub(super) fn set_startup_deadline(&self, until: Instant) {
        self.startup_grace.set_deadline(until);
    }

    /// Counts a request that the proxy answered with an error because the release was cut.
    pub(super) fn count_error_response(&self) {
        self.error_responses.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a stream that the proxy closed because the release drained or was cut.
    pub(super) fn count_closed_stream(&self) {
        self.closed_streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a `subscriptions/listen` stream that could not continue at another release.
    pub(super) fn count_ended_subscription(&self) {
        self.ended_subscriptions.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an open request that the proxy sent again, to the next release.
    pub(super) fn count_replayed_request(&self) {
        self.replayed_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a response that ended early, where the proxy could not insert an error.
    pub(super) fn count_truncated_response(&self) {
        self.truncated_responses.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a session that moved to another release.
    pub(super) fn count_migrated_session(&self) {
        self.migrated_sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// The cost of draining it so far, without the sessions that are still there.
    pub(super) fn drain_cost(&self) -> DrainCost {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        DrainCost {
            error_responses: read(&self.error_responses),
            streams_closed: read(&self.closed_streams),
            requests_replayed: read(&self.replayed_requests),
            responses_lost: read(&self.truncated_responses),
            sessions_migrated: read(&self.migrated_sessions),
            sessions_ended: read(&self.ended_subscriptions),
            ..DrainCost::default()
        }
    }

    /// Whether it still takes requests: it was not cut.
    pub(super) fn is_open(&self) -> bool {
        !self.cut.is_cancelled()
    }

    /// Whether no request and no stream is open.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight_requests.load(Ordering::Relaxed) == 0
            && self.open_streams.load(Ordering::Relaxed) == 0
    }
}
