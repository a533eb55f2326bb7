//! Whether the objectives can be missed at all: thresholds that no traffic can reach.

use std::ops::Range;
use std::time::Duration;

use crate::config::probe::{ProbeSettings, RawProbe};
use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::range::{first_span, group_thousands, span_of};
use crate::config::slo::{RawSlo, tool_objective};
use crate::config::value::{format_duration, format_percent};
use crate::decide::Policy;
use crate::judge::{Indicator, Objective, SloSettings, detectability};

/// Above this failure rate the judge can only compare with "every request fails".
const FAILURE_RATE_MAX: f64 = 0.9;

/// The judge needs this much longer than the burst for a verdict.
const BURST_MARGIN: Duration = Duration::from_secs(2);

/// What the operator wrote: for the spans of the problems.
pub(super) struct RawObjectives<'a> {
    pub(super) slo: &'a RawSlo,
    pub(super) probe: &'a RawProbe,
    /// The name of the service, if the file does not have the setting.
    pub(super) service_span: Range<usize>,
}

/// Reports thresholds that exclude each other.
pub(super) fn check_detectable(
    raw: &RawObjectives<'_>,
    limits: &SloSettings,
    probe: &ProbeSettings,
    policy: &Policy,
    problems: &mut Problems,
) {
    check_burst(raw, limits, problems);
    for objective in &limits.objectives {
        check_objective_detectable(raw, limits, objective, problems);
    }
    check_probe_timing(raw, limits, probe, policy, problems);
    if let Some(given) = raw.slo.rollbacks_per_day.as_ref().filter(|it| *it.get_ref() == 0) {
        let what = "`rollbacks_per_day` is 0: no rollback can ever happen";
        let help = "write at least 1, or mode = \"observe\" to record decisions without acting";
        problems
            .push(Problem::error(ProblemCode::UnreachableThreshold, given.span(), what).help(help));
    }
}

fn check_burst(raw: &RawObjectives<'_>, limits: &SloSettings, problems: &mut Problems) {
    let (service_span, raw) = (raw.service_span.clone(), raw.slo);
    let (burst, bake) = (limits.burst, limits.bake);
    if burst + BURST_MARGIN < bake {
        return;
    }
    let at = first_span([span_of(&raw.burst), span_of(&raw.bake)], service_span.clone());
    let what = format!(
        "no verdict is possible within the bake: burst {} + evidence margin {} = {}, and the bake \
         ends after {}",
        format_duration(burst),
        format_duration(BURST_MARGIN),
        format_duration(burst + BURST_MARGIN),
        format_duration(bake),
    );
    let help = format!(
        "write a bake longer than {}, or a shorter burst",
        format_duration(burst + BURST_MARGIN)
    );
    problems.push(Problem::error(ProblemCode::UnreachableThreshold, at, what).help(help));
}

fn check_objective_detectable(
    raw: &RawObjectives<'_>,
    limits: &SloSettings,
    objective: &Objective,
    problems: &mut Problems,
) {
    let (service_span, raw) = (raw.service_span.clone(), raw.slo);
    let (name, objective_span) = match objective.indicator {
        Indicator::Availability => ("objective", span_of(&raw.objective)),
        Indicator::Tools => ("tool_objective", span_of(&tool_objective(raw))),
        // Their budgets are constants that can be exceeded.
        Indicator::ClientFaults
        | Indicator::SmallAnswers
        | Indicator::SlowerAnswers
        | Indicator::Streams
        | Indicator::Scraped => return,
        Indicator::Latency => {
            let latency = raw.latency.as_ref();
            let latency_span = latency.and_then(|latency| span_of(&latency.objective));
            (
                "latency.objective",
                latency_span.or_else(|| latency.map(|latency| latency.span.clone())),
            )
        }
    };
    let at = first_span([objective_span, span_of(&raw.min_effect)], service_span.clone());
    let (budget, effect) = (objective.error_budget, limits.min_effect);
    let rate = budget * effect;
    if rate >= FAILURE_RATE_MAX {
        let what = format!(
            "`{name}` allows {} to fail, and {effect} times that (min_effect) is {}: only a total \
             failure is higher",
            format_percent(budget),
            format_percent(rate),
        );
        let max = format_percent(1.0 - 0.5 / effect);
        let help = format!("write at least \"{max}\", or a smaller min_effect");
        problems.push(Problem::error(ProblemCode::UnreachableThreshold, at, what).help(help));
    } else if limits.burst + BURST_MARGIN < limits.bake
        && detectability::soonest_detection(limits, objective).is_none()
    {
        let at = first_span([span_of(&raw.max_false_rollback), span_of(&raw.min_effect)], at);
        let what = format!(
            "a failure rate of {} ({name}, min_effect) cannot be shown within the bake at \
             max_false_rollback {}, with any number of requests",
            format_percent(rate),
            limits.max_false_rollback,
        );
        let help = "write max_false_rollback = 0.001, or a larger min_effect, or a longer bake";
        problems.push(Problem::error(ProblemCode::UnreachableThreshold, at, what).help(help));
    }
}

fn check_probe_timing(
    raw: &RawObjectives<'_>,
    limits: &SloSettings,
    probe: &ProbeSettings,
    policy: &Policy,
    problems: &mut Problems,
) {
    let (service_span, raw) = (raw.service_span.clone(), raw.probe);
    let time_to_down = probe.interval.max(probe.timeout) * limits.failed_probes_max;
    if time_to_down > limits.bake {
        let at = first_span([span_of(&raw.failures), span_of(&raw.every)], service_span.clone());
        let what = format!(
            "probes can never detect that the release is down: {} failures, {} each, take {}, and the bake \
             ends after {}",
            limits.failed_probes_max,
            format_duration(probe.interval.max(probe.timeout)),
            format_duration(time_to_down),
            format_duration(limits.bake),
        );
        let help = "write fewer failures, a shorter every and timeout, or a longer bake";
        problems.push(Problem::error(ProblemCode::UnreachableThreshold, at, what).help(help));
    }
    let time_to_ready = probe.interval * probe.ready_after.saturating_sub(1);
    if time_to_ready >= policy.start_timeout {
        let at = first_span([span_of(&raw.ready), span_of(&raw.every)], service_span.clone());
        let what = format!(
            "no release can become ready: {} successful probes, {} apart, take {}, and start_timeout \
             is {}",
            probe.ready_after,
            format_duration(probe.interval),
            format_duration(time_to_ready),
            format_duration(policy.start_timeout),
        );
        let help = "write a smaller ready, a shorter every, or a longer start_timeout";
        problems.push(Problem::error(ProblemCode::NeverReady, at, what).help(help));
    }
}

/// Warns about settings that work, but probably not as intended.
pub(super) fn warn_weak_evidence(
    raw: &RawObjectives<'_>,
    limits: &SloSettings,
    deadline: Duration,
    problems: &mut Problems,
) {
    let (service_span, raw) = (raw.service_span.clone(), raw.slo);
    if deadline >= limits.bake {
        let at = first_span([span_of(&raw.deadline), span_of(&raw.bake)], service_span.clone());
        let what = format!(
            "a request that hangs is bad after {}, when the bake of {} is over",
            format_duration(deadline),
            format_duration(limits.bake),
        );
        let help = "write a deadline shorter than the bake";
        problems.push(Problem::warning(ProblemCode::WeakEvidence, at, what).help(help));
    }
    let max_false_rollback = limits.max_false_rollback;
    if let Some(given) = raw.max_false_rollback.as_ref().filter(|_| max_false_rollback > 0.05) {
        let what = format!(
            "about one healthy deploy in {:.0} would be rolled back",
            1.0 / max_false_rollback
        );
        let help = "write 0.05 or less; the default is 0.001";
        problems.push(Problem::warning(ProblemCode::FalseAlarms, given.span(), what).help(help));
    }
    let Some(objective) =
        limits.objectives.iter().find(|it| it.indicator == Indicator::Availability)
    else {
        return;
    };
    let needed = detectability::requests_to_verify(objective, limits.min_effect);
    let requests_per_second = needed as f64 / limits.bake.as_secs_f64();
    if requests_per_second > 50.0 {
        let at = first_span([span_of(&raw.bake), span_of(&raw.objective)], service_span.clone());
        let what = format!(
            "it takes {} requests without an error to verify {}: {requests_per_second:.0} a \
             second during the bake of {}; with fewer, a release is accepted unverified",
            group_thousands(needed),
            format_percent(1.0 - objective.error_budget),
            format_duration(limits.bake),
        );
        let help = "write a longer bake or a lower objective if there is less traffic";
        problems.push(Problem::warning(ProblemCode::WeakEvidence, at, what).help(help));
    }
}
