//! The settings that decide a phase, as the configuration writes them.

use crate::config::{Service, setting_value};
use crate::control::{SettingValue, Status};
use crate::decide::Phase;

/// The settings that decide, with their values.
pub(super) fn values(status: &Status, phase: &Phase, service: &Service) -> Vec<SettingValue> {
    let names = settings_of(phase, service);
    let values = names.iter().filter_map(|name| {
        let awaits_deploy = status.awaits_deploy.iter().any(|it| it == name);
        let value = literal(setting_value(service, name)?);
        Some(SettingValue { name: (*name).to_owned(), value, awaits_deploy })
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
        Phase::Steady { .. } => vec!["after_bake", "rollbacks_per_day"],
    }
}

/// A value as TOML writes it: texts in quotes.
fn literal(value: String) -> String {
    match value.parse::<f64>() {
        Ok(_) => value,
        Err(_) => format!("\"{value}\""),
    }
}
