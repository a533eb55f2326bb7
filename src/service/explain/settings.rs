//! The settings that decide a phase, as the configuration writes them.

use std::time::Duration;

use crate::config::{Service, format_duration, format_percent};
use crate::control::{SettingValue, Status};
use crate::decide::Phase;
use crate::judge::{Baseline, Indicator, Objective};

/// The settings that decide, with their values.
pub(super) fn values(status: &Status, phase: &Phase, service: &Service) -> Vec<SettingValue> {
    let names = settings_of(phase, service);
    let values = names.iter().filter_map(|name| {
        let awaits_deploy = status.awaits_deploy.iter().any(|it| it == name);
        Some(SettingValue { name: (*name).to_owned(), value: value(service, name)?, awaits_deploy })
    });
    values.collect()
}

/// Their names.
fn settings_of(phase: &Phase, service: &Service) -> Vec<&'static str> {
    match phase {
        Phase::Baking { ramp, .. } => {
            let mut names =
                vec!["mode", "bake", "objective", "min_effect", "max_false_rollback", "burst"];
            names.extend(["baseline", "rollbacks_per_day"]);
            if ramp.is_some() {
                names.extend(["ramp_step", "ramp_wait"]);
            }
            if service.scrape.is_some() {
                names.push("scrape.every");
            }
            names
        }
        Phase::Starting { .. } => vec!["start_timeout", "probe.every", "probe.ready"],
        Phase::Returning(_) | Phase::Emptying(_) => vec!["drain_timeout", "session_cost"],
        Phase::Confirming(_) | Phase::Reviving(_) => vec!["probe.timeout", "start_timeout"],
        Phase::Empty | Phase::Promoting { .. } | Phase::Recovering { .. } => Vec::new(),
        Phase::Steady { .. } => vec!["rollbacks_per_day"],
    }
}

fn value(service: &Service, name: &str) -> Option<String> {
    let duration = |time: Duration| format!("\"{}\"", format_duration(time));
    let (slo, policy) = (&service.slo, &service.policy);
    Some(match name {
        "mode" => if policy.observe { "\"observe\"" } else { "\"act\"" }.to_owned(),
        "bake" => duration(policy.bake),
        "objective" => {
            format!("\"{}\"", format_percent(1.0 - availability(service)?.error_budget))
        }
        "min_effect" => slo.min_effect.to_string(),
        "max_false_rollback" => slo.max_false_rollback.to_string(),
        "burst" => duration(slo.burst),
        "baseline" => match slo.baseline {
            Baseline::Probes => "\"probes\"".to_owned(),
            Baseline::Required => "\"required\"".to_owned(),
        },
        "rollbacks_per_day" => policy.rollbacks_per_day_max.to_string(),
        "ramp_step" => duration(policy.ramp.step_max),
        "ramp_wait" => if policy.ramp.waits { "\"hold\"" } else { "\"continue\"" }.to_owned(),
        "scrape.every" => duration(service.scrape.as_ref()?.interval),
        "start_timeout" => duration(policy.start_timeout),
        "probe.every" => duration(service.probe.interval),
        "probe.ready" => service.probe.ready_after.to_string(),
        "probe.timeout" => duration(service.probe.timeout),
        "drain_timeout" => duration(policy.drain_timeout),
        "session_cost" => policy.session_cost.to_string(),
        _ => return None,
    })
}

/// The availability objective.
pub(super) fn availability(service: &Service) -> Option<&Objective> {
    service.slo.objectives.iter().find(|it| it.indicator == Indicator::Availability)
}
