//! Whether this host has what a configuration names: directories, ports, programs, units, podman and
//! the artifacts of the releases. It changes nothing.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{Uid, User};
use rustix::fs::{Access, access};
use serde::Serialize;

use crate::act;
use crate::artifact::{ArtifactKind, Podman, Verifier};
use crate::config::{Address, ProbeKind, Runtime, Service, Settings};
use crate::model::{Release, TimelineEvent};
use crate::record;
use crate::systemd::SystemdManager;

/// One look at the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostFinding {
    /// `error` or `ok`.
    pub level: &'static str,
    /// What was looked at: `host-directory`, `host-port`, `host-program`, `host-unit`, `host-podman`,
    /// `host-artifact` or `host-user`.
    pub code: &'static str,
    /// The service, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl HostFinding {
    fn of(code: &'static str, service: Option<&Service>, result: Result<String, Wrong>) -> Self {
        let service = service.map(|service| service.name.clone());
        match result {
            Ok(message) => Self { level: "ok", code, service, message, help: String::new() },
            Err(Wrong { message, help }) => Self { level: "error", code, service, message, help },
        }
    }

    /// Whether something has to be done.
    pub fn is_error(&self) -> bool {
        self.level == "error"
    }
}

struct Wrong {
    message: String,
    help: String,
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), help: help.into() }
}

/// Looks at everything that the settings name. Reads the artifacts of the newest deploys.
pub async fn look(settings: &Settings) -> Vec<HostFinding> {
    let is_running = UnixStream::connect(&settings.control_socket).is_ok();
    let folder = settings.control_socket.parent().unwrap_or(Path::new("/"));
    let mut findings = vec![
        HostFinding::of("host-user", None, Ok(user())),
        HostFinding::of(
            "host-directory",
            None,
            directory("the state directory", &settings.state_dir),
        ),
        HostFinding::of("host-directory", None, directory("the directory of the socket", folder)),
    ];
    if let Some(metrics) = settings.metrics {
        findings.push(HostFinding::of("host-port", None, port("metrics", metrics, is_running)));
    }
    if let Some(Address::Tcp(page)) = settings.page.as_ref().map(|page| &page.address) {
        findings.push(HostFinding::of("host-port", None, port("page", *page, is_running)));
    }
    for service in settings.services.values() {
        look_at_ports(service, is_running, &mut findings);
        look_at_programs(service, &mut findings);
        look_at_units(service, settings, &mut findings).await;
        if service.artifact == ArtifactKind::Image {
            let podman = socket("podman", &settings.podman);
            findings.push(HostFinding::of("host-podman", Some(service), podman));
        }
        look_at_artifacts(service, settings, &mut findings).await;
    }
    findings
}

fn user() -> String {
    let uid = Uid::effective();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |it| it.name);
    format!("the rights are those of {name}; the daemon may run as another user")
}

/// With a daemon that runs, its releases may have the ports of the slots.
fn look_at_ports(service: &Service, is_running: bool, findings: &mut Vec<HostFinding>) {
    let listen = port("listen", service.listen, is_running);
    findings.push(HostFinding::of("host-port", Some(service), listen));
    if is_running || matches!(service.runtime, Runtime::External) {
        return;
    }
    for (slot, address) in &service.slots {
        if let Address::Tcp(address) = address {
            let found = port(&format!("slot {slot}"), *address, false);
            findings.push(HostFinding::of("host-port", Some(service), found));
        }
    }
}

fn look_at_programs(service: &Service, findings: &mut Vec<HostFinding>) {
    if let Runtime::Command(command) = &service.runtime {
        if let Some(found) = command.argv.first().and_then(|it| program("command", it)) {
            findings.push(HostFinding::of("host-program", Some(service), found));
        }
        if let Some(dir) = &command.working_dir {
            let found = if dir.is_dir() {
                Ok(format!("dir {} exists", dir.display()))
            } else {
                Err(wrong(format!("dir {} is no directory", dir.display()), "create it"))
            };
            findings.push(HostFinding::of("host-directory", Some(service), found));
        }
    }
    if let ProbeKind::Command(command) = &service.probe.kind
        && let Some(found) = command.first().and_then(|it| program("probe.command", it))
    {
        findings.push(HostFinding::of("host-program", Some(service), found));
    }
}

/// What systemd says of the unit of each slot.
async fn look_at_units(service: &Service, settings: &Settings, findings: &mut Vec<HostFinding>) {
    let Runtime::Systemd(template) = &service.runtime else { return };
    let manager = SystemdManager::default();
    for slot in service.slots.keys() {
        let of = (service.name.as_str(), settings.state_dir.as_path());
        let found = act::check_unit(&manager, template, slot, of).await.map_err(|why| {
            wrong(format!("unit: {why}"), "see rollbackd-systemd(7) for an example of a template")
        });
        findings.push(HostFinding::of("host-unit", Some(service), found));
    }
}

/// The artifacts of the release of the newest deploy and of the one before it.
async fn look_at_artifacts(
    service: &Service,
    settings: &Settings,
    findings: &mut Vec<HostFinding>,
) {
    let dir = settings.state_dir.join(&service.name);
    let entries = match record::read_latest(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            let found =
                Err(wrong(error.with_cause(), "check as the user of the daemon, or as root"));
            return findings.push(HostFinding::of("host-artifact", Some(service), found));
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
            findings.push(HostFinding::of("host-artifact", Some(service), found));
        }
    }
}

/// Whether an artifact is still what was deployed. `None`: nothing of it was recorded.
async fn artifact(release: &Release, podman: &Path) -> Option<Result<String, Wrong>> {
    let (artifact, digest) = (release.artifact.as_ref()?, release.digest.as_ref()?.parse().ok()?);
    let verifier = Verifier::new(artifact, digest, Podman::new(podman).ok());
    Some(match verifier.verify().await {
        Ok(()) => Ok(format!("artifact: {artifact} of {release} is as it was deployed")),
        Err(error) => Err(wrong(
            format!("artifact of {release}: {error}"),
            "put it back, or deploy a release whose artifact is there",
        )),
    })
}

/// A directory that exists can be written, and not by others; another one can be created in its
/// nearest parent.
fn directory(what: &str, path: &Path) -> Result<String, Wrong> {
    let existing = path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
    let shown = path.display();
    if !existing.is_dir() {
        let message = format!("{what} {shown}: {} is no directory", existing.display());
        return Err(wrong(message, "move it away, or name another path"));
    }
    let mode = existing.metadata().map_or(0, |it| it.permissions().mode() & 0o7777);
    if existing == path && mode & 0o002 != 0 {
        let message = format!("{what} {shown}: all users may write into it (mode {mode:o})");
        // Such as /tmp, whose rights are as they must be.
        let help = match mode & 0o1000 {
            0 => format!("chmod o-w {shown}"),
            _ => "use a directory of its own, such as one below it".to_owned(),
        };
        return Err(wrong(message, help));
    }
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if existing == path => Ok(format!("{what} {shown} can be written")),
        Ok(()) => Ok(format!("{what} {shown} can be created")),
        Err(error) => {
            let message = format!("{what} {shown}: this user cannot write: {error}");
            Err(wrong(message, "check as the user of the daemon, such as with sudo -u rollbackd"))
        }
    }
}

fn port(what: &str, address: SocketAddr, is_running: bool) -> Result<String, Wrong> {
    let Err(error) = TcpListener::bind(address) else {
        return Ok(format!("{what} {address} is free"));
    };
    let message = format!("{what} {address} cannot be used: {error}");
    let help = match error.kind() {
        io::ErrorKind::AddrInUse if is_running => {
            return Ok(format!("{what} {address} is in use while the daemon runs"));
        }
        io::ErrorKind::AddrInUse => "`ss -ltnp` shows the process that has it",
        io::ErrorKind::AddrNotAvailable => "no interface has this address: `ip address` lists them",
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 needs root or CAP_NET_BIND_SERVICE; use a higher port"
        }
        _ => "choose another address",
    };
    Err(wrong(message, help))
}

/// A program without placeholders. `None`: only a deploy says which one it is.
fn program(what: &str, name: &str) -> Option<Result<String, Wrong>> {
    if name.contains('{') {
        return None;
    }
    let is_executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if name.contains('/') {
        let path = Path::new(name);
        return Some(match (path.is_file(), is_executable(path)) {
            (true, true) => Ok(format!("{what}: {name} can be run")),
            (true, false) => {
                Err(wrong(format!("{what}: {name} is not executable"), format!("chmod +x {name}")))
            }
            (false, _) => Err(wrong(format!("{what}: there is no file {name}"), "install it")),
        });
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|it| it.join(name)).find(|it| is_executable(it));
    Some(match found {
        Some(found) => Ok(format!("{what}: {name} is {}", found.display())),
        None => Err(wrong(
            format!("{what}: no program {name} in PATH"),
            "install it, or write its whole path: the daemon's PATH may be shorter",
        )),
    })
}

fn socket(what: &str, path: &Path) -> Result<String, Wrong> {
    let shown = path.display();
    match UnixStream::connect(path) {
        Ok(_) => Ok(format!("{what}: {shown} answers")),
        Err(error) => Err(wrong(
            format!("{what}: {shown} cannot be used: {error}"),
            "systemctl enable --now podman.socket, and see rollbackd-artifacts(7) for the rights",
        )),
    }
}

#[cfg(test)]
mod tests {
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
        let findings = look(&settings(&service)).await;
        let errors: Vec<_> = findings.iter().filter(|it| it.is_error()).collect();
        assert!(errors.iter().all(|it| !it.help.is_empty()), "{errors:?}");
        for part in ["there is no file /nonexistent/x", &format!("{address} cannot be used")] {
            assert!(errors.iter().any(|it| it.message.contains(part)), "{part}: {findings:?}");
        }
    }

    #[test]
    fn the_port_of_a_daemon_that_runs_is_no_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(port("listen", address, false).is_err());
        assert!(port("listen", address, true).is_ok());
    }

    #[test]
    fn a_program_with_a_placeholder_is_left_to_the_deploy() {
        assert!(program("command", "/opt/{version}/server").is_none());
        assert!(program("command", "sh").unwrap().is_ok());
        assert!(program("command", "/etc/passwd").unwrap().is_err());
        assert!(program("command", "no-such-program-here").unwrap().is_err());
    }

    #[test]
    fn a_directory_that_all_may_write_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state");
        assert!(directory("it", &dir).is_ok_and(|it| it.contains("can be created")));
        std::fs::create_dir(&dir).unwrap();
        assert!(directory("it", &dir).is_ok_and(|it| it.contains("can be written")));
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(directory("it", &dir).is_err_and(|it| it.message.contains("all users")));
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(directory("it", &folder.path().join("file/state")).is_err());
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
