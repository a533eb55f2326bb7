//! Whether this host has what a configuration names: directories, ports, programs, units, podman and
//! the artifacts of the releases. It changes nothing.

mod directory;
mod finding;
mod port;
mod program;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{Uid, User};

use crate::act;
use crate::artifact::{ArtifactKind, Podman, Verifier};
use crate::config::{Address, ProbeKind, Runtime, Service, Settings};
use crate::model::{Release, TimelineEvent};
use crate::preflight::finding::Failure;
pub use crate::preflight::finding::{Finding, FindingLevel};
use crate::preflight::port::PortHolders;
use crate::record;
use crate::systemd::SystemdManager;

/// The unit that holds listeners while the daemon does not run.
const SOCKET_UNIT: &str = "rollbackd.socket";

/// Looks at everything that the settings name. Reads the artifacts of the newest deploys.
pub async fn check(settings: &Settings) -> Vec<Finding> {
    let manager = SystemdManager::default();
    let holders = PortHolders {
        is_running: UnixStream::connect(&settings.control_socket).is_ok(),
        // Without systemd nothing is held.
        of_socket_unit: manager.socket_addresses(SOCKET_UNIT).await.unwrap_or_default(),
    };
    let mut findings = check_daemon(settings, &holders);
    for service in settings.services.values() {
        let mut add = |code, result| findings.push(Finding::new(code, Some(&service.name), result));
        check_ports(service, &holders, &manager, &mut add).await;
        check_programs(service, &mut add);
        check_socket_directories(service, &mut add).await;
        check_units(service, settings, &manager, &mut add).await;
        if service.artifact == ArtifactKind::Image {
            add("host-podman", podman(&settings.podman));
        }
        check_artifacts(service, settings, &mut add).await;
    }
    findings
}

fn check_daemon(settings: &Settings, holders: &PortHolders) -> Vec<Finding> {
    let mut findings = vec![Finding::new("host-user", None, Ok(user()))];
    let mut add = |code, result| findings.push(Finding::new(code, None, result));
    let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
    add("host-directory", directory::check("the state directory", &settings.state_dir));
    let control = parent(&settings.control_socket);
    add("host-directory", directory::check("the directory of the socket", &control));
    if let Some(metrics) = settings.metrics {
        add("host-port", port::check("metrics", metrics, holders));
    }
    match settings.page.as_ref().map(|page| &page.address) {
        Some(Address::Tcp(page)) => add("host-port", port::check("page", *page, holders)),
        Some(Address::Unix(page)) => {
            let what = "the directory of the page's socket";
            add("host-directory", directory::check(what, &parent(page)));
        }
        None => {}
    }
    findings
}

fn user() -> String {
    let uid = Uid::effective();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |it| it.name);
    format!("the rights are those of {name}; the daemon may run as another user")
}

/// With a daemon that runs, its releases may have the ports of the slots. Units run on without it.
async fn check_ports(
    service: &Service,
    holders: &PortHolders,
    manager: &SystemdManager,
    add: &mut impl FnMut(&'static str, Result<String, Failure>),
) {
    add("host-port", port::check("listen", service.listen, holders));
    if holders.is_running || matches!(service.runtime, Runtime::External) {
        return;
    }
    for (slot, address) in &service.slots {
        let Address::Tcp(address) = address else { continue };
        let unit = match &service.runtime {
            Runtime::Systemd(template) => Some(template.unit_of(slot)),
            Runtime::Command(_) | Runtime::External => None,
        };
        let found = match unit {
            Some(unit) if manager.unit_state(&unit).await.is_ok_and(|it| it.is_up()) => {
                Ok(format!("slot {slot} {address} is that of {unit}, which runs"))
            }
            _ => port::check(&format!("slot {slot}"), *address, &PortHolders::default()),
        };
        add("host-port", found);
    }
}

fn check_programs(service: &Service, add: &mut impl FnMut(&'static str, Result<String, Failure>)) {
    if let Runtime::Command(command) = &service.runtime {
        if let Some(found) = command.argv.first().and_then(|it| program::check("command", it)) {
            add("host-program", found);
        }
        if let Some(user) = &command.user {
            let found = act::ensure_user_switch_allowed(user);
            let found = found.map(|()| format!("releases can run as {}", user.name));
            add(
                "host-user",
                found.map_err(|why| Failure::new(why, "run the check as the daemon's user")),
            );
        }
        if let Some(dir) = &command.working_dir {
            let shown = dir.display();
            let found = match dir.is_dir() {
                true => Ok(format!("dir {shown} exists")),
                false => Err(Failure::new(format!("dir {shown} is not a directory"), "create it")),
            };
            add("host-directory", found);
        }
    }
    if let ProbeKind::Command(command) = &service.probe.kind
        && let Some(found) = command.first().and_then(|it| program::check("probe.command", it))
    {
        add("host-program", found);
    }
}

/// Whether the releases of a command can create the sockets of their slots.
async fn check_socket_directories(
    service: &Service,
    add: &mut impl FnMut(&'static str, Result<String, Failure>),
) {
    let Runtime::Command(command) = &service.runtime else { return };
    let user = command.user.as_ref().filter(|it| it.uid != Uid::effective().as_raw());
    if user.is_some_and(|user| act::ensure_user_switch_allowed(user).is_err()) {
        return; // That is told already.
    }
    for (slot, address) in &service.slots {
        if let Address::Unix(socket) = address {
            let directory = socket.parent().unwrap_or(Path::new("/"));
            let what = format!("slot {slot}");
            add("host-directory", directory::check_for_socket(&what, directory, user).await);
        }
    }
}

/// What systemd says of the unit of each slot.
async fn check_units(
    service: &Service,
    settings: &Settings,
    manager: &SystemdManager,
    add: &mut impl FnMut(&'static str, Result<String, Failure>),
) {
    let Runtime::Systemd(template) = &service.runtime else { return };
    for slot in service.slots.keys() {
        let of = (service.name.as_str(), settings.state_dir.as_path());
        let found = act::check_unit(manager, template, slot, of).await.map_err(|why| {
            let help = "see rollbackd-systemd(7) for an example of a template";
            Failure::new(format!("unit: {why}"), help)
        });
        add("host-unit", found);
    }
}

/// The artifacts of the release of the newest deploy and of the one before it.
async fn check_artifacts(
    service: &Service,
    settings: &Settings,
    add: &mut impl FnMut(&'static str, Result<String, Failure>),
) {
    let dir = settings.state_dir.join(&service.name);
    let entries = match record::read_latest(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            let help = "check as the user of the daemon, or as root";
            return add("host-artifact", Err(Failure::new(error.with_cause(), help)));
        }
    };
    let releases = entries.into_iter().find_map(|entry| match entry.event {
        TimelineEvent::Deployed { release, carried_over, .. } => {
            Some([Some(release), carried_over.active])
        }
        _ => None,
    });
    for release in releases.into_iter().flatten().flatten() {
        if let Some(found) = artifact(&release, &settings.podman).await {
            add("host-artifact", found);
        }
    }
}

/// Whether an artifact is still what was deployed. `None`: nothing of it was recorded.
async fn artifact(release: &Release, podman: &Path) -> Option<Result<String, Failure>> {
    let (artifact, digest) = (release.artifact.as_ref()?, release.digest.as_ref()?.parse().ok()?);
    let verifier = Verifier::new(artifact, digest, Podman::new(podman).ok());
    Some(match verifier.verify().await {
        Ok(()) => Ok(format!("artifact: {artifact} of {release} is as it was deployed")),
        Err(error) => Err(Failure::new(
            format!("artifact of {release}: {error}"),
            "put it back, or deploy a release whose artifact is there",
        )),
    })
}

fn podman(socket: &Path) -> Result<String, Failure> {
    let shown = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => Ok(format!("podman: {shown} answers")),
        Err(error) => Err(Failure::new(
            format!("podman: {shown} cannot be used: {error}"),
            "systemctl enable --now podman.socket, and see rollbackd-artifacts(7) for the rights",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn settings(service: &str) -> Settings {
        let text = format!(
            "[daemon]\nstate_dir = \"/\"\ncontrol_socket = \"/nonexistent-a/b.sock\"\n[service.s]\n{service}"
        );
        crate::config::parse("x", &text).unwrap_or_else(|it| panic!("{it}")).settings
    }

    #[tokio::test]
    async fn a_port_in_use_and_a_missing_program_are_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let service = format!(
            "listen = \"{address}\"\nruntime = \"command\"\ncommand = [\"/nonexistent/x\", \"{{version}}\"]\n\
             slots = {{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }}\n"
        );
        let findings = check(&settings(&service)).await;
        let errors: Vec<_> = findings.iter().filter(|it| it.is_error()).collect();
        assert!(errors.iter().all(|it| !it.help.is_empty()), "{errors:?}");
        for part in ["there is no file /nonexistent/x", &format!("{address} cannot be used")] {
            assert!(errors.iter().any(|it| it.message.contains(part)), "{part}: {findings:?}");
        }
    }

    #[tokio::test]
    async fn an_artifact_that_changed_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        std::fs::write(&path, "a").unwrap();
        let resolved = crate::artifact::resolve(ArtifactKind::Path, path.to_str().unwrap(), None);
        let resolved = resolved.await.unwrap();
        let json = serde_json::json!({
            "version": "v1", "number": 1, "slot": "blue", "artifact": resolved.artifact,
            "digest": resolved.digest().unwrap().to_string(),
        });
        let release: Release = serde_json::from_value(json).unwrap();
        let look = || artifact(&release, Path::new("/nonexistent/podman.sock"));
        assert!(look().await.unwrap().is_ok_and(|it| it.contains("as it was deployed")));
        std::fs::write(&path, "b").unwrap();
        assert!(look().await.unwrap().is_err_and(|it| it.message.contains("changed since")));
        std::fs::remove_file(&path).unwrap();
        assert!(look().await.unwrap().is_err_and(|it| it.message.contains("is missing")));
    }
}
