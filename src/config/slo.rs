//! The objectives of a service, and how the daemon decides.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use crate::config::probe::{CONFIRM_TIMEOUT_MAX, ProbeSettings};
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::range::{in_range, objective_budget, span_of};
use crate::config::toml_table::TomlTable;
use crate::config::value::{
    Raw, duration, error_budget, error_budget_or_off, expect_table, float, format_duration, one_of,
    string_list, unsigned_integer,
};
use crate::decide::{AfterBake, Policy, RampSettings};
use crate::judge::{AnswerAction, Baseline, Indicator, Objective, SloSettings};
use crate::model::Slot;

/// Longest time from the verdict to the end of the drain.
const ROLLBACK_DEADLINE: Duration = Duration::from_mins(2);

const DAY: Duration = Duration::from_hours(24);

const HOUR: Duration = Duration::from_hours(1);

const SECOND: Duration = Duration::from_secs(1);

/// What the proxy counts as bad or slow.
pub(super) struct OutcomeLimits {
    pub(super) deadline: Duration,
    pub(super) slow_after: Option<Duration>,
}

/// What the proxy may repeat on the warm release.
pub(super) struct ShadowSettings {
    pub(super) calls_per_second: u32,
    pub(super) repeatable_tools: BTreeSet<String>,
}

/// The objectives, and how the daemon decides.
pub(super) struct RawSlo {
    pub(super) objective: Raw<f64>,
    pub(super) tool_objective: Raw<Option<f64>>,
    pub(super) latency: Option<RawLatency>,
    pub(super) deadline: Raw<Duration>,
    pub(super) bake: Raw<Duration>,
    pub(super) max_false_rollback: Raw<f64>,
    pub(super) min_effect: Raw<f64>,
    pub(super) burst: Raw<Duration>,
    pub(super) drain_timeout: Raw<Duration>,
    pub(super) session_cost: Raw<f64>,
    pub(super) shadow_calls: Raw<u64>,
    pub(super) repeatable_tools: Raw<Vec<Spanned<String>>>,
    pub(super) after_bake: Raw<&'static str>,
    pub(super) rollbacks_per_day: Raw<u64>,
    pub(super) baseline: Raw<&'static str>,
    pub(super) client_faults: Raw<&'static str>,
    pub(super) shape: Raw<&'static str>,
    pub(super) slowdown: Raw<&'static str>,
    pub(super) start_timeout: Raw<Duration>,
}

/// `latency = { under, objective }`.
pub(super) struct RawLatency {
    pub(super) span: Range<usize>,
    pub(super) under: Raw<Duration>,
    pub(super) objective: Raw<f64>,
}

pub(super) fn read(table: &mut TomlTable<'_>, problems: &mut Problems) -> RawSlo {
    RawSlo {
        objective: table.read("objective", error_budget, problems),
        tool_objective: table.read("tool_objective", error_budget_or_off, problems),
        latency: read_latency(table, problems),
        deadline: table.read("deadline", duration, problems),
        bake: table.read("bake", duration, problems),
        max_false_rollback: table.read("max_false_rollback", float, problems),
        min_effect: table.read("min_effect", float, problems),
        burst: table.read("burst", duration, problems),
        drain_timeout: table.read("drain_timeout", duration, problems),
        session_cost: table.read("session_cost", float, problems),
        shadow_calls: table.read("shadow_calls", unsigned_integer, problems),
        repeatable_tools: table.read("repeatable_tools", string_list, problems),
        after_bake: table.read("after_bake", one_of(["page", "act", "off"]), problems),
        rollbacks_per_day: table.read("rollbacks_per_day", unsigned_integer, problems),
        baseline: table.read("baseline", one_of(["probes", "required"]), problems),
        client_faults: table.read("client_faults", one_of(["on", "off"]), problems),
        shape: table.read("shape", one_of(["page", "act", "off"]), problems),
        slowdown: table.read("slowdown", one_of(["act", "page", "off"]), problems),
        start_timeout: table.read("start_timeout", duration, problems),
    }
}

fn read_latency(table: &mut TomlTable<'_>, problems: &mut Problems) -> Option<RawLatency> {
    const FORM: &str = "latency = { under = \"300ms\", objective = \"99%\" }";
    table.read("latency", |value| expect_table(value, FORM), problems)?;
    let mut table = table.subtable("latency", "`latency`", FORM, problems);
    let latency = RawLatency {
        span: table.span(),
        under: table.required("under", "\"300ms\"", duration, problems),
        objective: table.read("objective", error_budget, problems),
    };
    table.reject_unknown_keys(problems);
    Some(latency)
}

/// The settings of the judge.
pub(super) fn slo_settings(
    raw: &RawSlo,
    failed_probes_max: u32,
    probe_interval: Duration,
    problems: &mut Problems,
) -> SloSettings {
    let default = SloSettings::default();
    let most = default.max_false_rollback;
    SloSettings {
        objectives: objectives(raw, problems),
        max_false_rollback: max_false_rollback("max_false_rollback", raw, most, problems),
        min_effect: in_range(
            "min_effect",
            &raw.min_effect,
            default.min_effect,
            1.1..=100.0,
            problems,
        ),
        burst: in_range(
            "burst",
            &raw.burst,
            default.burst,
            Duration::ZERO..=Duration::from_mins(10),
            problems,
        ),
        bake: in_range("bake", &raw.bake, default.bake, SECOND..=7 * DAY, problems),
        failed_probes_max,
        probe_interval,
        baseline: baseline(raw),
        shadow_calls: raw.shadow_calls.as_ref().is_none_or(|it| 0 < *it.get_ref()),
        shape: answer_action(&raw.shape, default.shape),
        slowdown: answer_action(&raw.slowdown, default.slowdown),
        scrape: None,
    }
}

fn answer_action(raw: &Raw<&'static str>, default: AnswerAction) -> AnswerAction {
    match raw.as_ref().map(|given| *given.get_ref()) {
        Some("off") => AnswerAction::Off,
        Some("page") => AnswerAction::Page,
        Some("act") => AnswerAction::Act,
        _ => default,
    }
}

/// The settings of the decisions.
pub(super) fn policy(
    raw: &RawSlo,
    observe: bool,
    probe: &ProbeSettings,
    bake: Duration,
    slots: Vec<Slot>,
    problems: &mut Problems,
) -> Policy {
    let start_timeout =
        in_range("start_timeout", &raw.start_timeout, 60 * SECOND, SECOND..=HOUR, problems);
    let per_day = in_range("rollbacks_per_day", &raw.rollbacks_per_day, 3, 0..=1_000, problems);
    Policy {
        observe,
        start_timeout,
        bake,
        drain_timeout: drain_timeout(&raw.drain_timeout, problems),
        rollback_timeout: ROLLBACK_DEADLINE,
        target_check_timeout: probe.timeout.min(CONFIRM_TIMEOUT_MAX),
        retry_interval: SECOND,
        page_after_tries: 5,
        recovery_timeout: Duration::from_mins(1),
        rollbacks_per_day_max: usize::try_from(per_day).unwrap_or(usize::MAX),
        after_bake: match raw.after_bake.as_ref().map(|given| *given.get_ref()) {
            Some("act") => AfterBake::Act,
            Some("off") => AfterBake::Off,
            _ => AfterBake::Page,
        },
        session_cost: in_range("session_cost", &raw.session_cost, 3.0, 0.0..=1e6, problems),
        ramp: RampSettings::default(),
        slots,
    }
}

/// Checks what the proxy counts as bad or slow.
pub(super) fn outcome_limits(raw: &RawSlo, problems: &mut Problems) -> OutcomeLimits {
    let min = Duration::from_millis(100);
    let deadline =
        in_range("deadline", &raw.deadline, Duration::from_mins(1), min..=HOUR, problems);
    let under = raw.latency.as_ref().and_then(|latency| latency.under.as_ref());
    let slow = under.map(|under| {
        let slow = *under.get_ref();
        if slow >= deadline {
            let (slow, deadline) = (format_duration(slow), format_duration(deadline));
            let what = format!(
                "`latency.under` cannot be exceeded: a request fails at the deadline of {deadline}, \
                 before it is slow at {slow}"
            );
            let help = format!("write less than {deadline}, or a longer deadline");
            let problem = Problem::error(ProblemCode::UnreachableThreshold, under.span(), what).help(help);
            problems.push(match span_of(&raw.deadline) {
                Some(at) => problem.related(at, "the deadline"),
                None => problem,
            });
        }
        if slow.is_zero() {
            let what = "`under` is 0s: every request would be slow";
            let help = "write the latency objective, such as \"300ms\"";
            problems.push(Problem::error(ProblemCode::OutOfRange, under.span(), what).help(help));
        }
        slow
    });
    OutcomeLimits { deadline, slow_after: slow }
}

/// Checks what the proxy may repeat on the warm release.
pub(super) fn shadow_settings(raw: &RawSlo, problems: &mut Problems) -> ShadowSettings {
    let calls = in_range("shadow_calls", &raw.shadow_calls, 100, 0..=1_000, problems);
    let Some(given) = &raw.repeatable_tools else {
        return ShadowSettings {
            calls_per_second: u32::try_from(calls).unwrap_or(0),
            repeatable_tools: BTreeSet::new(),
        };
    };
    for tool in given.get_ref() {
        let name = tool.get_ref();
        if name.is_empty() || name.contains(['*', '"', '\\']) || name.contains(char::is_control) {
            let shown = shorten(name).escape_debug().to_string();
            let what = format!("\"{shown}\" is not a valid tool name");
            let help =
                "write the full name of each tool as clients call it, such as \"get_forecast\"";
            problems.push(Problem::error(ProblemCode::BadValue, tool.span(), what).help(help));
        }
    }
    if let Some(given_calls) = raw.shadow_calls.as_ref().filter(|it| *it.get_ref() == 0)
        && !given.get_ref().is_empty()
    {
        let what = "`repeatable_tools` has no effect: `shadow_calls` is 0";
        let help = "write shadow_calls = 100, or leave repeatable_tools out";
        let problem = Problem::warning(ProblemCode::Contradiction, given.span(), what).help(help);
        problems.push(problem.related(given_calls.span(), "off"));
    }
    let tools = given.get_ref().iter().map(|tool| tool.get_ref().clone()).collect();
    ShadowSettings { calls_per_second: u32::try_from(calls).unwrap_or(0), repeatable_tools: tools }
}

fn objectives(raw: &RawSlo, problems: &mut Problems) -> Vec<Objective> {
    let mut objectives = Vec::new();
    let budget = objective_budget("objective", &raw.objective, 0.005, problems);
    objectives.push(Objective {
        indicator: Indicator::Availability,
        error_budget: budget,
        weight: 0.85,
    });
    if let Some(latency) = &raw.latency {
        let budget = objective_budget("latency.objective", &latency.objective, 0.01, problems);
        objectives.push(Objective {
            indicator: Indicator::Latency,
            error_budget: budget,
            weight: 0.15,
        });
    }
    if !matches!(raw.tool_objective.as_ref().map(|it| it.get_ref()), Some(None)) {
        let raw_tools = tool_objective(raw);
        let budget = objective_budget("tool_objective", &raw_tools, 0.05, problems);
        objectives.push(Objective {
            indicator: Indicator::Tools,
            error_budget: budget,
            weight: 0.05,
        });
    }
    if raw.client_faults.as_ref().is_none_or(|it| *it.get_ref() == "on") {
        // The allowed rate also depends on the call and its history.
        objectives.push(Objective {
            indicator: Indicator::ClientFaults,
            error_budget: 0.05,
            weight: 0.03,
        });
    }
    let default = SloSettings::default();
    for (indicator, raw, default) in [
        (Indicator::SmallAnswers, &raw.shape, default.shape),
        (Indicator::SlowerAnswers, &raw.slowdown, default.slowdown),
    ] {
        // The allowed rate depends on the call and its history.
        if answer_action(raw, default) == AnswerAction::Act {
            objectives.push(Objective { indicator, error_budget: 0.05, weight: 0.03 });
        }
    }
    objectives.push(Objective { indicator: Indicator::Streams, error_budget: 0.05, weight: 0.02 });
    objectives
}

fn baseline(raw: &RawSlo) -> Baseline {
    match raw.baseline.as_ref().map(|it| *it.get_ref()) {
        Some("required") => Baseline::Required,
        _ => Baseline::Probes,
    }
}

/// The tool objective, unless it is off.
pub(super) fn tool_objective(raw: &RawSlo) -> Raw<f64> {
    let given = raw.tool_objective.as_ref()?;
    given.get_ref().map(|budget| Spanned::new(given.span(), budget))
}

fn max_false_rollback(name: &str, raw: &RawSlo, default: f64, problems: &mut Problems) -> f64 {
    let Some(given) = &raw.max_false_rollback else {
        return default;
    };
    let value = *given.get_ref();
    if value > 0.0 && value <= 0.5 {
        return value;
    }
    let what = format!("`{name}` is {value}, which is not a probability for each deploy");
    let help = "write more than 0 and at most 0.5; 0.001 is one false rollback in 1 000 deploys";
    problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    default
}

fn drain_timeout(raw: &Raw<Duration>, problems: &mut Problems) -> Duration {
    let default = Duration::from_secs(30);
    let Some(given) = raw.as_ref().filter(|given| *given.get_ref() > ROLLBACK_DEADLINE) else {
        return raw.as_ref().map_or(default, |given| *given.get_ref());
    };
    let what = format!(
        "`drain_timeout` is {}; a rollback ends at most {} after its verdict, drain included",
        format_duration(*given.get_ref()),
        format_duration(ROLLBACK_DEADLINE),
    );
    let help = format!("write at most \"{}\"", format_duration(ROLLBACK_DEADLINE));
    problems.push(Problem::error(ProblemCode::TooSlow, given.span(), what).help(help));
    default
}
