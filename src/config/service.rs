//! From what is written to [`ServerSettings`]. What is a problem is replaced by its default, so that the
//! checks behind it still run; the settings are used only if there was no error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use crate::config::address::AddressRegistry;
use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::range::{in_range, span_of};
use crate::config::raw::{Raw, RawConfig};
use crate::config::settings::{Address, ProxyLimits, Service, SessionState, Settings};
use crate::config::toml_table::shorten;
use crate::config::{probe, raw, runtime, scrape, slo, thresholds};
use crate::model::Slot;

/// The proxy closes a connection of a client that takes longer for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const NAME_MAX: usize = 32;
const SERVICES_MAX: usize = 256;
const SLOTS_MAX: usize = 16;

/// Everything is checked, and what is left out gets its default.
pub(super) fn build_settings(raw: &RawConfig, problems: &mut Problems) -> Settings {
    let path = |raw: &Raw<PathBuf>, default: &str| {
        raw.as_ref().map_or_else(|| PathBuf::from(default), |path| path.get_ref().clone())
    };
    let state_dir = path(&raw.state_dir, "/var/lib/rollbackd");
    let control_socket = path(&raw.control_socket, "/run/rollbackd/control.sock");
    check_service_count(raw, problems);
    let mut addresses = AddressRegistry::default();
    let at = span_of(&raw.control_socket).unwrap_or(0..0);
    let owner = "the control socket".to_owned();
    addresses.claim(Address::Unix(control_socket.clone()), owner, at, problems);
    let metrics = metrics(&raw.metrics, &mut addresses, problems);
    let podman = path(&raw.podman, "/run/podman/podman.sock");
    runtime::check_units_distinct(raw, problems);
    let services = raw.services.iter().take(SERVICES_MAX);
    let services = services
        .map(|raw| (raw.name.get_ref().clone(), service(raw, &mut addresses, problems)))
        .collect();
    Settings { state_dir, control_socket, metrics, podman, services }
}

/// Versions and names of tools are nobody's business outside: a collector runs on the host.
fn metrics(
    raw: &Raw<SocketAddr>,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> Option<SocketAddr> {
    let given = raw.as_ref()?;
    let address = *given.get_ref();
    if !address.ip().is_loopback() || address.port() == 0 {
        let what = format!("`metrics` is {address}, which is not a port on loopback");
        let help = "write \"127.0.0.1:9469\", and collect the metrics on this host";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    }
    let owner = "the metrics of the daemon".to_owned();
    addresses.claim(Address::Tcp(address), owner, given.span(), problems);
    Some(address)
}

fn check_service_count(raw: &RawConfig, problems: &mut Problems) {
    if raw.services.is_empty() {
        let what = "there is no service to watch";
        let help = "write [service.NAME], and below it listen, runtime, command and slots";
        problems.push(Problem::error(ProblemCode::Missing, 0..0, what).help(help));
    }
    if let Some(service) = raw.services.get(SERVICES_MAX) {
        let count = raw.services.len();
        let what = format!("there are {count} services; one daemon takes {SERVICES_MAX}");
        let help = "run a second daemon with its own file and state_dir";
        problems
            .push(Problem::error(ProblemCode::OutOfRange, service.name.span(), what).help(help));
    }
}

fn service(
    raw: &raw::RawService,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> Service {
    check_name("a service", &raw.name, problems);
    let listen = listen_address(raw, addresses, problems);
    let slots = slot_addresses(raw, addresses, problems);
    let runtime = runtime::check(raw, &slots, problems);
    let (probe, failures) = probe::check(raw, problems);
    let mut judge = slo::slo_settings(raw, failures, problems);
    let scrape = scrape::check(raw, &mut judge, problems);
    let order = slots.keys().cloned().collect();
    let policy = slo::policy(raw, &probe, judge.bake, order, problems);
    let counted = slo::outcome_limits(&raw.slo, problems);
    let repeated = slo::shadow_settings(&raw.slo, problems);
    thresholds::check_detectable(raw, &judge, &probe, &policy, problems);
    thresholds::warn_weak_evidence(raw, &judge, counted.deadline, problems);
    let limits = proxy_limits(&raw.limits, probe.timeout, counted, repeated, problems);
    Service {
        name: raw.name.get_ref().clone(),
        listen,
        path: endpoint_path(&raw.path, problems),
        hosts: served_hosts(raw, listen, problems),
        origins: served_origins(&raw.origins, problems),
        runtime,
        artifact: runtime::artifact_kind(&raw.runtime),
        keep_artifacts: runtime::keep_artifacts(&raw.runtime, problems),
        slots,
        probe,
        scrape,
        slo: judge,
        policy,
        session_state: session_state(&raw.session_state),
        migrate_on_accept: raw
            .migrate_sessions
            .as_ref()
            .is_some_and(|given| *given.get_ref() == "both"),
        limits,
    }
}

fn session_state(raw: &Raw<&'static str>) -> SessionState {
    match raw.as_ref().map(|given| *given.get_ref()) {
        Some("none") => SessionState::None,
        Some("hard") => SessionState::Hard,
        _ => SessionState::Soft,
    }
}

fn check_name(owner: &str, name: &Spanned<String>, problems: &mut Problems) {
    let text = name.get_ref();
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
    if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(plain) {
        return;
    }
    let shown = shorten(text).escape_debug().to_string();
    let what = format!("\"{shown}\" can not be the name of {owner}");
    let help = format!("write 1 to {NAME_MAX} small letters, digits and hyphens");
    problems.push(Problem::error(ProblemCode::BadName, name.span(), what).help(help));
}

fn listen_address(
    raw: &raw::RawService,
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
        let what = "port 0 is another port at each start: no client would find it";
        let help = "write a port from 1 to 65535";
        problems
            .push(Problem::warning(ProblemCode::RefusesClients, listen.span(), what).help(help));
    }
    if address.ip().is_unspecified() && raw.hosts.is_none() {
        let what = "clients from outside are refused: only the names of this machine's loopback \
                    are served";
        let help = "write hosts = [\"mcp.example.org\"], the names that clients use";
        problems
            .push(Problem::warning(ProblemCode::RefusesClients, listen.span(), what).help(help));
    }
    address
}

fn slot_addresses(
    raw: &raw::RawService,
    addresses: &mut AddressRegistry,
    problems: &mut Problems,
) -> BTreeMap<Slot, Address> {
    let Some(given) = &raw.slots else {
        return BTreeMap::new();
    };
    let count = given.get_ref().len();
    if !(2..=SLOTS_MAX).contains(&count) {
        let what = format!("`slots` has {count}; the new release and the warm one need one each");
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
            let what = format!("{owner} is {tcp}, where nothing can be reached");
            let help = "write the IP address and the port at which the release answers";
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
    if !probe::is_request_path(path) || path.contains('?') {
        let what = format!("`path` is \"{}\", which is not a path", shorten(path));
        let help = "write a path that begins with /, without a query, such as \"/mcp\"";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    }
    path.clone()
}

fn served_hosts(
    raw: &raw::RawService,
    listen: SocketAddr,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let Some(given) = &raw.hosts else {
        let mut hosts: BTreeSet<_> = ["localhost", "127.0.0.1", "[::1]"].map(String::from).into();
        if !listen.ip().is_unspecified() {
            hosts.insert(host_of_ip(listen.ip()));
        }
        return hosts;
    };
    for host in given.get_ref() {
        let text = host.get_ref();
        if text != "*" && !is_host(text) {
            let what = format!("\"{}\" is not a host as clients name it", shorten(text));
            let help = "write a name or an address, without scheme, port and path, such as \"mcp.example.org\" \
                        or \"[::1]\"; \"*\" for all";
            problems.push(Problem::error(ProblemCode::BadValue, host.span(), what).help(help));
        }
    }
    if given.get_ref().is_empty() {
        let what = "no host is served: every request would be refused";
        let help = "write hosts = [\"localhost\"], or leave hosts out for the loopback names";
        problems.push(Problem::error(ProblemCode::RefusesClients, given.span(), what).help(help));
    }
    lowercase_names(given, problems)
}

fn served_origins(raw: &Raw<Vec<Spanned<String>>>, problems: &mut Problems) -> BTreeSet<String> {
    let Some(given) = raw else {
        return BTreeSet::new();
    };
    for origin in given.get_ref() {
        let text = origin.get_ref();
        let host = text.split_once("://").filter(|(scheme, _)| {
            !scheme.is_empty() && scheme.chars().all(|it| it.is_ascii_alphanumeric() || it == '-')
        });
        let plain = host.is_some_and(|(_, host)| is_host(without_port(host)));
        if text != "*" && !plain {
            let what = format!("\"{}\" is not an origin", shorten(text));
            let help = "write scheme, host and port as browsers send them, without a path: \
                        \"https://app.example.org\"";
            problems.push(Problem::error(ProblemCode::BadValue, origin.span(), what).help(help));
        }
    }
    lowercase_names(given, problems)
}

/// Names in small letters. Beside "*", another name says nothing.
fn lowercase_names(
    given: &Spanned<Vec<Spanned<String>>>,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let names = given.get_ref();
    if names.len() > 1 && names.iter().any(|name| name.get_ref() == "*") {
        let what = "\"*\" serves all; the other names have no effect";
        let help = "write [\"*\"], or only the names";
        problems.push(Problem::error(ProblemCode::Contradiction, given.span(), what).help(help));
    }
    names.iter().map(|name| name.get_ref().to_ascii_lowercase()).collect()
}

fn is_host(text: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '.' || it == '_';
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => (1..=253).contains(&text.len()) && text.chars().all(plain),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    }
}

fn host_of_ip(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn proxy_limits(
    raw: &raw::RawLimits,
    probe_timeout: Duration,
    outcome_limits: slo::OutcomeLimits,
    shadow_settings: slo::ShadowSettings,
    problems: &mut Problems,
) -> ProxyLimits {
    const MIB: u64 = 1 << 20;
    let saturating_usize = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let idle = Duration::from_mins(1)..=Duration::from_hours(7 * 24);
    let hour = Duration::from_hours(1);
    ProxyLimits {
        header_timeout: HEADER_TIMEOUT,
        deadline: outcome_limits.deadline,
        slow_after: outcome_limits.slow_after.unwrap_or(probe_timeout.min(outcome_limits.deadline)),
        connections_max: saturating_usize(in_range(
            "connections",
            &raw.connections,
            10_000,
            1..=1_000_000,
            problems,
        )),
        body_max: in_range("body", &raw.body, 64 * MIB, 1_024..=4_096 * MIB, problems),
        sessions_max: saturating_usize(in_range(
            "sessions",
            &raw.sessions,
            100_000,
            1..=10_000_000,
            problems,
        )),
        session_idle: in_range("session_idle", &raw.session_idle, hour, idle, problems),
        migration_timeout: in_range(
            "session_move",
            &raw.migration_timeout,
            Duration::from_secs(10),
            Duration::from_millis(100)..=Duration::from_mins(2),
            problems,
        ),
        shadow_calls_per_second: shadow_settings.calls_per_second,
        repeatable_tools: shadow_settings.repeatable_tools,
    }
}
