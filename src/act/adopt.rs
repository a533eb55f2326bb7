use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::process::{GroupLeader, Process, ProcessSpec};
use crate::act::log_forwarder::LogForwarder;
use crate::act::process_marker;
use crate::act::process_marker::{MarkedProcess, ProcessMarker};
use crate::model::{ReleaseNumber, Slot};

impl Process {
    /// Finds a release that a daemon before us started and that still runs. Needs a tokio runtime.
    ///
    /// It is found by the marks in its environment. A program that writes over its own environment
    /// is not found.
    pub fn adopt(spec: &ProcessSpec) -> Option<Self> {
        let marker = spec.marker();
        let found = group_leaders(process_marker::find_processes(&marker.owner, &marker.service))
            .into_iter()
            .find(|found| found.marker == marker)?;
        let pid = Pid::from_raw(found.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The number may have changed hands before it was opened; look again through the door we hold.
        if process_marker::inspect_process(found.pid)?.start_ticks != found.start_ticks {
            return None;
        }
        let leader = GroupLeader::Adopted(pidfd);
        let relay = LogForwarder::start(&spec.output_path(), &spec.service, &spec.release.version);
        Some(Self::from_parts(spec, leader, pid, relay))
    }
}

/// A release of a service that runs, whoever started it.
#[derive(Debug)]
pub struct OrphanedRelease {
    /// The deploy that brought it.
    pub number: ReleaseNumber,
    /// Where it runs.
    pub slot: Slot,
    /// The first of its processes that is still alive.
    pub pid: u32,
    marker: ProcessMarker,
}

/// Every release of the service that has a live process, those we hold included.
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
    /// Ends every process of the release: SIGTERM, then SIGKILL after `stop_timeout`.
    ///
    /// # Errors
    /// Something is still alive after SIGKILL, or may not be signalled.
    pub async fn stop(self, stop_timeout: Duration) -> Result<(), String> {
        self.marker.terminate(|| None, stop_timeout, self.marker.wait_until_gone()).await
    }

    fn from_process(found: MarkedProcess) -> Option<Self> {
        Some(Self {
            number: ReleaseNumber(found.marker.number.parse().ok()?),
            slot: Slot(found.marker.slot.clone()),
            pid: u32::try_from(found.pid).ok()?,
            marker: found.marker,
        })
    }
}

/// Those that lead a group and were started by none of the others. A browser that a release started
/// in a group of its own carries the same mark, but is not the release.
fn group_leaders(all: Vec<MarkedProcess>) -> Vec<MarkedProcess> {
    let pids: Vec<_> = all.iter().map(|found| found.pid).collect();
    all.into_iter()
        .filter(|found| found.pid == found.process_group && !pids.contains(&found.parent_pid))
        .collect()
}
