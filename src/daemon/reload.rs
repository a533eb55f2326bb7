//! A new configuration for a daemon that runs.

use std::path::Path;
use std::sync::Arc;

use crate::config::{self, Runtime, Service, Settings};
use crate::daemon::control_api::ServiceHandles;
use crate::model::Slot;
use crate::service::inbox::ServiceMessage;

/// Takes a new configuration, whole or not at all.
pub(super) async fn reload(settings: Settings, handles: &ServiceHandles, path: &Path) -> Settings {
    let new = match config::load(path) {
        Ok(checked) => checked.settings,
        Err(problems) => {
            tracing::error!("the configuration was not taken, nothing changed:\n{problems}");
            return settings;
        }
    };
    let restart_only = |it: &Settings| {
        let services: Vec<_> = it
            .services
            .values()
            .map(|it| (it.name.clone(), it.listen, runtime_identity(it)))
            .collect();
        (it.state_dir.clone(), it.control_socket.clone(), it.metrics, services)
    };
    if restart_only(&new) != restart_only(&settings) {
        tracing::error!(
            "the configuration was not taken, nothing changed: folders, sockets, listen addresses, \
             runtimes and the set of services change only with a restart"
        );
        return settings;
    }
    if let Some((service, slot)) = moved_slot(&settings, &new) {
        tracing::error!(
            "the configuration was not taken, nothing changed: slot {slot} of {service} is gone or \
             has another address, and a release may run there; that changes only with a restart"
        );
        return settings;
    }
    for (name, service) in &new.services {
        if let Some(handle) = handles.get(name) {
            let _ = handle.inbox.send(ServiceMessage::Configure(Arc::new(service.clone()))).await;
        }
    }
    tracing::info!("took the new configuration");
    new
}

/// Who runs the releases of a service, and as what.
fn runtime_identity(service: &Service) -> Option<String> {
    match &service.runtime {
        Runtime::External => None,
        Runtime::Command(_) => Some(String::new()),
        Runtime::Systemd(template) => Some(template.unit.clone()),
    }
}

/// A slot that is not where it was.
fn moved_slot<'a>(old: &'a Settings, new: &Settings) -> Option<(&'a str, &'a Slot)> {
    old.services.values().find_map(|service| {
        let now = new.services.get(&service.name);
        let new_address = |slot| now.and_then(|now| now.slots.get(slot));
        let (slot, _) = service
            .slots
            .iter()
            .find(|(slot, old_address)| new_address(*slot) != Some(*old_address))?;
        Some((service.name.as_str(), slot))
    })
}
