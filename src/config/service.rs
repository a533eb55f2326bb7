//! One service, `[service.NAME]`: its keys, and the settings of its topics together.
//!
//! A wrong value is replaced by its default, so that later checks still run. The settings are used
//! only if there was no error.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::Spanned;

use crate::config::address::{Address, AddressRegistry};
use crate::config::front;
use crate::config::hosts;
use crate::config::limits::{self, RawLimits};
use crate::config::name::check_name;
use crate::config::probe::{self, CheckedProbe, RawProbe};
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::ramp::{self, RawRamp};
use crate::config::range::span_of;
use crate::config::runtime::{self, RawRuntime};
use crate::config::scrape::{self, RawScrape};
use crate::config::settings::{Service, SessionState};
use crate::config::slo::{self, RawSlo};
use crate::config::thresholds::{self, RawObjectives};
use crate::config::toml_table::TomlTable;
use crate::config::value::{
    Raw, RawMap, address, duration_or_off, is_request_path, map_of, one_of, socket_address, string,
    string_list,
};
use crate::decide::{MoveSessions, RampShares};
use crate::model::Slot;

const SLOTS_EXAMPLE: &str = "{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }";

const SLOTS_MAX: usize = 16;

/// `[service.NAME]`.
pub(super) struct RawService {
    pub(super) name: Spanned<String>,
    pub(super) listen: Raw<SocketAddr>,
    pub(super) path: Raw<String>,
    pub(super) path_case: Raw<&'static str>,
    pub(super) hosts: Raw<Vec<Spanned<String>>>,
    pub(super) origins: Raw<Vec<Spanned<String>>>,
    pub(super) trusted_proxies: Raw<Vec<Spanned<String>>>,
    pub(super) upstream_host: Raw<String>,
    pub(super) sse_ping: Raw<Option<Duration>>,
    pub(super) mode: Raw<&'static str>,
    pub(super) session_state: Raw<&'static str>,
    pub(super) migrate_sessions: Raw<&'static str>,
    pub(super) ramp: RawRamp,
    pub(super) slots: Raw<RawMap<Address>>,
    pub(super) runtime: RawRuntime,
    pub(super) slo: RawSlo,
    pub(super) probe: RawProbe,
    pub(super) scrape: Option<RawScrape>,
    pub(super) limits: RawLimits,
}

/// Reads the table.
pub(super) fn read(
    mut table: TomlTable<'_>,
    name: Spanned<String>,
    problems: &mut Problems,
) -> RawService {
    let service = RawService {
        name,
        listen: table.required("listen", "\"127.0.0.1:8080\"", socket_address, problems),
        path: table.read("path", string, problems),
        path_case: table.read("path_case", one_of(["any", "exact"]), problems),
        hosts: table.read("hosts", string_list, problems),
        origins: table.read("origins", string_list, problems),
        trusted_proxies: table.read("trusted_proxies", string_list, problems),
        upstream_host: table.read("upstream_host", string, problems),
        sse_ping: table.read("sse_ping", duration_or_off, problems),
        mode: table.read("mode", one_of(["act", "observe"]), problems),
        session_state: table.read("session_state", one_of(["none", "soft", "hard"]), problems),
        migrate_sessions: table.read(
            "move_sessions",
            one_of(["auto", "rollback", "both"]),
            problems,
        ),
        ramp: ramp::read(&mut table, problems),
        slots: table.required("slots", SLOTS_EXAMPLE, map_of(address), problems),
        runtime: runtime::read(&mut table, problems),
        slo: slo::read(&mut table, problems),
        probe: probe::read(
            table.subtable("probe", "a probe", "[service.NAME.probe]", problems),
            problems,
        ),
        scrape: scrape::read(&mut table, problems),
        limits: limits::read(
            table.subtable("limits", "the limits", "[service.NAME.limits]", problems),
            problems,
        ),
    };
    table.reject_unknown_keys(problems);
    service
}

/// Checks a service, and returns its settings.
pub(super) fn check(
    raw: &RawService,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> Service {
    check_name("a service", &raw.name, problems);
    let listen = listen_address(raw, addresses, problems);
    let slots = slot_addresses(raw, addresses, problems);
    let service_span = raw.name.span();
    let runtime = runtime::check(&raw.runtime, service_span.clone(), &slots, problems);
    let CheckedProbe { settings: probe, failures_max } =
        probe::check(&raw.probe, service_span.clone(), problems);
    let mut slo = slo::slo_settings(&raw.slo, failures_max, probe.interval, problems);
    let bake_span = span_of(&raw.slo.bake);
    let scrape = scrape::check(raw.scrape.as_ref(), bake_span, &slots, &mut slo, problems);
    let observe = raw.mode.as_ref().is_some_and(|mode| *mode.get_ref() == "observe");
    let slot_names = slots.keys().cloned().collect();
    let mut policy = slo::policy(&raw.slo, observe, &probe, slo.bake, slot_names, problems);
    let session_state = session_state(&raw.session_state);
    let move_sessions = move_sessions(&raw.migrate_sessions, session_state);
    let stay = session_state == SessionState::Hard || move_sessions == MoveSessions::Rollback;
    policy.ramp = ramp::check(&raw.ramp, slo.bake, span_of(&raw.slo.bake), stay, problems);
    if matches!(&policy.ramp.shares, RampShares::Listed(shares) if !shares.is_empty()) {
        ramp::warn_stuck_sessions(&raw.session_state, &raw.migrate_sessions, problems);
    }
    let outcome_limits = slo::outcome_limits(&raw.slo, problems);
    let shadow_settings = slo::shadow_settings(&raw.slo, problems);
    let objectives = RawObjectives { slo: &raw.slo, probe: &raw.probe, service_span };
    thresholds::check_detectable(&objectives, &slo, &probe, &policy, problems);
    thresholds::warn_weak_evidence(&objectives, &slo, outcome_limits.deadline, problems);
    let limits = limits::check(
        &raw.limits,
        &raw.sse_ping,
        probe.timeout,
        outcome_limits,
        shadow_settings,
        problems,
    );
    Service {
        name: raw.name.get_ref().clone(),
        listen,
        path: endpoint_path(&raw.path, problems),
        path_case_exact: raw.path_case.as_ref().is_some_and(|it| *it.get_ref() == "exact"),
        hosts: hosts::served_hosts(&raw.hosts, listen, problems),
        origins: hosts::served_origins(&raw.origins, problems),
        trusted_proxies: front::trusted_proxies(&raw.trusted_proxies, problems),
        upstream_host: front::upstream_host(&raw.upstream_host, problems),
        runtime,
        artifact: runtime::artifact_kind(&raw.runtime),
        keep_artifacts: runtime::keep_artifacts(&raw.runtime, problems),
        slots,
        probe,
        scrape,
        slo,
        policy,
        session_state,
        move_sessions,
        limits,
    }
}

fn move_sessions(raw: &Raw<&'static str>, session_state: SessionState) -> MoveSessions {
    match raw.as_ref().map(|given| *given.get_ref()) {
        Some("both") => MoveSessions::Both,
        None | Some("auto") if session_state != SessionState::Hard => MoveSessions::Auto,
        _ => MoveSessions::Rollback,
    }
}

fn session_state(raw: &Raw<&'static str>) -> SessionState {
    match raw.as_ref().map(|given| *given.get_ref()) {
        Some("none") => SessionState::None,
        Some("hard") => SessionState::Hard,
        _ => SessionState::Soft,
    }
}

fn listen_address(
    raw: &RawService,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> SocketAddr {
    let Some(listen) = &raw.listen else {
        return SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    };
    let owner = format!("service `{}`", shorten(raw.name.get_ref()));
    let address = *listen.get_ref();
    addresses.claim(Address::Tcp(address), owner, listen.span(), problems);
    if address.port() == 0 {
        let what = "port 0 is a different port at each start: clients cannot find it";
        let help = "write a port from 1 to 65535";
        problems
            .push(Problem::warning(ProblemCode::RefusesClients, listen.span(), what).help(help));
    }
    if address.ip().is_unspecified() && raw.hosts.is_none() {
        let what = "the proxy refuses clients from outside: only the names of loopback \
                    are allowed";
        let help = "write hosts = [\"mcp.example.org\"], the names that clients use";
        problems
            .push(Problem::warning(ProblemCode::RefusesClients, listen.span(), what).help(help));
    }
    address
}

fn slot_addresses(
    raw: &RawService,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> BTreeMap<Slot, Address> {
    let Some(given) = &raw.slots else {
        return BTreeMap::new();
    };
    let count = given.get_ref().len();
    if !(2..=SLOTS_MAX).contains(&count) {
        let what = format!("`slots` has {count}; the new release and the warm one each need one");
        let help = format!("write 2 to {SLOTS_MAX} slots, such as blue and green");
        problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    }
    let mut slots = BTreeMap::new();
    let mut in_file_order: Vec<_> = given.get_ref().iter().collect();
    in_file_order.sort_by_key(|(slot, _)| slot.span().start);
    for (slot, address) in in_file_order.into_iter().take(SLOTS_MAX) {
        check_name("a slot", slot, problems);
        let owner =
            format!("slot `{}` of `{}`", shorten(slot.get_ref()), shorten(raw.name.get_ref()));
        if let Address::Tcp(tcp) = address.get_ref()
            && (tcp.ip().is_unspecified() || tcp.port() == 0)
        {
            let what = format!("{owner} is {tcp}, which is not reachable");
            let help = "write the IP address and the port of the release";
            problems.push(Problem::error(ProblemCode::BadValue, address.span(), what).help(help));
        }
        addresses.claim(address.get_ref().clone(), owner, address.span(), problems);
        slots.insert(Slot(slot.get_ref().clone()), address.get_ref().clone());
    }
    slots
}

fn endpoint_path(raw: &Raw<String>, problems: &mut Problems) -> String {
    let Some(given) = raw else {
        return "/mcp".to_owned();
    };
    let path = given.get_ref();
    if !is_request_path(path) || path.contains('?') {
        let what = format!("`path` is \"{}\", which is not a path", shorten(path));
        let help = "write a path that begins with /, without a query, such as \"/mcp\"";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    }
    path.clone()
}
