//! What the machine of a service needs of its configuration.

use crate::config::{Runtime, Service};
use crate::machine::MachineSettings;

/// The settings that the machine needs.
pub(super) fn machine_settings(service: &Service) -> MachineSettings {
    MachineSettings {
        policy: service.policy.clone(),
        slo: service.slo.clone(),
        restarts_in_place: matches!(service.runtime, Runtime::Command(_)),
        starts_releases: !matches!(service.runtime, Runtime::External),
        move_sessions: service.move_sessions,
    }
}
