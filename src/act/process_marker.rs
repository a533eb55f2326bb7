use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, kill_process_group};

/// Bytes of an environment that are read. The kernel allows more; we never write as much.
const ENVIRON_MAX: u64 = 2 * 1024 * 1024;

const OWNER_VARIABLE: &str = "ROLLBACKD_OWNER";
const SERVICE_VARIABLE: &str = "ROLLBACKD_SERVICE";
const SLOT_VARIABLE: &str = "ROLLBACKD_SLOT";
const NUMBER_VARIABLE: &str = "ROLLBACKD_NUMBER";

/// How long a process may take to vanish after SIGKILL. Only a broken disk or driver needs longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often we look whether a process that is no child of ours is still there.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Whose a process is. It is in the environment of all that a release starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessMarker {
    pub(super) owner: String,
    pub(super) service: String,
    pub(super) slot: String,
    pub(super) number: String,
}

/// A live process that carries a mark.
#[derive(Debug)]
pub(super) struct MarkedProcess {
    pub(super) pid: i32,
    pub(super) parent_pid: i32,
    pub(super) process_group: i32,
    /// Clock ticks since the boot.
    pub(super) start_ticks: u64,
    pub(super) marker: ProcessMarker,
}

impl ProcessMarker {
    /// The variables that carry it.
    pub(super) fn variables(&self) -> [(&'static str, &str); 4] {
        [
            (OWNER_VARIABLE, &self.owner),
            (SERVICE_VARIABLE, &self.service),
            (SLOT_VARIABLE, &self.slot),
            (NUMBER_VARIABLE, &self.number),
        ]
    }

    /// The process groups with a live process that carries it.
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
        // Never ourselves, whatever a release did with its group.
        groups.into_iter().filter_map(Pid::from_raw).filter(|group| *group != getpgrp()).collect()
    }

    /// Signals all that carry it, and the group of `leader`, which is alive.
    pub(super) async fn signal(&self, leader: Option<Pid>, signal: Signal) -> Result<(), String> {
        let mut groups = self.live_groups().await;
        groups.extend(leader.filter(|leader| !groups.contains(leader)));
        let mut result = Ok(());
        for group in groups {
            match kill_process_group(group, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    result = Err(format!("process group {group} can not be signalled: {error}"));
                }
            }
        }
        result
    }

    /// Waits until nothing that carries it is alive.
    pub(super) async fn wait_until_gone(&self) {
        while !self.live_groups().await.is_empty() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// SIGTERM, then SIGKILL after `stop_timeout`, until `gone` says that it is over.
    pub(super) async fn terminate<T>(
        &self,
        leader: impl Fn() -> Option<Pid>,
        stop_timeout: Duration,
        gone: impl Future<Output = T>,
    ) -> Result<T, String> {
        tokio::pin!(gone);
        // A signal that is not allowed shows in the wait; the wait then says why.
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

/// The live processes of a service, the oldest first. Those that may not be read are left out.
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
    // A program's name may hold spaces and brackets; the last bracket ends it.
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
