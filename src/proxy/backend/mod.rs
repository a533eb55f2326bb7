//! One release as the proxy sees it: how to reach it, what it carries, and whether it drains.

mod active_set;
pub(super) mod address_limits;
pub(super) mod answer_profile;
pub(super) mod body;
pub(super) mod client_connection;
pub(super) mod client_request;
pub(super) mod connector;
pub(super) mod counted_subject;
pub(super) mod error_samples;
pub(super) mod failed_samples;
pub(super) mod failing_sources;
pub(super) mod forwarded;
pub(super) mod headers;
pub(super) mod identity;
pub(super) mod outcome_counters;
pub(super) mod pool;
pub(super) mod read_only_tools;
pub(super) mod recent_subjects;
pub(super) mod request_head;
mod stream;
pub(super) mod trial_cells;
pub(super) mod trial_subject;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Address;
use crate::model::{DrainCost, ReleaseNumber};
use crate::proxy::backend::body::BackendBody;
use crate::proxy::backend::connector::{Connector, StartGrace};
use crate::proxy::backend::error_samples::ErrorSamples;
use crate::proxy::backend::failed_samples::FailedSamples;
use crate::proxy::backend::failing_sources::FailingSources;
use crate::proxy::backend::outcome_counters::OutcomeCounters;
use crate::proxy::backend::pool::{Pool, SendError, met_a_close};
use crate::proxy::backend::read_only_tools::ReadOnlyTools;

/// One release and the connections to it.
#[derive(Debug)]
pub(super) struct Backend {
    /// The release.
    pub number: ReleaseNumber,
    /// The outcomes of its requests.
    pub outcomes: OutcomeCounters,
    /// Which sources its failures come from.
    pub failing_sources: Arc<FailingSources>,
    pool: Pool,
    /// The address of its slot.
    pub address: Address,
    start_grace: Arc<StartGrace>,
    /// The `Host` that names its slot.
    pub authority: String,
    /// Fires when the release starts to drain: sessions and streams that can move do so.
    pub draining: CancellationToken,
    /// Fires when the proxy must answer everything that is still open.
    pub cut: CancellationToken,
    /// Fires when the proxy must answer what is open and no client waits for.
    pub end_unwanted: CancellationToken,
    /// Open requests, without listening streams.
    pub in_flight_requests: AtomicU64,
    /// Open requests that are no MCP.
    pub other_requests: AtomicU64,
    /// Open streams: GET, and `subscriptions/listen`.
    pub open_streams: AtomicU64,
    /// Open `subscriptions/listen` streams, which count as sessions.
    pub subscriptions: AtomicU64,
    /// Open sessions of the HTTP+SSE transport, which cannot move.
    pub sse_sessions: AtomicU64,
    /// Which calls are read-only.
    pub read_only_tools: Arc<ReadOnlyTools>,
    /// Its failed requests, and the results of shadow calls to it.
    pub samples: FailedSamples,
    /// Some of its latest error answers, for people.
    pub error_samples: ErrorSamples,
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
        let start_grace = Arc::<StartGrace>::default();
        let pool = Pool::new(Connector::new(address.clone(), Arc::clone(&start_grace)));
        Self {
            number,
            address,
            start_grace,
            outcomes: OutcomeCounters::new(Arc::clone(&read_only_tools)),
            failing_sources: Arc::default(),
            pool,
            authority,
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            end_unwanted: CancellationToken::new(),
            in_flight_requests: AtomicU64::new(0),
            other_requests: AtomicU64::new(0),
            open_streams: AtomicU64::new(0),
            subscriptions: AtomicU64::new(0),
            sse_sessions: AtomicU64::new(0),
            read_only_tools,
            samples: FailedSamples::default(),
            error_samples: ErrorSamples::default(),
            error_responses: AtomicU64::new(0),
            closed_streams: AtomicU64::new(0),
            replayed_requests: AtomicU64::new(0),
            truncated_responses: AtomicU64::new(0),
            migrated_sessions: AtomicU64::new(0),
            ended_subscriptions: AtomicU64::new(0),
        }
    }

    /// Sends a request to it. The URI has no authority, and the head has its `Host`.
    ///
    /// # Errors
    /// When there is no response.
    pub(super) async fn send(
        &self,
        request: Request<BackendBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.pool.send(request).await
    }

    /// Sends a request that may be sent twice: once more on a new connection if it met one that the release
    /// was about to close, for the release may not have seen it.
    ///
    /// # Errors
    /// When there is no response.
    pub(super) async fn send_repeatable(
        &self,
        request: impl Fn() -> Request<BackendBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let result = self.send(request()).await;
        if met_a_close(&result) { self.send_on_new_connection(request()).await } else { result }
    }

    /// Sends a request to it on a new connection.
    ///
    /// # Errors
    /// When there is no response.
    pub(super) async fn send_on_new_connection(
        &self,
        request: Request<BackendBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.pool.send_on_new(request).await
    }

    /// Whether it accepts a connection.
    pub(super) async fn is_listening(&self) -> bool {
        self.pool.is_listening().await
    }

    /// Lets requests wait until this instant for the release, which starts, unless it answers before.
    pub(super) fn begin_start_grace(&self, until: Instant) {
        self.start_grace.begin(until);
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
            && self.other_requests.load(Ordering::Relaxed) == 0
    }
}
