//! Reloads the configuration of a running daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::{self, Runtime, Service, Settings};
use crate::daemon::services::ServiceHandles;
use crate::model::Slot;

/// Applies a new configuration, all of it or nothing. The settings that are valid now.
pub(super) async fn reload(settings: Settings, handles: &ServiceHandles, path: &Path) -> Settings {
    let new = match config::load(path) {
        Ok(checked) => checked.settings,
        Err(problems) => {
            tracing::error!("the new configuration has errors, nothing changed:\n{problems}");
            return settings;
        }
    };
    if let Some(changed) = restart_only_change(&settings, &new) {
        tracing::error!("the new configuration needs a restart, nothing changed: {changed}");
        return settings;
    }
    for (name, service) in &new.services {
        if let Some(handle) = handles.get(name) {
            handle.configure(service.clone()).await;
        }
    }
    tracing::info!("applied the new configuration");
    new
}

/// The first difference that a running daemon cannot apply.
fn restart_only_change(old: &Settings, new: &Settings) -> Option<String> {
    if old.state_dir != new.state_dir {
        return Some("the state directory differs".to_owned());
    }
    if old.control_socket != new.control_socket {
        return Some("the control socket differs".to_owned());
    }
    if old.metrics != new.metrics {
        return Some("the metrics address differs".to_owned());
    }
    if old.page != new.page {
        return Some("the status page differs".to_owned());
    }
    let (old_services, new_services) = (identities(old), identities(new));
    let names = old_services.keys().chain(new_services.keys());
    for name in names {
        let change = match (old_services.get(name), new_services.get(name)) {
            (Some(old), Some(new)) if old.listen != new.listen => "its listen address differs",
            (Some(old), Some(new)) if old.runtime != new.runtime => "its runtime differs",
            (Some(_), Some(_)) => continue,
            (None, _) => "it is new",
            (_, None) => "it is removed",
        };
        return Some(format!("service {name}: {change}"));
    }
    let (service, slot) = changed_slot(old, new)?;
    Some(format!(
        "service {service}: slot {slot} is gone or has another address, and a release may run there"
    ))
}

/// The settings of a service that need a restart.
struct ServiceIdentity {
    listen: SocketAddr,
    /// The kind of the runtime, and the unit template.
    runtime: Option<String>,
}

fn identities(settings: &Settings) -> BTreeMap<&str, ServiceIdentity> {
    let identity = |it: &Service| ServiceIdentity {
        listen: it.listen,
        runtime: match &it.runtime {
            Runtime::External => None,
            Runtime::Command(_) => Some(String::new()),
            Runtime::Systemd(template) => Some(template.unit.clone()),
        },
    };
    settings.services.values().map(|it| (it.name.as_str(), identity(it))).collect()
}

/// A slot that is gone, or has another address.
fn changed_slot<'a>(old: &'a Settings, new: &Settings) -> Option<(&'a str, &'a Slot)> {
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
