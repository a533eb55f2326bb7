//! Markers in the environment of a release, by which the daemon finds all its processes.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, kill_process_group};

/// Bytes of an environment that are read. The daemon sets fewer, but a release may enlarge the
/// environment of its children; a marker behind the limit is not found.
const ENVIRON_MAX: u64 = 2 * 1024 * 1024;

const OWNER_VARIABLE: &str = "ROLLBACKD_OWNER";
const SERVICE_VARIABLE: &str = "ROLLBACKD_SERVICE";
const SLOT_VARIABLE: &str = "ROLLBACKD_SLOT";
const NUMBER_VARIABLE: &str = "ROLLBACKD_NUMBER";

/// How long a process may live after SIGKILL. Only a broken disk or driver needs longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the daemon checks a process that is not its child.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The daemon, service, slot and deploy of a process. All processes of a release inherit it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessMarker {
    pub(super) owner: String,
    pub(super) service: String,
    pub(super) slot: String,
    pub(super) number: String,
}

/// A live process with a marker.
#[derive(Debug)]
pub(super) struct MarkedProcess {
    pub(super) pid: i32,
    pub(super) parent_pid: i32,
    pub(super) process_group: i32,
    /// Its start, in clock ticks since the boot.
    pub(super) start_ticks: u64,
    pub(super) marker: ProcessMarker,
}

impl ProcessMarker {
    /// Its environment variables.
    pub(super) fn variables(&self) -> [(&'static str, &str); 4] {
        [
            (OWNER_VARIABLE, &self.owner),
            (SERVICE_VARIABLE, &self.service),
            (SLOT_VARIABLE, &self.slot),
            (NUMBER_VARIABLE, &self.number),
        ]
    }

    /// The process groups of the live processes with this marker.
    async fn live_groups(&self) -> Vec<Pid> {
        let marker = self.clone();
        let found = tokio::task::spawn_blocking(move || {
            find_processes(&marker.owner, &marker.service)
                .into_iter()
                .filter(|found| found.marker == marker)
                .map(|found| found.process_group)
                .collect::<Vec<_>>()
        })
        .await;
        let mut groups = found.unwrap_or_default();
        groups.sort_unstable();
        groups.dedup();
        // Never the daemon's own group, even if a release joined it.
        groups.into_iter().filter_map(Pid::from_raw).filter(|group| *group != getpgrp()).collect()
    }

    /// Signals the groups of all processes with this marker, and the group of `leader`, which runs.
    pub(super) async fn signal(&self, leader: Option<Pid>, signal: Signal) -> Result<(), String> {
        let mut groups = self.live_groups().await;
        groups.extend(leader.filter(|leader| !groups.contains(leader)));
        let mut result = Ok(());
        for group in groups {
            match kill_process_group(group, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    result = Err(format!("process group {group} cannot be signalled: {error}"));
                }
            }
        }
        result
    }

    /// Waits until no process with this marker runs.
    pub(super) async fn wait_until_gone(&self) {
        while !self.live_groups().await.is_empty() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Sends SIGTERM, then SIGKILL after `stop_timeout`, until `gone` completes.
    pub(super) async fn terminate<T>(
        &self,
        leader: impl Fn() -> Option<Pid>,
        stop_timeout: Duration,
        gone: impl Future<Output = T>,
    ) -> Result<T, String> {
        tokio::pin!(gone);
        // A signal that is denied makes the wait time out; its error is then the reason.
        let mut last_error = self.signal(leader(), Signal::TERM).await.err();
        if let Ok(how) = tokio::time::timeout(stop_timeout, &mut gone).await {
            return Ok(how);
        }
        if let Err(error) = self.signal(leader(), Signal::KILL).await {
            last_error = Some(error);
        }
        tokio::time::timeout(KILL_TIMEOUT, &mut gone).await.map_err(|_| {
            let why = last_error.unwrap_or_else(|| "it did not end after SIGKILL".into());
            format!("{} in slot {} still runs: {why}", self.service, self.slot)
        })
    }
}

/// The live processes of a service, oldest first. Processes that the daemon may not read are left out.
pub(super) fn find_processes(owner: &str, service: &str) -> Vec<MarkedProcess> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut all: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(inspect_process)
        .filter(|found| found.marker.owner == owner && found.marker.service == service)
        .collect();
    all.sort_by_key(|found| (found.start_ticks, found.pid));
    all
}

/// Clock ticks of /proc a second: USER_HZ, the same on all architectures of today.
const TICKS_PER_SECOND: u64 = 100;

/// How long a process that started then had run when this one started.
pub(super) fn age_at_own_start(start_ticks: u64) -> Duration {
    let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = own.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let own_start = fields.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok());
    let ticks = own_start.unwrap_or(0_u64).saturating_sub(start_ticks);
    Duration::from_millis(ticks.saturating_mul(1000) / TICKS_PER_SECOND)
}

/// What a process says about itself; `None` when it is dead, not ours, or not to be read.
pub(super) fn inspect_process(pid: i32) -> Option<MarkedProcess> {
    let folder = Path::new("/proc").join(pid.to_string());
    let mut environ = Vec::new();
    File::open(folder.join("environ")).ok()?.take(ENVIRON_MAX).read_to_end(&mut environ).ok()?;
    let variable = |name: &str| {
        environ.split(|byte| *byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    };
    let marker = ProcessMarker {
        owner: variable(OWNER_VARIABLE)?,
        service: variable(SERVICE_VARIABLE)?,
        slot: variable(SLOT_VARIABLE)?,
        number: variable(NUMBER_VARIABLE)?,
    };
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The command name may contain spaces and brackets; the last bracket ends it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(MarkedProcess {
        pid,
        parent_pid: fields.get(1)?.parse().ok()?,
        process_group: fields.get(2)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
        marker,
    })
}
