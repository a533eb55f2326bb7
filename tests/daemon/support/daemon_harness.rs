use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollbackd::model::{ReleaseNumber, TimelineEntry};
use rollbackd::record;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::handover_log::successor_pids;
use super::pids::{daemons_of, exists, signal};
use super::{
    CliCommand, CliOutput, ReleaseProcess, epoch_ms, free_port, release_processes, wait_for,
    wait_until,
};

pub(crate) const SERVICE: &str = "weather";
const PROGRAM: &str = env!("CARGO_BIN_EXE_rollbackd");
/// How long a daemon may take to end.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A folder, a configuration and a daemon. Drop ends all processes of it.
pub(crate) struct DaemonHarness {
    dir: TempDir,
    pub(crate) listen: u16,
    pub(crate) blue: u16,
    pub(crate) green: u16,
    daemon: Option<Child>,
    /// The daemon that took over from it, which is no child of this process.
    successor: Option<i32>,
    program: PathBuf,
    environment: Vec<(String, String)>,
}

impl DaemonHarness {
    /// Writes a configuration: the lines of `settings` for the service, defaults for what they
    /// leave out. Nothing runs yet.
    pub(crate) fn new(settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("rollbackd-test-").tempdir().unwrap();
        let (listen, blue, green) = (free_port(), free_port(), free_port());
        let (daemon, successor, program) = (None, None, PROGRAM.into());
        let environment = Vec::new();
        let host =
            Self { dir: folder, listen, blue, green, daemon, successor, program, environment };
        host.configure(settings);
        host
    }

    /// A daemon that runs, with a first release `v1` that has the traffic.
    pub(crate) fn with_v1(settings: &str) -> Self {
        let mut host = Self::new(settings);
        host.start();
        host.deploy("v1", &["--wait"]).expect_code(0);
        host
    }

    /// Writes the configuration again.
    pub(crate) fn configure(&self, settings: &str) {
        let text = self.daemon_section() + &self.service_section(SERVICE, settings);
        self.write_config(&text);
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn daemon_section(&self) -> String {
        let (state, socket) = (self.state(), self.socket());
        format!("[daemon]\nstate_dir = {state:?}\ncontrol_socket = {socket:?}\n")
    }

    pub(crate) fn service_section(&self, name: &str, settings: &str) -> String {
        let (listen, blue, green) = (self.listen, self.blue, self.green);
        let defaults = [
            ("listen", format!("\"127.0.0.1:{listen}\"")),
            ("runtime", "\"command\"".to_owned()),
            ("command", format!("[{PROGRAM:?}, \"demo-server\"]")),
            ("slots", format!("{{ blue = \"127.0.0.1:{blue}\", green = \"127.0.0.1:{green}\" }}")),
            ("deadline", "\"2s\"".to_owned()),
            ("bake", "\"10m\"".to_owned()),
            ("burst", "\"1s\"".to_owned()),
            ("drain_timeout", "\"2s\"".to_owned()),
            ("stop_timeout", "\"2s\"".to_owned()),
            ("start_timeout", "\"10s\"".to_owned()),
            ("rollbacks_per_day", "1000".to_owned()),
            ("probe", "{ every = \"300ms\", timeout = \"1s\" }".to_owned()),
        ];
        let external = settings.contains("runtime = \"external\"");
        let mut text = format!("\n[service.{name}]\n{settings}\n");
        for (key, value) in defaults {
            let written = settings.lines().any(|line| line.trim_start().starts_with(key));
            let senseless = external && matches!(key, "command" | "stop_timeout");
            if !written && !senseless {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    pub(crate) fn dir_path(&self) -> &Path {
        self.dir.path()
    }

    /// What the daemon wrote to its streams, over all restarts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// Starts the daemon and waits until `status` succeeds.
    pub(crate) fn start(&mut self) {
        let mut log = OpenOptions::new();
        let log: File = log.create(true).append(true).open(self.log_path()).unwrap();
        self.start_with_stderr(log.into());
    }

    /// The same with another standard error.
    pub(crate) fn start_with_stderr(&mut self, stderr: Stdio) {
        let mut command = Command::new(&self.program);
        command.arg("run").arg(self.config()).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(stderr);
        let mut daemon = command.spawn().unwrap();
        wait_until("the daemon answers", || {
            let ended = daemon.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended ({ended:?}):\n{}", self.log());
            // The control socket accepts connections before the services have their timelines.
            self.socket().exists() && self.run_cli(&["status"]).code == 0
        });
        self.daemon = Some(daemon);
    }

    pub(crate) fn pid(&self) -> i32 {
        let first = || i32::try_from(self.daemon.as_ref().unwrap().id()).unwrap();
        self.successor.unwrap_or_else(first)
    }

    /// Later starts have this variable.
    pub(crate) fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Later starts run the program from a path where a test can replace it.
    pub(crate) fn move_program(&mut self) -> PathBuf {
        self.program = self.dir_path().join("rollbackd");
        std::os::unix::fs::symlink(PROGRAM, &self.program).unwrap();
        self.program.clone()
    }

    /// SIGKILL for one of several daemons.
    pub(crate) fn kill_pid(&self, pid: i32) {
        signal(pid, Signal::KILL);
        wait_until("it is dead", || !self.daemons().contains(&pid));
    }

    /// SIGTERM for a daemon that drains.
    pub(crate) fn terminate(&self, pid: i32) {
        signal(pid, Signal::TERM);
    }

    /// SIGUSR2, and nothing more.
    pub(crate) fn request_handover(&self) {
        signal(self.pid(), Signal::USR2);
    }

    /// SIGUSR2; returns when the next daemon has taken over. The old one may still be there.
    pub(crate) fn wait_for_handover(&mut self) {
        let before = successor_pids(&self.log()).len();
        self.request_handover();
        self.successor = wait_for(STOP_MAX, "another daemon takes over", || {
            successor_pids(&self.log()).get(before).copied().map(Some)
        });
    }

    /// The processes that run the daemon with this configuration.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        daemons_of(&self.config())
    }

    /// Ends the daemon as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.daemons().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        wait_until("it is dead", || self.daemons().is_empty());
        self.successor = None;
        self.daemon.take().unwrap().wait().unwrap();
    }

    /// SIGTERM; returns the exit code of the daemon that this harness started.
    pub(crate) fn stop(&mut self) -> i32 {
        signal(self.pid(), Signal::TERM);
        if let Some(pid) = self.successor.take() {
            wait_for(STOP_MAX, "the end of the daemon", || (!exists(pid)).then_some(()));
        }
        let mut daemon = self.daemon.take().unwrap();
        let status = wait_for(STOP_MAX, "the end of the daemon", || daemon.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// SIGHUP.
    pub(crate) fn reload(&self) {
        signal(self.pid(), Signal::HUP);
    }

    /// Runs a daemon that exits by itself.
    pub(crate) fn run_until_exit(&self) -> CliOutput {
        self.run_cli(&["run"])
    }

    /// Runs a command to its end.
    pub(crate) fn run_cli(&self, arguments: &[&str]) -> CliOutput {
        self.spawn_cli(arguments).wait()
    }

    /// Starts a command.
    pub(crate) fn spawn_cli(&self, arguments: &[&str]) -> CliCommand {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(self.config());
        command.env_remove("ROLLBACKD_CONFIG").env_remove("ROLLBACKD_SOCKET");
        CliCommand::start(command)
    }

    pub(crate) fn deploy(&self, version: &str, more: &[&str]) -> CliOutput {
        self.run_cli(&[&["deploy", SERVICE, version], more].concat())
    }

    /// Deploys a demo server that fails from `ms` milliseconds on; waits for the end.
    pub(crate) fn deploy_faulty(
        &self,
        version: &str,
        fault: &str,
        ms: u64,
        more: &[&str],
    ) -> CliOutput {
        self.spawn_faulty_deploy(version, fault, ms, &[&["--wait"], more].concat()).wait()
    }

    pub(crate) fn spawn_faulty_deploy(
        &self,
        version: &str,
        fault: &str,
        ms: u64,
        more: &[&str],
    ) -> CliCommand {
        let fault = format!("DEMO_FAULT={fault}");
        let at = format!("DEMO_FAULT_AT={}", epoch_ms() + ms);
        let deploy = ["deploy", SERVICE, version, "--set", &fault, "--set", &at];
        self.spawn_cli(&[&deploy, more].concat())
    }

    pub(crate) fn status(&self) -> Value {
        let mut all = self.run_cli(&["status", SERVICE, "--json"]).expect_code(0).json_lines();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    pub(crate) fn phase(&self) -> String {
        self.status()["phase"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for_phase(&self, phase: &str) {
        wait_until(&format!("phase {phase}"), || self.phase() == phase);
    }

    /// The timeline on disk.
    pub(crate) fn entries(&self, deploy: u32) -> Vec<TimelineEntry> {
        record::read_deploy(&self.state().join(SERVICE), Some(ReleaseNumber(deploy))).unwrap()
    }

    pub(crate) fn kinds(&self, deploy: u32) -> Vec<&'static str> {
        self.entries(deploy).iter().map(|entry| entry.event.kind()).collect()
    }

    /// The processes of the releases.
    pub(crate) fn release_processes(&self) -> Vec<ReleaseProcess> {
        release_processes(&self.state())
    }

    /// The process of one release.
    #[track_caller]
    pub(crate) fn release_process(&self, number: u32) -> ReleaseProcess {
        let all = self.release_processes();
        all.iter().find(|it| it.number == number).cloned().unwrap_or_else(|| panic!("{all:?}"))
    }
}

impl Drop for DaemonHarness {
    fn drop(&mut self) {
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{log}");
        }
        self.daemons().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        if let Some(mut daemon) = self.daemon.take() {
            let _: std::io::Result<_> = daemon.wait();
        }
        // A process that just starts shows at the second poll.
        for _ in 0..50 {
            let left = self.release_processes();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(ReleaseProcess::kill);
            super::sleep(Duration::from_millis(20));
        }
        // A task that panics ends alone, and no exit code shows it.
        let quiet = !log.contains("panicked at");
        assert!(quiet || std::thread::panicking(), "a daemon panicked:\n{log}");
    }
}
