//! Reloads the configuration of a running daemon: all that it can apply, and a list of the rest.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, Address, Runtime, Service, Settings};
use crate::control::ReloadReport;
use crate::daemon::services::ServiceHandles;

/// How long a service may take to apply its settings, until the answer goes on without it.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests for a reload that wait for the one before.
const REQUESTS_MAX: usize = 8;

/// A client asks for a reload.
#[derive(Debug)]
pub(super) struct ReloadRequest {
    /// Who: for the log.
    pub by: String,
    /// Gets what became of each setting, or why nothing changed.
    pub reply: oneshot::Sender<Result<ReloadReport, String>>,
}

/// The way from the control API to the task that owns the settings.
pub(super) fn requests() -> (mpsc::Sender<ReloadRequest>, mpsc::Receiver<ReloadRequest>) {
    mpsc::channel(REQUESTS_MAX)
}

/// Applies a new configuration: what a running daemon can. What needs a restart keeps its old value, and
/// is listed in `awaits_restart`.
///
/// # Errors
/// The problems of the file; then nothing changed.
pub(super) async fn reload(
    settings: &mut Settings,
    handles: &ServiceHandles,
    path: &Path,
) -> Result<ReloadReport, String> {
    let mut new = match config::load(path) {
        Ok(checked) => checked.settings,
        Err(problems) => {
            tracing::error!("the new configuration has errors, nothing changed:\n{problems}");
            return Err(problems.to_string());
        }
    };
    keep_what_needs_a_restart(settings, &mut new);
    let mut report =
        ReloadReport { restart: new.awaits_restart.clone(), ..ReloadReport::default() };
    report.now.extend(daemon_changes(settings, &new));
    let applying = new.services.iter().filter_map(|(name, service)| {
        let applied = handles.get(name)?.configure(service.clone());
        Some(async move { (name, tokio::time::timeout(APPLY_TIMEOUT, applied).await) })
    });
    // Together: one service that hangs delays no other, and signals wait for 5 s at most.
    for (name, applied) in join_all(applying).await {
        let Ok(Some(changes)) = applied else {
            tracing::error!(service = name, "did not confirm the new configuration within 5 s");
            report.unconfirmed.push(name.clone());
            continue;
        };
        report.now.extend(changes.now.iter().map(|it| format!("{name}.{it}")));
        report.next_deploy.extend(changes.next_deploy.iter().map(|it| format!("{name}.{it}")));
    }
    if !report.restart.is_empty() {
        tracing::warn!(
            "new configuration, in effect after `systemctl restart rollbackd`: {}",
            report.restart.join(", ")
        );
    }
    tracing::info!("applied the new configuration");
    *settings = new;
    Ok(report)
}

/// The settings of the daemon itself that a reload applies.
fn daemon_changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    let mut add = |name: &str, differs: bool| {
        if differs {
            changes.push(name.to_owned());
        }
    };
    add("daemon.page_url", old.page_url != new.page_url);
    add("incidents.keep", old.incidents.keep != new.incidents.keep);
    add("incidents.remind", old.incidents.remind != new.incidents.remind);
    add("incidents.require_review", old.incidents.require_review != new.incidents.require_review);
    let names =
        old.channels.keys().chain(new.channels.keys().filter(|it| !old.channels.contains_key(*it)));
    for name in names {
        add(&format!("notify.{name}"), old.channels.get(name) != new.channels.get(name));
    }
    changes
}

/// Puts back what a running daemon cannot change, and lists it.
fn keep_what_needs_a_restart(running: &Settings, new: &mut Settings) {
    let mut awaits = Vec::new();
    let mut keep = |name: &str, differs: bool| {
        if differs {
            awaits.push(format!("daemon.{name}"));
        }
    };
    keep("state_dir", running.state_dir != new.state_dir);
    keep("control_socket", running.control_socket != new.control_socket);
    keep("metrics", running.metrics != new.metrics);
    keep(
        "page",
        running.page.as_ref().map(|it| &it.address) != new.page.as_ref().map(|it| &it.address),
    );
    let hosts = running.page.as_ref().zip(new.page.as_ref());
    keep("page_hosts", hosts.is_some_and(|(running, new)| running.hosts != new.hosts));
    keep("podman", running.podman != new.podman);
    new.state_dir.clone_from(&running.state_dir);
    new.control_socket.clone_from(&running.control_socket);
    new.metrics = running.metrics;
    new.page.clone_from(&running.page);
    new.podman.clone_from(&running.podman);
    let added: Vec<_> =
        new.services.keys().filter(|it| !running.services.contains_key(*it)).cloned().collect();
    for name in added {
        new.services.remove(&name);
        awaits.push(format!("service.{name}"));
    }
    let in_use = |name: &str, address: &Address| {
        running.services.iter().filter(|(other, _)| *other != name).any(|(_, other)| {
            Address::Tcp(other.listen) == *address || other.slots.values().any(|it| it == address)
        })
    };
    for (name, running) in &running.services {
        match new.services.get_mut(name) {
            Some(new) => {
                let kept = keep_of_service(running, new, |address| in_use(name, address));
                awaits.extend(kept.into_iter().map(|it| format!("{name}.{it}")));
            }
            None => {
                new.services.insert(name.clone(), running.clone());
                awaits.push(format!("service.{name}"));
            }
        }
    }
    new.awaits_restart = awaits;
}

/// Puts back what a running service cannot change. Returns the names of what differs. `in_use` says of
/// an address whether another service has it until the restart.
fn keep_of_service(
    running: &Service,
    new: &mut Service,
    in_use: impl Fn(&Address) -> bool,
) -> Vec<&'static str> {
    let mut kept = Vec::new();
    if running.listen != new.listen {
        kept.push("listen");
        // By default they follow from `listen`.
        if running.hosts != new.hosts {
            kept.push("hosts");
            new.hosts.clone_from(&running.hosts);
        }
        new.listen = running.listen;
    }
    match (&running.runtime, &new.runtime) {
        (Runtime::Command(_), Runtime::Command(_)) | (Runtime::External, Runtime::External) => (),
        (Runtime::Systemd(before), Runtime::Systemd(after)) if before.unit == after.unit => (),
        (before, after) => {
            let both_units = [before, after].iter().all(|it| matches!(it, Runtime::Systemd(_)));
            kept.push(if both_units { "unit" } else { "runtime" });
            new.runtime = running.runtime.clone();
        }
    }
    // A release may run in a slot that is gone or has another address.
    if running.slots.iter().any(|(slot, address)| new.slots.get(slot) != Some(address))
        || new.slots.values().any(in_use)
    {
        kept.push("slots");
        new.slots.clone_from(&running.slots);
        new.policy.slots.clone_from(&running.policy.slots);
    }
    let (before, after) = (&running.limits, &mut new.limits);
    if before.connections_max != after.connections_max {
        kept.push("limits.connections");
        after.connections_max = before.connections_max;
    }
    if before.sessions_max != after.sessions_max {
        kept.push("limits.sessions");
        after.sessions_max = before.sessions_max;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(daemon: &str, service: &str, more: &str) -> Settings {
        let text =
            format!("[daemon]\n{daemon}\n[service.x]\nruntime = \"external\"\n{service}\n{more}\n");
        config::parse("x", &text).unwrap_or_else(|it| panic!("{it}")).settings
    }

    const SLOTS: &str = "slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }";
    const LISTEN: &str = "listen = \"127.0.0.1:8080\"";

    #[test]
    fn what_needs_a_restart_is_listed_and_the_rest_is_taken() {
        let running = settings("", &format!("{LISTEN}\n{SLOTS}"), "");
        let mut new = settings(
            "state_dir = \"/elsewhere\"\nmetrics = \"127.0.0.1:9469\"",
            "listen = \"10.0.0.1:8081\"\nbake = \"5m\"\n\
             slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9003\" }",
            "[service.x.limits]\nsessions = 5\nconnections = 6\n\
             [service.y]\nlisten = \"127.0.0.1:8090\"\nruntime = \"external\"\n\
             slots = { blue = \"127.0.0.1:9011\", green = \"127.0.0.1:9012\" }",
        );
        keep_what_needs_a_restart(&running, &mut new);
        let wanted = [
            "daemon.state_dir",
            "daemon.metrics",
            "service.y",
            "x.listen",
            "x.hosts",
            "x.slots",
            "x.limits.connections",
            "x.limits.sessions",
        ];
        assert_eq!(new.awaits_restart, wanted);
        let bake = Duration::from_mins(5);
        let mut taken = running.clone();
        let service = taken.services.get_mut("x").unwrap();
        (service.policy.bake, service.slo.bake) = (bake, bake);
        taken.awaits_restart.clone_from(&new.awaits_restart);
        assert_eq!(new, taken, "all but the bake is as it was");
    }

    #[test]
    fn a_slot_that_moves_to_another_service_waits_for_the_restart() {
        let services = |x: &str, y: &str| {
            let other = format!(
                "[service.y]\nlisten = \"127.0.0.1:8090\"\nruntime = \"external\"\nslots = {{ {y} }}"
            );
            settings("", &format!("{LISTEN}\nslots = {{ {x} }}"), &other)
        };
        let x = "blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\"";
        let y = "blue = \"127.0.0.1:9011\", green = \"127.0.0.1:9012\"";
        let moved = "red = \"127.0.0.1:9013\"";
        let running = services(x, &format!("{y}, {moved}"));
        let mut new = services(&format!("{x}, {moved}"), y);
        keep_what_needs_a_restart(&running, &mut new);
        assert_eq!(new.awaits_restart, ["x.slots", "y.slots"]);
        assert_eq!(new.services["x"].slots, running.services["x"].slots);
    }

    #[test]
    fn a_file_that_is_as_the_daemon_runs_awaits_nothing() {
        let running = settings("", &format!("{LISTEN}\n{SLOTS}"), "");
        let mut removed = settings("", &format!("{LISTEN}\n{SLOTS}"), "");
        removed.services.clear();
        keep_what_needs_a_restart(&running, &mut removed);
        assert_eq!(removed.awaits_restart, ["service.x"]);
        assert!(removed.services.contains_key("x"), "it goes on");
        let mut same = settings("", &format!("{LISTEN}\n{SLOTS}"), "");
        keep_what_needs_a_restart(&removed, &mut same);
        assert_eq!(same, running);
    }
}
