//! What the proxy saw of its releases and of their sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use crate::clock::monotonic;
use crate::model::{
    ActiveUsers, CallKey, Counts, FailedCall, McpPath, Moment, ReleaseLoad, ReleaseNumber,
    Unjudged, UsualAnswers,
};
use crate::proxy::Proxy;

/// The session length in seconds that is assumed until longer ones were seen.
const DEFAULT_SESSION_LIFE: f64 = 60.0;

impl Proxy {
    /// The load of a release now. The request rate is 0: the proxy does not measure it.
    pub fn load(&self, number: ReleaseNumber, now: Moment) -> ReleaseLoad {
        let Some(backend) = self.backend(number) else { return ReleaseLoad::default() };
        let subscriptions = backend.subscriptions.load(Ordering::Relaxed);
        let age = self.state.router.sessions.mean_age(number, now).as_secs_f64();
        // After a cut, sessions that wait for their next request are at no release.
        let here = if backend.is_open() { self.state.router.sessions.count(number) } else { 0 };
        let pinned =
            self.state.router.sessions.count_pinned(number, self.view().pinned_reason()).min(here);
        let sse_sessions = backend.sse_sessions.load(Ordering::Relaxed);
        let in_flight = backend.in_flight_requests.load(Ordering::Relaxed);
        let in_flight = in_flight.saturating_add(self.replication.predecessor_in_flight(number));
        ReleaseLoad {
            sessions: here + subscriptions + sse_sessions,
            pinned: pinned + sse_sessions,
            in_flight,
            request_rate: 0.0,
            mean_session_s: age.max(DEFAULT_SESSION_LIFE),
        }
    }

    /// Those that would meet a new release in a ramp. Of the sessions, these are the ones of the active
    /// release that can move, and those that wait for their next request because their release is gone.
    pub fn active_users(&self, active: ReleaseNumber, now: Moment) -> ActiveUsers {
        let (view, router) = (self.view(), &self.state.router);
        let is_from = |of| of == active || view.routes.get_open(of).is_none();
        ActiveUsers {
            sessions: router.sessions.count_movable(now, view.pinned_reason(), is_from),
            clients: view.routes.clients_without_session(),
        }
    }

    /// The sessions of a release by the HTTP+SSE transport (2024-11-05).
    pub fn sse_sessions(&self, number: ReleaseNumber) -> u64 {
        self.backend(number).map_or(0, |backend| backend.sse_sessions.load(Ordering::Relaxed))
    }

    /// The outcomes of the requests of a release, since it was added.
    pub fn counts(&self, number: ReleaseNumber) -> Counts {
        self.backend(number).map(|backend| backend.outcomes.total()).unwrap_or_default()
    }

    /// What passed a release and is no evidence about it.
    pub fn unjudged(&self, number: ReleaseNumber) -> Unjudged {
        self.backend(number).map(|backend| backend.outcomes.unjudged()).unwrap_or_default()
    }

    /// The paths besides the endpoint at which clients send JSON-RPC.
    pub fn mcp_paths(&self) -> Vec<McpPath> {
        self.state.paths.report()
    }

    /// The outcomes of the requests of a release, by method and tool.
    pub fn counts_by_call(&self, number: ReleaseNumber) -> BTreeMap<CallKey, Counts> {
        self.backend(number).map(|backend| backend.outcomes.by_call()).unwrap_or_default()
    }

    /// What the answers of a release usually are, by method and tool.
    pub fn usual_answers(&self, number: ReleaseNumber) -> Vec<(CallKey, UsualAnswers)> {
        self.backend(number).map(|backend| backend.outcomes.usual_answers()).unwrap_or_default()
    }

    /// From now on the answers of a release are compared with these.
    pub fn compare_answers(&self, number: ReleaseNumber, usual: &[(CallKey, UsualAnswers)]) {
        self.backend(number).iter().for_each(|backend| backend.outcomes.compare_answers(usual));
    }

    /// Some of the latest calls that failed, of each release.
    pub fn failed_calls(&self) -> Vec<(ReleaseNumber, FailedCall)> {
        let (view, now) = (self.view(), monotonic());
        let samples = view.routes.backends().iter().flat_map(|backend| {
            let latest = backend.error_samples.latest(now);
            latest.into_iter().map(|call| (backend.number, call))
        });
        samples.collect()
    }

    /// Whether a release has a session, a stream or an open request.
    pub fn has_traffic(&self, number: ReleaseNumber) -> bool {
        self.backend(number).is_some_and(|it| !it.is_idle())
            || self.state.router.sessions.has_sessions(number)
    }

    /// Whether a release has traffic, and was not cut.
    pub fn is_serving(&self, number: ReleaseNumber) -> bool {
        self.backend(number).is_some_and(|it| it.is_open()) && self.has_traffic(number)
    }

    /// The protocol versions that live sessions of a release negotiated.
    pub fn protocol_versions(&self, number: ReleaseNumber) -> BTreeSet<String> {
        self.state.router.sessions.protocols(number)
    }
}
