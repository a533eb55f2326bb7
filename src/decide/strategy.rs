//! Drain or cut: whichever costs the users less, with the sum shown.

use std::time::Duration;

use crate::model::{Finding, Load, Severity, Strategy, Verdict};

/// A strategy, and the sum that led to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What to do.
    pub strategy: Strategy,
    /// The sum, in words.
    pub because: String,
}

/// Chooses how traffic leaves a release.
///
/// Draining helps only while the release still answers, and only what finishes by itself inside
/// the drain gains by it. With a failure rate of at least `p`, a request rate `r` and sessions
/// that end by themselves after `tau` on the average, a drain of length `d` fails about
/// `p * (r * E[min(R, d)] + in flight)` requests; a cut breaks the share of sessions that would
/// have ended by themselves, each worth `session_cost` failed requests, and loses what is in
/// flight. For an exponential life, E[min(R, d)] = tau (1 - e^(-d/tau)). Only sessions that can not
/// be moved count: the others leave the release with their next request, however it goes.
pub fn choose(verdict: &Verdict, load: &Load, drain: Duration, session_cost: f64) -> Choice {
    if verdict.finding == Finding::Breach(Severity::Down) {
        return cut("it does not answer, so a drain saves nothing".to_owned());
    }
    let p = verdict.failing;
    if p >= 0.5 {
        let percent = 100.0 * p;
        return cut(format!("at least {percent:.0} % of its requests fail (limit 50 %)"));
    }
    let life = load.life.max(0.001);
    let ends = 1.0 - (-drain.as_secs_f64() / life).exp();
    #[expect(clippy::cast_precision_loss, reason = "counts of sessions and requests are small")]
    let (sessions, bound, in_flight) =
        (load.sessions as f64, load.bound as f64, load.in_flight as f64);
    let exposed = load.rate * life * ends * (bound / sessions.max(1.0)).min(1.0);
    let drain_fails = p * (exposed + in_flight);
    let breaks = bound * ends;
    let cut_costs = session_cost * breaks + in_flight;
    let sum = format!(
        "a drain would fail ~{drain_fails:.0} requests; a cut would cost ~{cut_costs:.0}: \
         {in_flight} open requests, and {session_cost} for each of ~{breaks:.0} (of {bound}) \
         sessions that would end in a drain"
    );
    if drain_fails > cut_costs {
        cut(sum)
    } else {
        Choice { strategy: Strategy::Drain, because: sum }
    }
}

fn cut(because: String) -> Choice {
    Choice { strategy: Strategy::Cut, because }
}
