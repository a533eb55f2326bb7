use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::pids::signal;

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

impl ReleaseProcess {
    /// As a crash would.
    pub(crate) fn kill(&self) {
        signal(self.pid, Signal::KILL);
    }
}
