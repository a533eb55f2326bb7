//! Takes a new configuration: what took effect, and what waits for the next deploy.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Service;
use crate::model::{ReleaseNumber, TimelineEvent};
use crate::service::changes::Changes;
use crate::service::machine_settings::machine_settings;
use crate::service::service_loop::ServiceLoop;

impl ServiceLoop {
    /// Applies the settings, and logs what became of each that differs.
    pub(super) fn reload(&mut self, service: Arc<Service>) -> Changes {
        let changes = Changes::between(&self.service, &service);
        let now = self.clock.now();
        self.machine.configure(now, machine_settings(&service));
        self.proxy.configure(&service);
        // A setting that is what it was at the deploy waits no longer.
        self.awaits_deploy = Changes::between(&self.deployed_with, &service).next_deploy;
        self.service = service;
        self.sync_bake(now);
        self.publish_phase();
        let name = &self.service.name;
        for (names, when) in [
            (&changes.now, "in effect now"),
            (&changes.next_deploy, "in effect with the next deploy; what runs keeps the old ones"),
        ] {
            if !names.is_empty() {
                let names: Vec<_> = names.iter().copied().collect();
                tracing::info!(service = name, "new configuration, {when}: {}", names.join(", "));
            }
        }
        self.record_reload(&changes);
        changes
    }

    /// A later incident may have its cause here: the timeline says which settings changed, and when.
    fn record_reload(&mut self, changes: &Changes) {
        let names = |of: &BTreeSet<&str>| of.iter().copied().map(str::to_owned).collect::<Vec<_>>();
        let (now, next_deploy) = (names(&changes.now), names(&changes.next_deploy));
        // Before the first deploy there is no timeline.
        if (now.is_empty() && next_deploy.is_empty()) || self.watch().deploy() == ReleaseNumber(0) {
            return;
        }
        let parts = [(&now, "now"), (&next_deploy, "with the next deploy")];
        let parts = parts.iter().filter(|(names, _)| !names.is_empty());
        let parts: Vec<_> =
            parts.map(|(names, when)| format!("{when}: {}", names.join(", "))).collect();
        let because = format!("the configuration was reloaded; {}", parts.join("; "));
        let event = TimelineEvent::Reloaded { now, next_deploy };
        let _ = self.record_and_apply(self.machine.fact(event, because));
    }

    /// A deploy begins: it has all settings.
    pub(super) fn settings_deployed(&mut self) {
        self.deployed_with = Arc::clone(&self.service);
        self.awaits_deploy.clear();
    }
}
