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
        self.now.extend(differing([
            ("path", old.path != new.path),
            ("path_case", old.path_case_exact != new.path_case_exact),
            ("hosts", old.hosts != new.hosts),
            ("origins", old.origins != new.origins),
            ("trusted_proxies", old.trusted_proxies != new.trusted_proxies),
            ("upstream_host", old.upstream_host != new.upstream_host),
            ("slots", old.slots != new.slots),
            ("keep_artifacts", old.keep_artifacts != new.keep_artifacts),
            ("session_state", old.session_state != new.session_state),
            ("move_sessions", old.move_sessions != new.move_sessions),
        ]));
    }

    fn add_policy(&mut self, old: &Service, new: &Service) {
        let (before, after) = (&old.policy, &new.policy);
        let waits = |slo: &SloSettings| slo.scrape.map(|it| it.extend_bake);
        self.now.extend(differing([
            ("mode", before.observe != after.observe),
            ("bake", before.bake != after.bake),
            ("drain_timeout", before.drain_timeout != after.drain_timeout),
            ("after_bake", before.after_bake != after.after_bake),
            ("rollbacks_per_day", before.rollbacks_per_day_max != after.rollbacks_per_day_max),
            ("session_cost", before.session_cost.to_bits() != after.session_cost.to_bits()),
            ("ramp_step", before.ramp.step_max != after.ramp.step_max),
            ("ramp_wait", before.ramp.waits != after.ramp.waits),
            ("control", before.ramp.control_min != after.ramp.control_min),
            ("scrape.no_data", waits(&old.slo) != waits(&new.slo)),
        ]));
        self.next_deploy.extend(differing([
            ("start_timeout", before.start_timeout != after.start_timeout),
            // A ramp that runs keeps the steps that its deploy chose.
            ("ramp", before.ramp.shares != after.ramp.shares),
        ]));
    }

    /// What evidence is weighed against: a bake that runs keeps it, or the evidence proves nothing.
    fn add_judged(&mut self, old: &SloSettings, new: &SloSettings) {
        let differs = |old: f64, new: f64| old.to_bits() != new.to_bits();
        let objectives = [
            (Indicator::Availability, "objective"),
            (Indicator::Latency, "latency.objective"),
            (Indicator::Tools, "tool_objective"),
            (Indicator::ClientFaults, "client_faults"),
            (Indicator::Scraped, "scrape.objective"),
        ];
        self.next_deploy.extend(differing(
            objectives.map(|(it, name)| (name, objective(old, it) != objective(new, it))),
        ));
        self.next_deploy.extend(differing([
            ("max_false_rollback", differs(old.max_false_rollback, new.max_false_rollback)),
            ("min_effect", differs(old.min_effect, new.min_effect)),
            ("burst", old.burst != new.burst),
            ("baseline", old.baseline != new.baseline),
            ("shape", old.shape != new.shape),
            ("slowdown", old.slowdown != new.slowdown),
            ("shadow_calls", old.shadow_calls != new.shadow_calls),
            ("probe.failures", old.failed_probes_max != new.failed_probes_max),
        ]));
    }

    fn add_probe(&mut self, old: &ProbeSettings, new: &ProbeSettings) {
        self.next_deploy.extend(differing([
            ("probe.kind", old.kind != new.kind),
            ("probe.every", old.interval != new.interval),
            ("probe.timeout", old.timeout != new.timeout),
            ("probe.ready", old.ready_after != new.ready_after),
        ]));
    }

    fn add_scrape(&mut self, old: Option<&ScrapeSettings>, new: Option<&ScrapeSettings>) {
        let (Some(old), Some(new)) = (old, new) else {
            return self.next_deploy.extend(differing([("scrape", old != new)]));
        };
        self.next_deploy.extend(differing([
            ("scrape.url", old.target != new.target),
            ("scrape.total", old.total != new.total),
            ("scrape.bad", old.bad != new.bad),
            ("scrape.every", old.interval != new.interval),
            ("scrape.timeout", old.timeout != new.timeout),
        ]));
    }

    fn add_runtime(&mut self, old: &Service, new: &Service) {
        self.next_deploy.extend(differing([("artifact", old.artifact != new.artifact)]));
        match (&old.runtime, &new.runtime) {
            (Runtime::Command(old), Runtime::Command(new)) => self.next_deploy.extend(differing([
                ("command", old.argv != new.argv),
                ("env", old.env != new.env),
                ("dir", old.working_dir != new.working_dir),
                ("user", old.user != new.user),
                ("stop_timeout", old.stop_timeout != new.stop_timeout),
            ])),
            (Runtime::Systemd(old), Runtime::Systemd(new)) => self.next_deploy.extend(differing([
                ("env", old.env != new.env),
                ("stop_timeout", old.stop_timeout != new.stop_timeout),
                ("warm_weight", old.warm_weight != new.warm_weight),
            ])),
            (old, new) => self.next_deploy.extend(differing([("runtime", old != new)])),
        }
    }

    fn add_limits(&mut self, old: &ProxyLimits, new: &ProxyLimits) {
        // All fields by name: a new one does not compile before it is here.
        let ProxyLimits {
            deadline,
            slow_after,
            address_connections_max,
            address_sessions_max,
            min_rate,
            client_idle,
            sse_ping,
            body_max,
            session_bytes_max,
            streams_max,
            session_idle,
            migration_timeout,
            shadow_calls_per_second,
            repeatable_tools,
            // These two need a restart, and the next two are no settings.
            connections_max: _,
            sessions_max: _,
            header_timeout: _,
            unread_timeout: _,
        } = old;
        self.now.extend(differing([
            ("deadline", *deadline != new.deadline),
            ("latency.under", *slow_after != new.slow_after),
            ("sse_ping", *sse_ping != new.sse_ping),
            ("shadow_calls", *shadow_calls_per_second != new.shadow_calls_per_second),
            ("repeatable_tools", *repeatable_tools != new.repeatable_tools),
            (
                "limits.connections_per_address",
                *address_connections_max != new.address_connections_max,
            ),
            ("limits.new_sessions_per_address", *address_sessions_max != new.address_sessions_max),
            ("limits.min_rate", *min_rate != new.min_rate),
            ("limits.body", *body_max != new.body_max),
            ("limits.session_memory", *session_bytes_max != new.session_bytes_max),
            ("limits.session_idle", *session_idle != new.session_idle),
            ("limits.session_move", *migration_timeout != new.migration_timeout),
            ("limits.streams", *streams_max != new.streams_max),
            ("limits.client_idle", *client_idle != new.client_idle),
        ]));
    }
}

/// The names of those that differ.
fn differing<const N: usize>(
    settings: [(&'static str, bool); N],
) -> impl Iterator<Item = &'static str> {
    settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
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
            ("[service.x.limits]\nmin_rate = \"9B\"", "now limits.min_rate"),
            (
                "[service.x.limits]\nconnections_per_address = 9",
                "now limits.connections_per_address",
            ),
            (
                "[service.x.limits]\nnew_sessions_per_address = 9",
                "now limits.new_sessions_per_address",
            ),
            ("objective = \"99%\"", "deploy objective"),
            ("tool_objective = \"off\"", "deploy tool_objective"),
            ("client_faults = \"off\"", "deploy client_faults"),
            ("shape = \"act\"", "deploy shape"),
            ("slowdown = \"off\"", "deploy slowdown"),
            ("latency = { under = \"1s\" }", "now latency.under, deploy latency.objective"),
            ("burst = \"7s\"", "deploy burst"),
            ("start_timeout = \"7s\"", "deploy start_timeout"),
            ("ramp = [\"100%\"]", "deploy ramp"),
            ("ramp_step = \"1m\"", "now ramp_step"),
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
