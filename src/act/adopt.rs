use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::mark::{self, Found, Mark};
use super::output::Relay;
use super::process::{Leader, Process, Spec};
use crate::model::{Number, Slot};

impl Process {
    /// Finds a release that a daemon before us started and that still runs. Needs a tokio runtime.
    ///
    /// It is found by the marks in its environment. A program that writes over its own environment
    /// is not found.
    pub fn adopt(spec: &Spec) -> Option<Self> {
        let mark = spec.mark();
        let found = leaders(mark::find(&mark.owner, &mark.service))
            .into_iter()
            .find(|found| found.mark == mark)?;
        let pid = Pid::from_raw(found.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The number may have changed hands before it was opened; look again through the door we hold.
        if mark::look(found.pid)?.started != found.started {
            return None;
        }
        let leader = Leader::Adopted(pidfd);
        let relay = Relay::start(&spec.output_path(), &spec.service, &spec.release.version);
        Some(Self::hold(spec, leader, pid, relay))
    }
}

/// A release of a service that runs, whoever started it.
#[derive(Debug)]
pub struct Orphan {
    /// The deploy that brought it.
    pub number: Number,
    /// Where it runs.
    pub slot: Slot,
    /// The first of its processes that is still alive.
    pub pid: u32,
    mark: Mark,
}

/// Every release of the service that has a live process, those we hold included.
pub fn orphans(state_dir: &Path, service: &str) -> Vec<Orphan> {
    let mut all: Vec<Orphan> = Vec::new();
    for found in mark::find(&state_dir.display().to_string(), service) {
        if all.iter().all(|orphan| orphan.mark != found.mark) {
            all.extend(Orphan::of(found));
        }
    }
    all
}

impl Orphan {
    /// Ends every process of the release: SIGTERM, then SIGKILL after `patience`.
    ///
    /// # Errors
    /// Something is still alive after SIGKILL, or may not be signalled.
    pub async fn stop(self, patience: Duration) -> Result<(), String> {
        self.mark.end(|| None, patience, self.mark.vanished()).await
    }

    fn of(found: Found) -> Option<Self> {
        Some(Self {
            number: Number(found.mark.number.parse().ok()?),
            slot: Slot(found.mark.slot.clone()),
            pid: u32::try_from(found.pid).ok()?,
            mark: found.mark,
        })
    }
}

/// Those that lead a group and were started by none of the others. A browser that a release started
/// in a group of its own carries the same mark, but is not the release.
fn leaders(all: Vec<Found>) -> Vec<Found> {
    let numbers: Vec<_> = all.iter().map(|found| found.pid).collect();
    all.into_iter()
        .filter(|found| found.pid == found.group && !numbers.contains(&found.parent))
        .collect()
}
