//! Stops what no release needs any more: processes and units that an earlier daemon started.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::act;
use crate::act::{OrphanedRelease, Unit};
use crate::config::{Runtime, Service};
use crate::model::{Release, ReleaseNumber, Slot};
use crate::systemd::SystemdManager;

/// Where the releases of a service run.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotRuntime<'a> {
    pub manager: &'a SystemdManager,
    pub state_dir: &'a Path,
    pub service: &'a Arc<Service>,
}

impl SlotRuntime<'_> {
    /// Stops what belongs to none of the `needed` releases, in each slot where something runs.
    pub(super) fn stop_unneeded(self, needed: &[&Release]) -> Vec<(Slot, BoxFuture<'static, ()>)> {
        let is_needed = |number: ReleaseNumber| needed.iter().any(|it| it.number == number);
        match &self.service.runtime {
            Runtime::External => Vec::new(),
            Runtime::Command(_) => {
                let mut slots = BTreeMap::<Slot, Vec<OrphanedRelease>>::new();
                for orphan in self.orphans(|number| !is_needed(number)) {
                    slots.entry(orphan.slot.clone()).or_default().push(orphan);
                }
                let stop = |(slot, orphans)| {
                    let stop = stop_orphans(orphans, Arc::clone(self.service));
                    (slot, stop.boxed())
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
                    was_started.then(|| (slot.clone(), stop.boxed()))
                };
                slots.filter_map(stop).collect()
            }
        }
    }

    /// Stops what runs of one release that has no supervisor in this daemon.
    pub(super) fn stop_release(
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

    /// How long the processes of releases had run when this daemon started.
    pub(super) fn process_ages(self) -> BTreeMap<ReleaseNumber, Duration> {
        let orphans = self.orphans(|_| true).into_iter();
        orphans.map(|orphan| (orphan.number, orphan.age_at_start)).collect()
    }

    fn orphans(self, is_wanted: impl Fn(ReleaseNumber) -> bool) -> Vec<OrphanedRelease> {
        let found = match self.service.runtime {
            Runtime::Command(_) => act::find_orphans(self.state_dir, &self.service.name),
            Runtime::External | Runtime::Systemd(_) => Vec::new(),
        };
        found.into_iter().filter(|orphan| is_wanted(orphan.number)).collect()
    }
}

async fn stop_unit(manager: SystemdManager, unit: String, timeout: Duration) {
    match manager.unit_state(&unit).await {
        Ok(state) if state.active_state != "inactive" => {
            tracing::info!(unit, "stopping a unit that no release needs");
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
        tracing::warn!(service, %slot, "stopping a process that no release needs");
        if let Err(error) = orphan.stop(command.stop_timeout).await {
            tracing::error!(service, "cannot stop the process: {error}");
        }
    }
}
