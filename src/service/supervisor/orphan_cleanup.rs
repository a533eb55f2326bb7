//! What still runs of releases that nobody needs: processes and units of ours.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::act;
use crate::act::{OrphanedRelease, Unit};
use crate::config::{Runtime, Service};
use crate::model::{Release, ReleaseNumber, Slot};
use crate::systemd::SystemdManager;

/// Where to look for what is left over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotRuntime<'a> {
    pub manager: &'a SystemdManager,
    pub state_dir: &'a Path,
    pub service: &'a Arc<Service>,
}

impl SlotRuntime<'_> {
    /// Stops what belongs to none of the releases in `needed`; a task for each slot that has something.
    pub(crate) fn stop_unneeded(self, needed: &[&Release]) -> Vec<(Slot, JoinHandle<()>)> {
        let is_needed = |number: ReleaseNumber| needed.iter().any(|it| it.number == number);
        match &self.service.runtime {
            Runtime::External => Vec::new(),
            Runtime::Command(_) => {
                let mut slots = std::collections::BTreeMap::<Slot, Vec<OrphanedRelease>>::new();
                for orphan in self.orphans(|number| !is_needed(number)) {
                    slots.entry(orphan.slot.clone()).or_default().push(orphan);
                }
                let stop = |(slot, orphans)| {
                    (slot, tokio::spawn(stop_orphans(orphans, Arc::clone(self.service))))
                };
                slots.into_iter().map(stop).collect()
            }
            // The unit of a slot that is needed may be the last healthy copy.
            Runtime::Systemd(template) => {
                let is_unused = |slot: &&Slot| needed.iter().all(|it| it.slot != **slot);
                let slots = self.service.slots.keys().filter(is_unused);
                let (name, dir) = (&self.service.name, self.state_dir);
                let stop = |slot: &Slot| {
                    let unit = template.unit_of(slot);
                    let was_started = Unit::was_started(dir, name, slot);
                    let stop = stop_unit(self.manager.clone(), unit, template.stop_timeout);
                    was_started.then(|| (slot.clone(), tokio::spawn(stop)))
                };
                slots.filter_map(stop).collect()
            }
        }
    }

    /// Stops what is left of one release, which no task of ours keeps.
    pub(crate) fn stop_release(
        self,
        release: &Release,
    ) -> impl Future<Output = ()> + Send + 'static {
        let number = release.number;
        let orphans = self.orphans(|number_found| number_found == number);
        let service = Arc::clone(self.service);
        let unit = match &service.runtime {
            Runtime::Systemd(template) => {
                let unit = template.unit_of(&release.slot);
                Some(stop_unit(self.manager.clone(), unit, template.stop_timeout))
            }
            Runtime::Command(_) | Runtime::External => None,
        };
        async move {
            stop_orphans(orphans, service).await;
            if let Some(stop) = unit {
                stop.await;
            }
        }
    }

    fn orphans(self, is_unneeded: impl Fn(ReleaseNumber) -> bool) -> Vec<OrphanedRelease> {
        let found = match self.service.runtime {
            Runtime::Command(_) => act::find_orphans(self.state_dir, &self.service.name),
            Runtime::External | Runtime::Systemd(_) => Vec::new(),
        };
        found.into_iter().filter(|orphan| is_unneeded(orphan.number)).collect()
    }
}

async fn stop_unit(manager: SystemdManager, unit: String, timeout: std::time::Duration) {
    match manager.unit_state(&unit).await {
        Ok(state) if state.active_state != "inactive" => {
            tracing::info!(unit, "stops a unit that no release needs");
            if let Err(error) = manager.stop(&unit, timeout).await {
                tracing::error!(unit, "{error}");
            }
        }
        Ok(_) => (),
        Err(error) => tracing::error!(unit, "{error}"),
    }
}

async fn stop_orphans(orphans: Vec<OrphanedRelease>, service: Arc<Service>) {
    let Runtime::Command(command) = &service.runtime else { return };
    for orphan in orphans {
        let (slot, service) = (&orphan.slot, &service.name);
        tracing::warn!(service, %slot, "stops a process that is left over");
        if let Err(error) = orphan.stop(command.stop_timeout).await {
            tracing::error!(service, "failed to stop: {error}");
        }
    }
}
