//! Drain or cut: the one that fails fewer requests, with its arithmetic.

use std::fmt;
use std::time::Duration;

use crate::model::{
    ExpectedFailures, Finding, ReleaseLoad, Severity, Strategy, StrategyReason, Verdict,
};

/// A strategy, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StrategyChoice {
    /// What to do.
    pub strategy: Strategy,
    /// The rule that chose it, and its numbers.
    pub reason: StrategyReason,
}

impl fmt::Display for StrategyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.strategy, self.reason)
    }
}

/// Chooses how traffic leaves a release.
///
/// Draining helps only while the release still answers, and only what finishes by itself inside
/// the drain gains by it. With a failure rate of at least `p`, a request rate `r` and sessions
/// that end by themselves after `tau` on average, a drain of length `d` fails about
/// `p * (r * E[min(R, d)] + in flight)` requests; a cut breaks the share of sessions that would
/// have ended by themselves, each worth `session_cost` failed requests, and loses what is in
/// flight. For an exponential life, E[min(R, d)] = tau (1 - e^(-d/tau)). Only sessions that cannot
/// migrate count: the others leave the release with their next request, either way.
pub fn choose_strategy(
    verdict: &Verdict,
    load: &ReleaseLoad,
    drain: Duration,
    session_cost: f64,
) -> StrategyChoice {
    let cut = |reason| StrategyChoice { strategy: Strategy::Cut, reason };
    if verdict.finding == Finding::Breach(Severity::Down) {
        return cut(StrategyReason::Down);
    }
    let failure_rate_lower = verdict.failure_rate_lower;
    if failure_rate_lower >= 0.5 {
        return cut(StrategyReason::MostRequestsFail { failure_rate_lower });
    }
    let expected = expected_failures(failure_rate_lower, load, drain, session_cost);
    let reason = StrategyReason::FewerFailures(expected);
    if expected.drain > expected.cut {
        cut(reason)
    } else {
        StrategyChoice { strategy: Strategy::Drain, reason }
    }
}

fn expected_failures(
    failure_rate_lower: f64,
    load: &ReleaseLoad,
    drain: Duration,
    session_cost: f64,
) -> ExpectedFailures {
    let mean_session_s = load.mean_session_s.max(0.001);
    let ending_share = 1.0 - (-drain.as_secs_f64() / mean_session_s).exp();
    #[expect(clippy::cast_precision_loss, reason = "counts of sessions and requests are small")]
    let (sessions, pinned, in_flight) =
        (load.sessions as f64, load.pinned as f64, load.in_flight as f64);
    let exposed_requests =
        load.request_rate * mean_session_s * ending_share * (pinned / sessions.max(1.0)).min(1.0);
    let ending_sessions = pinned * ending_share;
    ExpectedFailures {
        drain: failure_rate_lower * (exposed_requests + in_flight),
        cut: session_cost * ending_sessions + in_flight,
        in_flight: load.in_flight,
        pinned_sessions: load.pinned,
        ending_sessions,
        session_cost,
    }
}
