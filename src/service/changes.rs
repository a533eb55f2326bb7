//! The settings that differ between two configurations of a service, and when each takes effect.

use std::collections::BTreeSet;

use crate::config::{ProbeSettings, ProxyLimits, Runtime, ScrapeSettings, Service};
use crate::judge::{Indicator, Objective, SloSettings};

/// The settings that differ between two configurations of a service, by name. Those that need a
/// restart are not among them: the daemon keeps the old ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In effect now, also for a bake that runs.
    pub now: BTreeSet<&'static str>,
    /// In effect for the releases of the next deploy.
    pub next_deploy: BTreeSet<&'static str>,
}

impl Changes {
    /// What differs.
    pub(crate) fn between(old: &Service, new: &Service) -> Self {
        let mut changes = Self::default();
        changes.add_proxy(old, new);
        changes.add_policy(old, new);
        changes.add_limits(&old.limits, &new.limits);
        changes.add_judged(&old.slo, &new.slo);
        changes.add_probe(&old.probe, &new.probe);
        changes.add_scrape(old.scrape.as_ref(), new.scrape.as_ref());
        changes.add_runtime(old, new);
        changes
    }

    fn add_proxy(&mut self, old: &Service, new: &Service) {
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
    }

    fn add_policy(&mut self, old: &Service, new: &Service) {
        let mut now = |name, differs| _ = differs && self.now.insert(name);
        let (before, after) = (&old.policy, &new.policy);
        now("mode", before.observe != after.observe);
        now("bake", before.bake != after.bake);
        now("drain_timeout", before.drain_timeout != after.drain_timeout);
        now("rollbacks_per_day", before.rollbacks_per_day_max != after.rollbacks_per_day_max);
        now("session_cost", before.session_cost.to_bits() != after.session_cost.to_bits());
        now("ramp", before.ramp.shares_ppm != after.ramp.shares_ppm);
        now("ramp_step", before.ramp.step_max != after.ramp.step_max);
        now("ramp_wait", before.ramp.waits != after.ramp.waits);
        now("control", before.ramp.control_min != after.ramp.control_min);
        let waits = |slo: &SloSettings| slo.scrape.map(|it| it.extend_bake);
        now("scrape.no_data", waits(&old.slo) != waits(&new.slo));
        if before.start_timeout != after.start_timeout {
            self.next_deploy.insert("start_timeout");
        }
    }

    /// What evidence is weighed against: a bake that runs keeps it, or the evidence proves nothing.
    fn add_judged(&mut self, old: &SloSettings, new: &SloSettings) {
        let mut later = |name, differs| _ = differs && self.next_deploy.insert(name);
        let differs = |old: f64, new: f64| old.to_bits() != new.to_bits();
        for (indicator, name) in [
            (Indicator::Availability, "objective"),
            (Indicator::Latency, "latency.objective"),
            (Indicator::Tools, "tool_objective"),
            (Indicator::ClientFaults, "client_faults"),
            (Indicator::Scraped, "scrape.objective"),
        ] {
            later(name, objective(old, indicator) != objective(new, indicator));
        }
        later("max_false_rollback", differs(old.max_false_rollback, new.max_false_rollback));
        later("min_effect", differs(old.min_effect, new.min_effect));
        later("burst", old.burst != new.burst);
        later("baseline", old.baseline != new.baseline);
        later("shadow_calls", old.shadow_calls != new.shadow_calls);
        later("probe.failures", old.failed_probes_max != new.failed_probes_max);
    }

    fn add_probe(&mut self, old: &ProbeSettings, new: &ProbeSettings) {
        let mut later = |name, differs| _ = differs && self.next_deploy.insert(name);
        later("probe.kind", old.kind != new.kind);
        later("probe.every", old.interval != new.interval);
        later("probe.timeout", old.timeout != new.timeout);
        later("probe.ready", old.ready_after != new.ready_after);
    }

    fn add_scrape(&mut self, old: Option<&ScrapeSettings>, new: Option<&ScrapeSettings>) {
        let mut later = |name, differs| _ = differs && self.next_deploy.insert(name);
        let (Some(old), Some(new)) = (old, new) else {
            return later("scrape", old != new);
        };
        later("scrape.url", old.target != new.target);
        later("scrape.total", old.total != new.total);
        later("scrape.bad", old.bad != new.bad);
        later("scrape.every", old.interval != new.interval);
        later("scrape.timeout", old.timeout != new.timeout);
    }

    fn add_runtime(&mut self, old: &Service, new: &Service) {
        let mut later = |name, differs| _ = differs && self.next_deploy.insert(name);
        later("artifact", old.artifact != new.artifact);
        match (&old.runtime, &new.runtime) {
            (Runtime::Command(old), Runtime::Command(new)) => {
                later("command", old.argv != new.argv);
                later("env", old.env != new.env);
                later("dir", old.working_dir != new.working_dir);
                later("stop_timeout", old.stop_timeout != new.stop_timeout);
            }
            (Runtime::Systemd(old), Runtime::Systemd(new)) => {
                later("env", old.env != new.env);
                later("stop_timeout", old.stop_timeout != new.stop_timeout);
                later("warm_weight", old.warm_weight != new.warm_weight);
            }
            (old, new) => later("runtime", old != new),
        }
    }

    fn add_limits(&mut self, old: &ProxyLimits, new: &ProxyLimits) {
        let mut now = |name, differs| _ = differs && self.now.insert(name);
        now("deadline", old.deadline != new.deadline);
        now("latency.under", old.slow_after != new.slow_after);
        now("sse_ping", old.sse_ping != new.sse_ping);
        now("shadow_calls", old.shadow_calls_per_second != new.shadow_calls_per_second);
        now("repeatable_tools", old.repeatable_tools != new.repeatable_tools);
        now("limits.body", old.body_max != new.body_max);
        now("limits.session_memory", old.session_bytes_max != new.session_bytes_max);
        now("limits.session_idle", old.session_idle != new.session_idle);
        now("limits.session_move", old.migration_timeout != new.migration_timeout);
        now("limits.streams", old.streams_max != new.streams_max);
        now("limits.client_idle", old.client_idle != new.client_idle);
    }
}

fn objective(slo: &SloSettings, indicator: Indicator) -> Option<&Objective> {
    slo.objectives.iter().find(|it| it.indicator == indicator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(settings: &str) -> Service {
        let text = format!(
            "[service.x]\nlisten = \"127.0.0.1:8080\"\nruntime = \"command\"\n\
             command = [\"/x/{{version}}\"]\n\
             slots = {{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }}\n{settings}"
        );
        let loaded = crate::config::parse("x", &text).unwrap_or_else(|it| panic!("{it}"));
        loaded.settings.services.into_values().next().unwrap()
    }

    /// A setting that this file does not know would change in silence.
    #[test]
    fn each_setting_says_when_it_takes_effect() {
        let base = service("");
        for (setting, wanted) in [
            ("mode = \"observe\"", "now mode"),
            ("bake = \"31m\"", "now bake"),
            ("deadline = \"50s\"", "now deadline"),
            ("sse_ping = \"off\"", "now sse_ping"),
            ("hosts = [\"example.org\"]", "now hosts"),
            ("[service.x.limits]\nbody = \"1MiB\"", "now limits.body"),
            ("[service.x.limits]\nstreams = 3", "now limits.streams"),
            ("objective = \"99%\"", "deploy objective"),
            ("tool_objective = \"off\"", "deploy tool_objective"),
            ("client_faults = \"off\"", "deploy client_faults"),
            ("latency = { under = \"1s\" }", "now latency.under, deploy latency.objective"),
            ("burst = \"7s\"", "deploy burst"),
            ("start_timeout = \"7s\"", "deploy start_timeout"),
            ("env = { A = \"b\" }", "deploy env"),
            ("artifact = \"path\"", "deploy artifact"),
            ("[service.x.probe]\nevery = \"2s\"", "deploy probe.every"),
            ("[service.x.probe]\nfailures = 5", "deploy probe.failures"),
        ] {
            let Changes { now, next_deploy } = Changes::between(&base, &service(setting));
            let now = now.iter().map(|it| format!("now {it}"));
            let all: Vec<_> =
                now.chain(next_deploy.iter().map(|it| format!("deploy {it}"))).collect();
            assert_eq!(all.join(", "), wanted, "{setting}");
        }
    }

    #[test]
    fn the_same_settings_are_no_change() {
        assert_eq!(Changes::between(&service(""), &service("")), Changes::default());
    }
}
