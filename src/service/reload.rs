//! Takes a new configuration: what took effect, and what waits for the next deploy.

use std::sync::Arc;

use crate::config::Service;
use crate::service::changes::Changes;
use crate::service::machine_settings::machine_settings;
use crate::service::service_loop::ServiceLoop;

impl ServiceLoop {
    /// Applies the settings, and logs what became of each that differs.
    pub(super) fn reload(&mut self, service: Arc<Service>) -> Changes {
        let changes = Changes::between(&self.service, &service);
        self.machine.configure(machine_settings(&service));
        self.proxy.configure(&service);
        // A setting that is what it was at the deploy waits no longer.
        self.awaits_deploy = Changes::between(&self.deployed_with, &service).next_deploy;
        self.service = service;
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
        changes
    }

    /// A deploy begins: it has all settings.
    pub(super) fn settings_deployed(&mut self) {
        self.deployed_with = Arc::clone(&self.service);
        self.awaits_deploy.clear();
    }
}
