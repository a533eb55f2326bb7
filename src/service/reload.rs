//! Takes a new configuration: what took effect, and what waits for the next deploy.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::{ProxyLimits, Service};
use crate::judge::SloSettings;
use crate::service::service_loop::{ServiceLoop, machine_settings};

/// The settings that differ between two configurations of a service.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// In effect now, also for a bake that runs.
    now: BTreeSet<&'static str>,
    /// In effect for the releases of the next deploy.
    next_deploy: BTreeSet<&'static str>,
    /// In effect after a restart of the daemon.
    restart: BTreeSet<&'static str>,
}

impl ServiceLoop {
    /// Applies the settings, and logs what became of each that differs.
    pub(super) fn reload(&mut self, service: Arc<Service>) {
        let changes = Changes::between(&self.service, &service);
        self.machine.configure(machine_settings(&service));
        self.proxy.configure(&service);
        self.service = service;
        self.publish_phase();
        let name = &self.service.name;
        for (names, when) in [
            (&changes.now, "in effect now"),
            (&changes.next_deploy, "in effect with the next deploy; what runs keeps the old ones"),
            (&changes.restart, "in effect after `systemctl restart rollbackd`"),
        ] {
            if !names.is_empty() {
                let names: Vec<_> = names.iter().copied().collect();
                tracing::info!(service = name, "new configuration, {when}: {}", names.join(", "));
            }
        }
        self.awaits_deploy.extend(changes.next_deploy);
    }
}

impl Changes {
    fn between(old: &Service, new: &Service) -> Self {
        let mut changes = Self::default();
        changes.add_immediate(old, new);
        changes.add_judged(&old.slo, &new.slo);
        let mut later = |name, differs| _ = differs && changes.next_deploy.insert(name);
        later("probe", old.probe != new.probe);
        later("runtime", old.runtime != new.runtime || old.artifact != new.artifact);
        later("start_timeout", old.policy.start_timeout != new.policy.start_timeout);
        later("scrape", old.scrape != new.scrape);
        changes.add_limits(&old.limits, &new.limits);
        changes
    }

    fn add_immediate(&mut self, old: &Service, new: &Service) {
        let mut now = |name, differs| _ = differs && self.now.insert(name);
        now("path", old.path != new.path);
        now("path_case", old.path_case_exact != new.path_case_exact);
        now("hosts", old.hosts != new.hosts);
        now("origins", old.origins != new.origins);
        now("trusted_proxies", old.trusted_proxies != new.trusted_proxies);
        now("upstream_host", old.upstream_host != new.upstream_host);
        now("slots", old.slots != new.slots);
        now("keep_artifacts", old.keep_artifacts != new.keep_artifacts);
        now("session_state", old.session_state != new.session_state);
        now("move_sessions", old.migrate_on_accept != new.migrate_on_accept);
        let (before, after) = (&old.policy, &new.policy);
        now("mode", before.observe != after.observe);
        now("bake", before.bake != after.bake);
        now("drain_timeout", before.drain_timeout != after.drain_timeout);
        now("rollbacks_per_day", before.rollbacks_per_day_max != after.rollbacks_per_day_max);
        now("session_cost", before.session_cost.to_bits() != after.session_cost.to_bits());
        let waits = |slo: &SloSettings| slo.scrape.map(|it| it.extend_bake);
        now("scrape.no_data", waits(&old.slo) != waits(&new.slo));
    }

    /// What evidence is weighed against: a bake that runs keeps it, or the evidence proves nothing.
    fn add_judged(&mut self, old: &SloSettings, new: &SloSettings) {
        let mut later = |name, differs| _ = differs && self.next_deploy.insert(name);
        let differs = |old: f64, new: f64| old.to_bits() != new.to_bits();
        later("objectives", old.objectives != new.objectives);
        later("max_false_rollback", differs(old.max_false_rollback, new.max_false_rollback));
        later("min_effect", differs(old.min_effect, new.min_effect));
        later("burst", old.burst != new.burst);
        later("baseline", old.baseline != new.baseline);
        later("shadow_calls", old.shadow_calls != new.shadow_calls);
        later("probe.failures", old.failed_probes_max != new.failed_probes_max);
    }

    fn add_limits(&mut self, old: &ProxyLimits, new: &ProxyLimits) {
        let connections = old.connections_max != new.connections_max;
        let sessions = old.sessions_max != new.sessions_max;
        let mut restart = |name, differs| _ = differs && self.restart.insert(name);
        restart("limits.connections", connections);
        restart("limits.sessions", sessions);
        let others = ProxyLimits {
            connections_max: new.connections_max,
            sessions_max: new.sessions_max,
            ..old.clone()
        };
        if others != *new {
            self.now.insert("limits");
        }
    }
}
