//! What a release is held to, and whether the thresholds can trip at all.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::decide::Policy;
use crate::judge::{self, About, Baseline, Objective, reach};

use super::bounds::{bounded, grouped, span, spot};
use super::problem::{Code, Problem, Problems};
use super::settings::Probe;
use super::table::brief;
use super::value::{percent, say};
use super::written::{self, Set};

/// The strictest objective that lets an error pass: 1 in 100 000.
const BUDGET_MIN: f64 = 1e-5;
/// Above this failure rate the judge has no milder alternative than "everything fails".
const RATE_MAX: f64 = 0.9;
/// The judge's patience outlasts the burst by this much.
const MARGIN: Duration = Duration::from_secs(2);
/// From the verdict to the end of the drain, at most.
const LATEST: Duration = Duration::from_mins(2);
/// Longer than this, and nobody would call it an answer of the warm release.
pub(super) const CONFIRM_MAX: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);

/// What the proxy counts as bad.
pub(super) struct Counted {
    pub(super) deadline: Duration,
    pub(super) slow: Option<Duration>,
}

/// What may be asked of the warm release besides.
pub(super) struct Repeated {
    pub(super) calls: u32,
    pub(super) tools: BTreeSet<String>,
}

/// The promise of a service.
pub(super) fn limits(
    service: &written::Service,
    failures: u32,
    problems: &mut Problems,
) -> judge::Limits {
    let written = &service.promise;
    judge::Limits {
        objectives: objectives(written, problems),
        max_false_rollback: positive("max_false_rollback", written, 0.001, problems),
        min_effect: bounded("min_effect", &written.min_effect, 2.0, 1.1..=100.0, problems),
        burst: bounded(
            "burst",
            &written.burst,
            5 * SECOND,
            Duration::ZERO..=Duration::from_mins(10),
            problems,
        ),
        bake: bounded("bake", &written.bake, HOUR / 2, SECOND..=7 * DAY, problems),
        probes: failures,
        baseline: baseline(written),
        shadow: written.shadow_calls.as_ref().is_none_or(|it| 0 < *it.get_ref()),
        scrape: None,
    }
}

/// How a service is decided.
pub(super) fn policy(
    service: &written::Service,
    probe: &Probe,
    bake: Duration,
    slots: Vec<crate::model::Slot>,
    problems: &mut Problems,
) -> Policy {
    let written = &service.promise;
    let start =
        bounded("start_timeout", &written.start_timeout, 60 * SECOND, SECOND..=HOUR, problems);
    let per_day = bounded("rollbacks_per_day", &written.rollbacks_per_day, 3, 0..=1_000, problems);
    Policy {
        observe: service.mode.as_ref().is_some_and(|mode| *mode.get_ref() == "observe"),
        start,
        bake,
        drain: drain(&written.drain_timeout, problems),
        latest: LATEST,
        confirm: probe.timeout.min(CONFIRM_MAX),
        retry: SECOND,
        tries: 5,
        recover: Duration::from_mins(1),
        rollbacks_per_day: usize::try_from(per_day).unwrap_or(usize::MAX),
        session_cost: bounded("session_cost", &written.session_cost, 3.0, 0.0..=1e6, problems),
        slots,
    }
}

/// What the proxy counts as bad.
pub(super) fn counted(written: &written::Promise, problems: &mut Problems) -> Counted {
    let least = Duration::from_millis(100);
    let deadline =
        bounded("deadline", &written.deadline, Duration::from_mins(1), least..=HOUR, problems);
    let under = written.latency.as_ref().and_then(|latency| latency.under.as_ref());
    let slow = under.map(|under| {
        let slow = *under.get_ref();
        if slow >= deadline {
            let (slow, deadline) = (say(slow), say(deadline));
            let what = format!(
                "latency.under can never be exceeded: at {deadline} a request is cut off as failed, \
                 before it is slow at {slow}"
            );
            let help = format!("write less than {deadline}, or a longer deadline");
            let problem = Problem::error(Code::NeverTrips, under.span(), what).help(help);
            problems.push(match span(&written.deadline) {
                Some(at) => problem.also(at, "the deadline"),
                None => problem,
            });
        }
        if slow.is_zero() {
            let what = "`under` is 0s: every request would be slow";
            let help = "write the time that you promise, such as \"300ms\"";
            problems.push(Problem::error(Code::OutOfRange, under.span(), what).help(help));
        }
        slow
    });
    Counted { deadline, slow }
}

/// What may be asked of the warm release besides.
pub(super) fn repeated(written: &written::Promise, problems: &mut Problems) -> Repeated {
    let calls = bounded("shadow_calls", &written.shadow_calls, 100, 0..=1_000, problems);
    let Some(set) = &written.repeatable_tools else {
        return Repeated { calls: u32::try_from(calls).unwrap_or(0), tools: BTreeSet::new() };
    };
    for tool in set.get_ref() {
        let name = tool.get_ref();
        if name.is_empty() || name.contains(['*', '"', '\\']) || name.contains(char::is_control) {
            let shown = brief(name).escape_debug().to_string();
            let what = format!("\"{shown}\" is not the name of a tool");
            let help =
                "write the whole name of each tool as clients call it, such as \"get_forecast\"";
            problems.push(Problem::error(Code::BadValue, tool.span(), what).help(help));
        }
    }
    if let Some(calls) = written.shadow_calls.as_ref().filter(|it| *it.get_ref() == 0)
        && !set.get_ref().is_empty()
    {
        let what = "`repeatable_tools` has no effect: `shadow_calls` is 0, so nothing is repeated";
        let help = "write shadow_calls = 100, or leave repeatable_tools out";
        let problem = Problem::warning(Code::Contradiction, set.span(), what).help(help);
        problems.push(problem.also(calls.span(), "off"));
    }
    let tools = set.get_ref().iter().map(|tool| tool.get_ref().clone()).collect();
    Repeated { calls: u32::try_from(calls).unwrap_or(0), tools }
}

fn objectives(written: &written::Promise, problems: &mut Problems) -> Vec<Objective> {
    let mut objectives = Vec::new();
    let budget = promised("objective", &written.objective, 0.005, problems);
    objectives.push(Objective { about: About::Availability, budget, weight: 0.85 });
    if let Some(latency) = &written.latency {
        let budget = promised("latency.objective", &latency.objective, 0.01, problems);
        objectives.push(Objective { about: About::Latency, budget, weight: 0.15 });
    }
    if !matches!(written.tool_objective.as_ref().map(|it| it.get_ref()), Some(None)) {
        let set = tools(written);
        let budget = promised("tool_objective", &set, 0.05, problems);
        objectives.push(Objective { about: About::Tools, budget, weight: 0.05 });
    }
    if written.client_faults.as_ref().is_none_or(|it| *it.get_ref() == "on") {
        // What is allowed depends on the call and its history.
        objectives.push(Objective { about: About::Calls, budget: 0.05, weight: 0.03 });
    }
    objectives.push(Objective { about: About::Streams, budget: 0.05, weight: 0.02 });
    objectives
}

fn baseline(written: &written::Promise) -> Baseline {
    match written.baseline.as_ref().map(|it| *it.get_ref()) {
        Some("required") => Baseline::Required,
        _ => Baseline::Probes,
    }
}

/// The tool objective, unless it is off.
pub(super) fn tools(written: &written::Promise) -> Set<f64> {
    let set = written.tool_objective.as_ref()?;
    set.get_ref().map(|budget| toml::Spanned::new(set.span(), budget))
}

pub(super) fn promised(name: &str, set: &Set<f64>, default: f64, problems: &mut Problems) -> f64 {
    let Some(written) = set else {
        return default;
    };
    let budget = *written.get_ref();
    if budget >= BUDGET_MIN {
        return budget;
    }
    let good = percent(1.0 - budget);
    let what = format!(
        "`{name}` is {good}, which leaves {} of the requests to fail: a single error \
         would be infinite evidence",
        percent(budget),
    );
    let help = format!("write at most \"{}\"", percent(1.0 - BUDGET_MIN));
    problems.push(Problem::error(Code::NeverTrips, written.span(), what).help(help));
    default
}

fn positive(name: &str, written: &written::Promise, default: f64, problems: &mut Problems) -> f64 {
    let Some(set) = &written.max_false_rollback else {
        return default;
    };
    let value = *set.get_ref();
    if value > 0.0 && value <= 0.5 {
        return value;
    }
    let what = format!("`{name}` is {value}: it is a probability in each deploy");
    let help = "write more than 0 and at most 0.5; 0.001 is one false rollback in 1 000 deploys";
    problems.push(Problem::error(Code::OutOfRange, set.span(), what).help(help));
    default
}

fn drain(set: &Set<Duration>, problems: &mut Problems) -> Duration {
    let usual = Duration::from_secs(30);
    let Some(written) = set.as_ref().filter(|written| *written.get_ref() > LATEST) else {
        return set.as_ref().map_or(usual, |written| *written.get_ref());
    };
    let what = format!(
        "`drain_timeout` is {}; a rollback ends {} after its verdict, drain included",
        say(*written.get_ref()),
        say(LATEST),
    );
    let help = format!("write at most \"{}\"", say(LATEST));
    problems.push(Problem::error(Code::TooSlow, written.span(), what).help(help));
    usual
}

/// Whether the thresholds can trip with each other.
pub(super) fn reachable(
    service: &written::Service,
    limits: &judge::Limits,
    probe: &Probe,
    policy: &Policy,
    problems: &mut Problems,
) {
    burst_fits(service, limits, problems);
    for objective in &limits.objectives {
        rate_is_possible(service, limits, objective, problems);
    }
    probes_fit(service, limits, probe, policy, problems);
    if let Some(set) = service.promise.rollbacks_per_day.as_ref().filter(|it| *it.get_ref() == 0) {
        let what = "`rollbacks_per_day` is 0: no rollback could ever happen";
        let help = "write at least 1, or mode = \"observe\" to record what would be done";
        problems.push(Problem::error(Code::NeverTrips, set.span(), what).help(help));
    }
}

fn burst_fits(service: &written::Service, limits: &judge::Limits, problems: &mut Problems) {
    let written = &service.promise;
    let (burst, bake) = (limits.burst, limits.bake);
    if burst + MARGIN < bake {
        return;
    }
    let at = spot([span(&written.burst), span(&written.bake)], service.name.span());
    let what = format!(
        "no verdict is possible inside the bake: burst {} + {} of patience = {}, and the bake \
         ends after {}",
        say(burst),
        say(MARGIN),
        say(burst + MARGIN),
        say(bake),
    );
    let help = format!("write a bake longer than {}, or a shorter burst", say(burst + MARGIN));
    problems.push(Problem::error(Code::NeverTrips, at, what).help(help));
}

fn rate_is_possible(
    service: &written::Service,
    limits: &judge::Limits,
    objective: &Objective,
    problems: &mut Problems,
) {
    let written = &service.promise;
    let (name, place) = match objective.about {
        About::Availability => ("objective", span(&written.objective)),
        About::Tools => ("tool_objective", span(&tools(written))),
        // Their budgets are ours and were thought over.
        About::Calls | About::Streams | About::Scraped => return,
        About::Latency => {
            let latency = written.latency.as_ref();
            let own = latency.and_then(|latency| span(&latency.objective));
            ("latency.objective", own.or_else(|| latency.map(|latency| latency.at.clone())))
        }
    };
    let at = spot([place, span(&written.min_effect)], service.name.span());
    let (budget, effect) = (objective.budget, limits.min_effect);
    let rate = budget * effect;
    if rate >= RATE_MAX {
        let what = format!(
            "`{name}` allows {} to fail, and {effect} times that (min_effect) is {}: only a total \
             failure is worse",
            percent(budget),
            percent(rate),
        );
        let most = percent(1.0 - 0.5 / effect);
        let help = format!("write at least \"{most}\", or a smaller min_effect");
        problems.push(Problem::error(Code::NeverTrips, at, what).help(help));
    } else if limits.burst + MARGIN < limits.bake && reach::soonest(limits, objective).is_none() {
        let at = spot([span(&written.max_false_rollback), span(&written.min_effect)], at);
        let what = format!(
            "failures at {} ({name}, min_effect) are never proven inside the bake at \
             max_false_rollback {}, with any number of requests",
            percent(rate),
            limits.max_false_rollback,
        );
        let help = "write max_false_rollback = 0.001, or a larger min_effect, or a longer bake";
        problems.push(Problem::error(Code::NeverTrips, at, what).help(help));
    }
}

fn probes_fit(
    service: &written::Service,
    limits: &judge::Limits,
    probe: &Probe,
    policy: &Policy,
    problems: &mut Problems,
) {
    let written = &service.probe;
    let down = probe.every.max(probe.timeout) * limits.probes;
    if down > limits.bake {
        let at = spot([span(&written.failures), span(&written.every)], service.name.span());
        let what = format!(
            "probes can never find the release down: {} failures, {} each, take {}, and the bake \
             ends after {}",
            limits.probes,
            say(probe.every.max(probe.timeout)),
            say(down),
            say(limits.bake),
        );
        let help = "write fewer failures, a shorter every and timeout, or a longer bake";
        problems.push(Problem::error(Code::NeverTrips, at, what).help(help));
    }
    let ready = probe.every * probe.ready.saturating_sub(1);
    if ready >= policy.start {
        let at = spot([span(&written.ready), span(&written.every)], service.name.span());
        let what = format!(
            "no release can become ready: {} good probes, {} apart, take {}, and start_timeout \
             is {}",
            probe.ready,
            say(probe.every),
            say(ready),
            say(policy.start),
        );
        let help = "write a smaller ready, a shorter every, or a longer start_timeout";
        problems.push(Problem::error(Code::NeverReady, at, what).help(help));
    }
}

/// What works, but hardly as intended.
pub(super) fn doubtful(
    service: &written::Service,
    limits: &judge::Limits,
    deadline: Duration,
    problems: &mut Problems,
) {
    let written = &service.promise;
    if deadline >= limits.bake {
        let at = spot([span(&written.deadline), span(&written.bake)], service.name.span());
        let what = format!(
            "a request that hangs counts as bad after {}, when the bake of {} is over",
            say(deadline),
            say(limits.bake),
        );
        let help = "write a deadline shorter than the bake";
        problems.push(Problem::warning(Code::WeakEvidence, at, what).help(help));
    }
    let sure = limits.max_false_rollback;
    if let Some(set) = written.max_false_rollback.as_ref().filter(|_| sure > 0.05) {
        let what = format!("about one healthy deploy in {:.0} would be rolled back", 1.0 / sure);
        let help = "write 0.05 or less; the default is 0.001";
        problems.push(Problem::warning(Code::FalseAlarms, set.span(), what).help(help));
    }
    let Some(objective) = limits.objectives.iter().find(|it| it.about == About::Availability)
    else {
        return;
    };
    let needed = reach::requests_to_verify(objective, limits.min_effect);
    let a_second = needed as f64 / limits.bake.as_secs_f64();
    if a_second > 50.0 {
        let at = spot([span(&written.bake), span(&written.objective)], service.name.span());
        let what = format!(
            "it takes {} requests without an error to show that {} is kept: {a_second:.0} a \
             second during the bake of {}; with fewer, a release is accepted unverified",
            grouped(needed),
            percent(1.0 - objective.budget),
            say(limits.bake),
        );
        let help = "write a longer bake, or a lower objective, if there is less traffic than that";
        problems.push(Problem::warning(Code::WeakEvidence, at, what).help(help));
    }
}
