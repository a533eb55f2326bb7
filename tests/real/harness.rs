//! A daemon that runs two versions of a real MCP server.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollbackd::act::{OrphanedRelease, find_orphans};
use rollbackd::model::ReleaseNumber;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use super::async_wait::wait_for;
use super::handover_log::successor_pids;
use super::pids::{daemons_of, exists, signal};
use super::servers::{ServerKind, tests_dir};

pub(crate) const SERVICE: &str = "everything";
const BINARY: &str = env!("CARGO_BIN_EXE_rollbackd");
/// For everything that should not take long; wide, for a machine that does a lot at once.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// The daemon, its folder, and all that runs in it. Dropping it ends every process.
pub(crate) struct RealServerHarness {
    dir: TempDir,
    daemon: Child,
    /// The daemon that took over from it, which is no child of this process.
    successor: Option<i32>,
    pub(crate) server: ServerKind,
    log: File,
    pub(crate) listen: SocketAddr,
    /// Held as systemd does: clients wait in its backlog while no daemon runs.
    listener: TcpListener,
    /// Where the releases are, the first one before.
    pub(crate) blue: SocketAddr,
    green: SocketAddr,
}

/// The output of a command, and its exit code.
#[derive(Debug)]
pub(crate) struct CliOutput {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl RealServerHarness {
    /// Starts the daemon with nothing deployed. `settings` go into the section of the service.
    pub(crate) async fn start(server: ServerKind, settings: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let [blue, green] = free_addresses();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listen = listener.local_addr().unwrap();
        write_config(home.path(), server, [listen, blue, green], settings);
        let log = File::options().append(true).create(true).open(home.path().join("log")).unwrap();
        let daemon = spawn_daemon(home.path(), &listener, &log);
        let (dir, successor) = (home, None);
        let stage = Self { dir, daemon, successor, server, log, listen, listener, blue, green };
        stage.wait_for_daemon().await;
        stage
    }

    async fn wait_for_daemon(&self) {
        self.wait_until("the daemon to answer", async || self.run_cli(&["status"]).await.code == 0)
            .await;
    }

    /// Writes the configuration with other settings of the service. The daemon reads it at a reload.
    pub(crate) fn configure(&self, settings: &str) {
        let addresses = [self.listen, self.blue, self.green];
        write_config(self.dir.path(), self.server, addresses, settings);
    }

    /// The daemon in charge.
    pub(crate) fn daemon_pid(&self) -> i32 {
        self.successor.unwrap_or_else(|| self.daemon.id().try_into().unwrap())
    }

    /// SIGKILL for the daemon in charge; returns when its sockets are gone.
    pub(crate) async fn kill_daemon(&mut self) {
        let killed = self.daemon_pid();
        signal(killed, Signal::KILL);
        self.wait_until("the daemon to be dead", async || !exists(killed)).await;
    }

    /// Starts a daemon after [`Self::kill_daemon`].
    pub(crate) async fn restart_daemon(&mut self) {
        let daemon = spawn_daemon(self.dir.path(), &self.listener, &self.log);
        let mut before = std::mem::replace(&mut self.daemon, daemon);
        // After a handover it still drains, and ends by itself.
        let _ = before.try_wait();
        self.successor = None;
        self.wait_for_daemon().await;
    }

    /// SIGUSR2; returns when the next daemon has taken over. The old one may still be there.
    pub(crate) async fn hand_over(&mut self) {
        let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let before = successor_pids(&log()).len();
        signal(self.daemon_pid(), Signal::USR2);
        let next = || std::future::ready(successor_pids(&log()).get(before).copied());
        self.successor = Some(wait_for("another daemon takes over", next).await);
        self.wait_for_daemon().await;
    }

    /// The daemons with this configuration, also those that drain.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        daemons_of(&self.dir.path().join("config.toml"))
    }

    /// The log of the daemon; a failed test prints it.
    pub(crate) fn log_stdio(&self) -> Stdio {
        self.log.try_clone().unwrap().into()
    }

    /// Runs a command to its end.
    pub(crate) async fn run_cli(&self, arguments: &[&str]) -> CliOutput {
        let mut command = tokio::process::Command::new(BINARY);
        command.arg("--config").arg(self.dir.path().join("config.toml")).args(arguments);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ended = timeout(2 * WAIT_MAX, command.output()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = ended.status.code().unwrap();
        CliOutput { code, out: text(ended.stdout), err: text(ended.stderr) }
    }

    /// Deploys the server with the old tools, with further arguments. The exit code may be anything.
    pub(crate) async fn deploy_old(&self, version: &str, more: &[&str]) -> CliOutput {
        self.deploy(version, self.server.old_release(), more).await
    }

    /// Deploys the server with the new tools.
    pub(crate) async fn deploy_new(&self, version: &str, more: &[&str]) -> CliOutput {
        self.deploy(version, self.server.new_release(), more).await
    }

    /// Deploys what this path names.
    pub(crate) async fn deploy(
        &self,
        version: &str,
        artifact: PathBuf,
        more: &[&str],
    ) -> CliOutput {
        let artifact = artifact.display().to_string();
        let deploy = ["deploy", SERVICE, version, "--artifact", &artifact];
        self.run_cli(&[&deploy, more].concat()).await
    }

    /// A client that calls a tool 25 times a second, until it is dropped.
    pub(crate) fn call_tool(&self, tool: &str, arguments: &str) -> tokio::process::Child {
        let url = format!("http://{}/mcp", self.listen);
        let mut command = tokio::process::Command::new(BINARY);
        command.args(["probe", &url, "--tool", tool, "--arguments", arguments]);
        command.args(["--watch", "--rate", "25"]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(self.log_stdio()).kill_on_drop(true).spawn().unwrap()
    }

    /// How the service stands.
    pub(crate) async fn status(&self) -> Value {
        let said = self.run_cli(&["status", SERVICE, "--json"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    /// Waits until `what` the status tells is `value`.
    pub(crate) async fn wait_for_status(&self, what: &str, value: &str) {
        self.wait_until(&format!("{what} {value}"), async || self.status().await[what] == value)
            .await;
    }

    /// The timeline of a deploy: what, when in milliseconds, and why.
    pub(crate) async fn timeline(&self, deploy: u32) -> Vec<(String, u64, String)> {
        let number = deploy.to_string();
        let said = self.run_cli(&["timeline", SERVICE, "--deploy", &number, "--json"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let entries = said.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        entries
            .map(|entry| {
                (text(&entry["kind"]), entry["ms"].as_u64().unwrap(), text(&entry["because"]))
            })
            .collect()
    }

    /// The process of a deploy, if it runs.
    pub(crate) fn process(&self, deploy: u32) -> Option<Pid> {
        let ours = self.processes().into_iter().find(|it| it.number == ReleaseNumber(deploy))?;
        Some(pid(ours.pid))
    }

    /// Every release that has a process.
    pub(crate) fn processes(&self) -> Vec<OrphanedRelease> {
        find_orphans(&self.dir.path().join("state"), SERVICE)
    }

    /// Stops the daemon as systemd would; its exit code.
    pub(crate) async fn stop_daemon(mut self) -> Option<i32> {
        signal(self.daemon_pid(), Signal::TERM);
        if let Some(successor) = self.successor.take() {
            self.wait_until("the daemon to stop", async || !exists(successor)).await;
        }
        let poll = || std::future::ready(self.daemon.try_wait().unwrap());
        wait_for("the daemon stops", poll).await.code()
    }

    /// Polls until the condition holds.
    pub(crate) async fn wait_until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        wait_for(what, || async { condition().await.then_some(()) }).await;
    }
}

impl Drop for RealServerHarness {
    fn drop(&mut self) {
        // First the daemons, which would start again what is killed.
        self.daemons().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        let _ = self.daemon.wait();
        for left in self.processes() {
            let _ = kill_process_group(pid(left.pid), Signal::KILL);
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            println!("the daemon said:");
            log.lines()
                .filter(|line| !line.contains(" POST request "))
                .for_each(|line| println!("{line}"));
        }
    }
}

fn write_config(
    home: &Path,
    server: ServerKind,
    [listen, blue, green]: [SocketAddr; 3],
    settings: &str,
) {
    let (at, command, real) = (home.display(), server.command(), tests_dir());
    let real = real.display().to_string();
    let config = format!(
        r#"
        [daemon]
        state_dir = "{at}/state"
        control_socket = "{at}/control.sock"

        [service.{SERVICE}]
        listen = "{listen}"
        runtime = "command"
        command = {command:?}
        dir = "{real}"
        slots = {{ blue = "{blue}", green = "{green}" }}
        {settings}
        "#
    );
    fs::write(home.join("config.toml"), config).unwrap();
}

/// Starts a daemon with the listener, as systemd passes it. A shell knows the number of the process.
fn spawn_daemon(home: &Path, listener: &TcpListener, log: &File) -> Child {
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run \"$1\" 3<&0 </dev/null";
    let mut command = Command::new("sh");
    command.args(["-c", script, BINARY]).arg(home.join("config.toml"));
    command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
    command.stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
    command.spawn().unwrap()
}

fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    // All held at once, so that they differ.
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|it| it.local_addr().unwrap())
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}
