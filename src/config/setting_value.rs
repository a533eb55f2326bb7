//! The settings of a service that decide, by the names and in the form of the configuration.

use std::time::Duration;

use jiff::fmt::friendly::SpanParser;

use crate::config::probe::ProbeKind;
use crate::config::settings::{Service, SessionState};
use crate::config::value::{format_duration, format_percent};
use crate::decide::AfterBake;
use crate::judge::{Baseline, Indicator, Objective};

/// The names of [`setting_value`].
pub const SETTING_NAMES: [&str; 20] = [
    "mode",
    "session_state",
    "start_timeout",
    "bake",
    "drain_timeout",
    "session_cost",
    "rollbacks_per_day",
    "ramp_step",
    "ramp_wait",
    "objective",
    "min_effect",
    "max_false_rollback",
    "burst",
    "baseline",
    "after_bake",
    "probe.kind",
    "probe.every",
    "probe.timeout",
    "probe.ready",
    "scrape.every",
];

/// A setting as the configuration writes it, a text without its quotes. None where the service has no
/// such setting, or the name is not in [`SETTING_NAMES`].
pub fn setting_value(service: &Service, name: &str) -> Option<String> {
    let (slo, policy) = (&service.slo, &service.policy);
    Some(match name {
        "mode" => if policy.observe { "observe" } else { "act" }.to_owned(),
        "session_state" => match service.session_state {
            SessionState::None => "none",
            SessionState::Soft => "soft",
            SessionState::Hard => "hard",
        }
        .to_owned(),
        "start_timeout" => format_duration(policy.start_timeout),
        "bake" => format_duration(policy.bake),
        "drain_timeout" => format_duration(policy.drain_timeout),
        "session_cost" => policy.session_cost.to_string(),
        "rollbacks_per_day" => policy.rollbacks_per_day_max.to_string(),
        "ramp_step" => format_duration(policy.ramp.step_max),
        "ramp_wait" => if policy.ramp.waits { "hold" } else { "continue" }.to_owned(),
        "objective" => format_percent(1.0 - availability(service)?.error_budget),
        "min_effect" => slo.min_effect.to_string(),
        "max_false_rollback" => slo.max_false_rollback.to_string(),
        "burst" => format_duration(slo.burst),
        "baseline" => match slo.baseline {
            Baseline::Probes => "probes",
            Baseline::Required => "required",
        }
        .to_owned(),
        "after_bake" => match policy.after_bake {
            AfterBake::Page => "page",
            AfterBake::Act => "act",
            AfterBake::Off => "off",
        }
        .to_owned(),
        "probe.kind" => match service.probe.kind {
            ProbeKind::Mcp => "mcp",
            ProbeKind::Http { .. } => "http",
            ProbeKind::Tcp => "tcp",
            ProbeKind::Command(_) => "command",
        }
        .to_owned(),
        "probe.every" => format_duration(service.probe.interval),
        "probe.timeout" => format_duration(service.probe.timeout),
        "probe.ready" => service.probe.ready_after.to_string(),
        "scrape.every" => format_duration(service.scrape.as_ref()?.interval),
        _ => return None,
    })
}

/// A value that a person wrote, in the form of [`setting_value`]: `600s` is `10m`.
pub fn normal_value(text: &str) -> String {
    let text = text.trim().trim_matches('"');
    let time: Option<Duration> = SpanParser::new().parse_unsigned_duration(text).ok();
    time.map_or_else(|| text.to_owned(), format_duration)
}

/// The availability objective.
pub fn availability(service: &Service) -> Option<&Objective> {
    service.slo.objectives.iter().find(|it| it.indicator == Indicator::Availability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_form() {
        for (written, normal) in
            [("600s", "10m"), ("\"1m 30s\"", "1m30s"), (" 99.5% ", "99.5%"), ("0.001", "0.001")]
        {
            assert_eq!(normal_value(written), normal);
        }
    }
}
