//! Drain or cut: the one that fails fewer requests, with its arithmetic.

use std::time::Duration;

use crate::model::{Finding, ReleaseLoad, Severity, Strategy, Verdict};

/// A strategy, and the arithmetic behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct StrategyChoice {
    /// What to do.
    pub strategy: Strategy,
    /// The arithmetic, as text.
    pub because: String,
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
    if verdict.finding == Finding::Breach(Severity::Down) {
        return cut_choice("it does not answer".to_owned());
    }
    let p = verdict.failure_rate_lower;
    if p >= 0.5 {
        let percent = 100.0 * p;
        return cut_choice(format!("at least {percent:.0} % of its requests fail (limit 50 %)"));
    }
    let mean_session_s = load.mean_session_s.max(0.001);
    let ending_share = 1.0 - (-drain.as_secs_f64() / mean_session_s).exp();
    #[expect(clippy::cast_precision_loss, reason = "counts of sessions and requests are small")]
    let (sessions, bound, in_flight) =
        (load.sessions as f64, load.pinned as f64, load.in_flight as f64);
    let exposed_requests =
        load.request_rate * mean_session_s * ending_share * (bound / sessions.max(1.0)).min(1.0);
    let drain_failures = p * (exposed_requests + in_flight);
    let broken_sessions = bound * ending_share;
    let cut_failures = session_cost * broken_sessions + in_flight;
    let arithmetic = format!(
        "a drain would fail ~{drain_failures:.0} requests; a cut would cost ~{cut_failures:.0}: \
         {in_flight} open requests, and {session_cost} for each of ~{broken_sessions:.0} (of {bound}) \
         sessions that would end in a drain"
    );
    if drain_failures > cut_failures {
        cut_choice(arithmetic)
    } else {
        StrategyChoice { strategy: Strategy::Drain, because: arithmetic }
    }
}

fn cut_choice(because: String) -> StrategyChoice {
    StrategyChoice { strategy: Strategy::Cut, because }
}
