use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReleaseProcess {
    pub(crate) number: u32,
    pub(crate) slot: String,
    pub(crate) pid: i32,
}

/// The processes of releases that a daemon with this state directory started.
pub(crate) fn release_processes(state: &Path) -> Vec<ReleaseProcess> {
    let owner = format!("ROLLBACKD_OWNER={}", state.display());
    let mut all: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|found| found.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let environ = String::from_utf8_lossy(&environ).into_owned();
            let mut pairs = environ.split('\0');
            pairs.clone().find(|pair| *pair == owner)?;
            let number = pairs.clone().find_map(|pair| pair.strip_prefix("ROLLBACKD_NUMBER="))?;
            let slot = pairs.find_map(|pair| pair.strip_prefix("ROLLBACKD_SLOT="))?.to_owned();
            Some(ReleaseProcess { number: number.parse().ok()?, slot, pid })
        })
        .collect();
    all.sort();
    all
}

/// Whether the process exists; a zombie does not count.
pub(crate) fn exists(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // The process may have exited.
        let _: Result<(), _> = kill_process(pid, signal);
    }
}

/// Memory in KiB, by a name of /proc/PID/status.
pub(crate) fn memory_kib(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// How many files a process has open.
pub(crate) fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

impl ReleaseProcess {
    /// As a crash would.
    pub(crate) fn kill(&self) {
        signal(self.pid, Signal::KILL);
    }
}
