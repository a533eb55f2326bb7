use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::process::{GroupLeader, Process, ProcessSpec};
use crate::act::log_forwarder::LogForwarder;
use crate::act::process_marker;
use crate::act::process_marker::{MarkedProcess, ProcessMarker};
use crate::model::{ReleaseNumber, Slot};

impl Process {
    /// Finds a running release that an earlier daemon started, by the marker in its environment. A
    /// program that overwrites its own environment is not found. Needs a tokio runtime.
    pub fn adopt(spec: &ProcessSpec) -> Option<Self> {
        let marker = spec.marker();
        let found = group_leaders(process_marker::find_processes(&marker.owner, &marker.service))
            .into_iter()
            .find(|found| found.marker == marker)?;
        let pid = Pid::from_raw(found.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Before the pidfd was open, the kernel may have given the pid to another process.
        if process_marker::inspect_process(found.pid)?.start_ticks != found.start_ticks {
            return None;
        }
        let log_forwarder =
            LogForwarder::start(&spec.output_path(), &spec.service, &spec.release.version);
        Some(Self::from_parts(spec, GroupLeader::Adopted(pidfd), pid, log_forwarder))
    }
}

/// A running release of a service, which this daemon may or may not know.
#[derive(Debug)]
pub struct OrphanedRelease {
    /// Its deploy.
    pub number: ReleaseNumber,
    /// Its slot.
    pub slot: Slot,
    /// Its oldest live process.
    pub pid: u32,
    /// How long that had run when this daemon started.
    pub age_at_start: Duration,
    marker: ProcessMarker,
}

/// Every release of the service that has a live process, including those of this daemon.
pub fn find_orphans(state_dir: &Path, service: &str) -> Vec<OrphanedRelease> {
    let mut all: Vec<OrphanedRelease> = Vec::new();
    for found in process_marker::find_processes(&state_dir.display().to_string(), service) {
        if all.iter().all(|orphan| orphan.marker != found.marker) {
            all.extend(OrphanedRelease::from_process(found));
        }
    }
    all
}

impl OrphanedRelease {
    /// Stops every process of the release: SIGTERM, then SIGKILL after `stop_timeout`.
    ///
    /// # Errors
    /// A process survives SIGKILL, or the daemon may not signal it.
    pub async fn stop(self, stop_timeout: Duration) -> Result<(), String> {
        self.marker.terminate(|| None, stop_timeout, self.marker.wait_until_gone()).await
    }

    fn from_process(found: MarkedProcess) -> Option<Self> {
        Some(Self {
            number: ReleaseNumber(found.marker.number.parse().ok()?),
            slot: Slot(found.marker.slot.clone()),
            pid: u32::try_from(found.pid).ok()?,
            age_at_start: process_marker::age_at_own_start(found.start_ticks),
            marker: found.marker,
        })
    }
}

/// The group leaders whose parent is not in the list. A browser that a release starts in its own
/// group carries the same marker, but is not the release.
fn group_leaders(all: Vec<MarkedProcess>) -> Vec<MarkedProcess> {
    let pids: Vec<_> = all.iter().map(|found| found.pid).collect();
    all.into_iter()
        .filter(|found| found.pid == found.process_group && !pids.contains(&found.parent_pid))
        .collect()
}
