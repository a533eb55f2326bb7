use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgrp, kill_process_group};

/// Bytes of an environment that are read. The kernel allows more; we never write as much.
const ENVIRON_MAX: u64 = 2 * 1024 * 1024;

const OWNER: &str = "ROLLBACKD_OWNER";
const SERVICE: &str = "ROLLBACKD_SERVICE";
const SLOT: &str = "ROLLBACKD_SLOT";
const NUMBER: &str = "ROLLBACKD_NUMBER";

/// How long a process may take to vanish after SIGKILL. Only a broken disk or driver needs longer.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// How often we look whether a process that is no child of ours is still there.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whose a process is. It is in the environment of all that a release starts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) owner: String,
    pub(super) service: String,
    pub(super) slot: String,
    pub(super) number: String,
}

/// A live process that carries a mark.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// Clock ticks since the boot.
    pub(super) started: u64,
    pub(super) mark: Mark,
}

impl Mark {
    /// The variables that carry it.
    pub(super) fn variables(&self) -> [(&'static str, &str); 4] {
        [(OWNER, &self.owner), (SERVICE, &self.service), (SLOT, &self.slot), (NUMBER, &self.number)]
    }

    /// The process groups with a live process that carries it.
    async fn groups(&self) -> Vec<Pid> {
        let mark = self.clone();
        let found = tokio::task::spawn_blocking(move || {
            find(&mark.owner, &mark.service)
                .into_iter()
                .filter(|found| found.mark == mark)
                .map(|found| found.group)
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
        let mut groups = self.groups().await;
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
    pub(super) async fn vanished(&self) {
        while !self.groups().await.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// SIGTERM, then SIGKILL after `patience`, until `gone` says that it is over.
    pub(super) async fn end<T>(
        &self,
        leader: impl Fn() -> Option<Pid>,
        patience: Duration,
        gone: impl Future<Output = T>,
    ) -> Result<T, String> {
        tokio::pin!(gone);
        // A signal that is not allowed shows in the wait; the wait then says why.
        let mut trouble = self.signal(leader(), Signal::TERM).await.err();
        if let Ok(how) = tokio::time::timeout(patience, &mut gone).await {
            return Ok(how);
        }
        if let Err(error) = self.signal(leader(), Signal::KILL).await {
            trouble = Some(error);
        }
        tokio::time::timeout(KILL_WAIT, &mut gone).await.map_err(|_| {
            let why = trouble.unwrap_or_else(|| "it did not end after SIGKILL".into());
            format!("{} in slot {} still runs: {why}", self.service, self.slot)
        })
    }
}

/// The live processes of a service, the oldest first. Those that may not be read are left out.
pub(super) fn find(owner: &str, service: &str) -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut all: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(look)
        .filter(|found| found.mark.owner == owner && found.mark.service == service)
        .collect();
    all.sort_by_key(|found| (found.started, found.pid));
    all
}

/// What a process says about itself; `None` when it is dead, not ours, or not to be read.
pub(super) fn look(pid: i32) -> Option<Found> {
    let folder = Path::new("/proc").join(pid.to_string());
    let mut environ = Vec::new();
    File::open(folder.join("environ")).ok()?.take(ENVIRON_MAX).read_to_end(&mut environ).ok()?;
    let variable = |name: &str| {
        environ.split(|byte| *byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    };
    let mark = Mark {
        owner: variable(OWNER)?,
        service: variable(SERVICE)?,
        slot: variable(SLOT)?,
        number: variable(NUMBER)?,
    };
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // A program's name may hold spaces and brackets; the last bracket ends it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(Found {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        mark,
    })
}
