//! What still runs of releases that nobody needs: processes and units of ours.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::act::{self, Orphan, Unit};
use crate::bus::Bus;
use crate::config::{Runtime, Service};
use crate::model::{Number, Release, Slot};

/// Where to look for what is left over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub bus: &'a Bus,
    pub state_dir: &'a Path,
    pub service: &'a Arc<Service>,
}

impl Place<'_> {
    /// Stops what belongs to none of the releases in `needed`; a task for each slot that has something.
    pub(super) fn tidy(self, needed: &[&Release]) -> Vec<(Slot, JoinHandle<()>)> {
        let wanted = |number: Number| needed.iter().any(|it| it.number == number);
        match &self.service.runtime {
            Runtime::External => Vec::new(),
            Runtime::Command(_) => {
                let mut slots = std::collections::BTreeMap::<Slot, Vec<Orphan>>::new();
                for orphan in self.orphans(|number| !wanted(number)) {
                    slots.entry(orphan.slot.clone()).or_default().push(orphan);
                }
                let stop = |(slot, orphans)| {
                    (slot, tokio::spawn(stop_orphans(orphans, Arc::clone(self.service))))
                };
                slots.into_iter().map(stop).collect()
            }
            // The unit of a slot that is needed may be the last healthy copy.
            Runtime::Systemd(template) => {
                let free = |slot: &&Slot| needed.iter().all(|it| it.slot != **slot);
                let slots = self.service.slots.keys().filter(free);
                let (name, dir) = (&self.service.name, self.state_dir);
                let stop = |slot: &Slot| {
                    let unit = template.instance(slot);
                    let is_ours = Unit::was_started(dir, name, slot);
                    let stop = stop_unit(self.bus.clone(), unit, template.stop);
                    is_ours.then(|| (slot.clone(), tokio::spawn(stop)))
                };
                slots.filter_map(stop).collect()
            }
        }
    }

    /// Stops what is left of one release, which no task of ours keeps.
    pub(super) fn stop(self, release: &Release) -> impl Future<Output = ()> + Send + 'static {
        let number = release.number;
        let orphans = self.orphans(|known| known == number);
        let service = Arc::clone(self.service);
        let unit = match &service.runtime {
            Runtime::Systemd(template) => {
                let unit = template.instance(&release.slot);
                Some(stop_unit(self.bus.clone(), unit, template.stop))
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

    fn orphans(self, unwanted: impl Fn(Number) -> bool) -> Vec<Orphan> {
        let found = match self.service.runtime {
            Runtime::Command(_) => act::orphans(self.state_dir, &self.service.name),
            Runtime::External | Runtime::Systemd(_) => Vec::new(),
        };
        found.into_iter().filter(|orphan| unwanted(orphan.number)).collect()
    }
}

async fn stop_unit(bus: Bus, unit: String, patience: std::time::Duration) {
    match bus.state(&unit).await {
        Ok(state) if state.active != "inactive" => {
            tracing::info!(unit, "stops a unit that no release needs");
            if let Err(why) = bus.stop(&unit, patience).await {
                tracing::error!(unit, "{why}");
            }
        }
        Ok(_) => (),
        Err(why) => tracing::error!(unit, "{why}"),
    }
}

async fn stop_orphans(orphans: Vec<Orphan>, service: Arc<Service>) {
    let Runtime::Command(command) = &service.runtime else { return };
    for orphan in orphans {
        let (slot, service) = (&orphan.slot, &service.name);
        tracing::warn!(service, %slot, "stops a process that is left over");
        if let Err(why) = orphan.stop(command.stop).await {
            tracing::error!(service, "failed to stop: {why}");
        }
    }
}
