use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, geteuid};
use tokio::process::{Child, Command};

use super::environment;
use crate::act::log_forwarder::LogForwarder;
use crate::act::process_marker::{POLL_INTERVAL, ProcessMarker};
use crate::act::{address_check, log_forwarder, user_switch};
use crate::config::{Address, CommandRuntime, ReleaseUser};
use crate::model::{Release, output_section};

/// All that is needed to start a release, or to find it again.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// The configured command.
    pub command: CommandRuntime,
    /// The release, with its slot.
    pub release: Release,
    /// The address where it must listen.
    pub address: Address,
    /// The service it belongs to.
    pub service: String,
    /// The daemon's state directory; it also distinguishes the processes of two daemons.
    pub state_dir: PathBuf,
}

/// A release that runs in its slot. After a drop the process continues, and can be adopted.
#[derive(Debug)]
pub struct Process {
    leader: GroupLeader,
    pid: Pid,
    marker: ProcessMarker,
    stop_timeout: Duration,
    log_forwarder: LogForwarder,
}

/// A safe handle of the first process of the release.
#[derive(Debug)]
pub(super) enum GroupLeader {
    /// A child: the kernel does not reuse its pid before the daemon reaps it.
    Child(Child),
    /// Started by an earlier daemon: the pidfd means this process even if its pid is reused.
    Adopted(OwnedFd),
}

impl Process {
    /// Starts a release in its own process group. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is taken, or the output file or the command cannot be opened or started.
    pub fn start(spec: &ProcessSpec) -> Result<Self, String> {
        address_check::ensure_free(&spec.address)?;
        let path = spec.output_path();
        let section = output_section(&spec.release);
        let file = log_forwarder::open_output_file(&path, &section)
            .map_err(|error| format!("{} cannot be opened: {error}", path.display()))?;
        let copy = file
            .try_clone()
            .map_err(|error| format!("{} cannot be opened twice: {error}", path.display()))?;
        let argv = spec.filled_argv();
        let Some((program, arguments)) = argv.split_first() else {
            return Err("the command is empty".to_owned());
        };
        let environment = spec.environment();
        let switching = user_switch::command_as(spec.other_user(), &argv, &environment)?;
        let mut command = switching.unwrap_or_else(|| {
            let mut command = Command::new(program);
            command.args(arguments).env_clear().envs(environment);
            command
        });
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        if let Some(dir) = &spec.command.working_dir {
            command.current_dir(dir);
        }
        let log_forwarder = LogForwarder::start(&path, &spec.service, &spec.release.version);
        let child = command.spawn().map_err(|error| {
            let dir = spec.command.working_dir.as_ref();
            let dir = dir.map(|dir| format!(" in {}", dir.display())).unwrap_or_default();
            format!("{program:?} cannot be started{dir}: {error}")
        })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("{program:?} has no pid"))?;
        Ok(Self::from_parts(spec, GroupLeader::Child(child), pid, log_forwarder))
    }

    pub(super) fn from_parts(
        spec: &ProcessSpec,
        leader: GroupLeader,
        pid: Pid,
        log_forwarder: LogForwarder,
    ) -> Self {
        Self {
            leader,
            pid,
            marker: spec.marker(),
            stop_timeout: spec.command.stop_timeout,
            log_forwarder,
        }
    }

    /// The pid of its first process, which is also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until its first process exits and returns how: "exit code 1", "killed by signal 9", or
    /// "gone" for an adopted one. Cancel safe. The caller still calls `stop`, which ends the
    /// processes that it left behind.
    pub async fn wait_exit(&mut self) -> String {
        self.leader.wait().await
    }

    /// Stops it and every process that it started: SIGTERM, then SIGKILL after the stop timeout.
    /// Returns when none is left, with how the first process ended.
    ///
    /// # Errors
    /// A process survives SIGKILL, or the daemon may not signal it.
    pub async fn stop(self) -> Result<String, String> {
        let Self { mut leader, pid, marker, stop_timeout, log_forwarder } = self;
        let running = leader.is_alive().then_some(pid);
        let (ended, has_ended) = tokio::sync::watch::channel(false);
        let gone = async {
            let how = leader.wait().await;
            ended.send_replace(true);
            marker.wait_until_gone().await;
            how
        };
        let live_leader = || running.filter(|_| !*has_ended.borrow());
        let how = marker.terminate(live_leader, stop_timeout, gone).await;
        log_forwarder.finish().await;
        how
    }
}

impl GroupLeader {
    /// Whether it runs, so that its process group id is certainly its own.
    fn is_alive(&mut self) -> bool {
        match self {
            Self::Child(child) => matches!(child.try_wait(), Ok(None)),
            Self::Adopted(pidfd) => {
                let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
                poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
            }
        }
    }

    async fn wait(&mut self) -> String {
        // tokio cannot wait for the pidfd of a process that is not a child without unsafe code.
        while matches!(self, Self::Adopted(_)) && self.is_alive() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => describe_exit(status),
                Err(error) => format!("gone ({error})"),
            },
            Self::Adopted(_) => "gone".into(),
        }
    }
}

impl ProcessSpec {
    pub(super) fn marker(&self) -> ProcessMarker {
        ProcessMarker {
            owner: self.state_dir.display().to_string(),
            service: self.service.clone(),
            slot: self.release.slot.0.clone(),
            number: self.release.number.to_string(),
        }
    }

    /// The file with its output.
    pub fn output_path(&self) -> PathBuf {
        let name = format!("output-{}.log", self.release.slot);
        self.state_dir.join(&self.service).join(name)
    }

    fn filled_argv(&self) -> Vec<String> {
        let port = environment::port_or_path(&self.address);
        let artifact = self.release.artifact.as_deref().unwrap_or_default();
        let fill = |argument: &String| {
            argument
                .replace("{version}", &self.release.version)
                .replace("{artifact}", artifact)
                .replace("{slot}", &self.release.slot.0)
                .replace("{port}", &port)
        };
        self.command.argv.iter().map(fill).collect()
    }

    /// The user that it runs as, unless it is the daemon's.
    fn other_user(&self) -> Option<&ReleaseUser> {
        self.command.user.as_ref().filter(|user| user.uid != geteuid().as_raw())
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let inherited = ["PATH", "HOME", "LANG"].into_iter();
        all.extend(inherited.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))));
        if let Some(user) = self.other_user() {
            let (name, home) = (user.name.clone(), user.home.display().to_string());
            all.extend(
                [("HOME", home), ("USER", name.clone()), ("LOGNAME", name)]
                    .map(|(name, value)| (name.to_owned(), value)),
            );
        }
        let (release, address) = (&self.release, &self.address);
        all.extend(environment::release_variables(
            &self.command.env,
            release,
            address,
            &self.service,
        ));
        let marker = self.marker();
        all.extend(marker.variables().map(|(name, value)| (name.to_owned(), value.to_owned())));
        all
    }
}

fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
