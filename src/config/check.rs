//! From what is written to [`Settings`]. What is a problem is replaced by its default, so that the
//! checks behind it still run; the settings are used only if there was no error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use crate::model::Slot;

use super::address::Addresses;
use super::bounds::{bounded, span};
use super::problem::{Code, Problem, Problems};
use super::settings::{Address, Limits, Service, SessionState, Settings};
use super::table::brief;
use super::written::{self, Set, Written};
use super::{probe, promise, runtime, scrape};

const NAME_MAX: usize = 32;
const SERVICES_MAX: usize = 256;
const SLOTS_MAX: usize = 16;

/// Everything is checked, and what is left out gets its default.
pub(super) fn settings(written: &Written, problems: &mut Problems) -> Settings {
    let path = |set: &Set<PathBuf>, default: &str| {
        set.as_ref().map_or_else(|| PathBuf::from(default), |path| path.get_ref().clone())
    };
    let state_dir = path(&written.state_dir, "/var/lib/rollbackd");
    let control_socket = path(&written.control_socket, "/run/rollbackd/control.sock");
    how_many(written, problems);
    let mut addresses = Addresses::default();
    let at = span(&written.control_socket).unwrap_or(0..0);
    let owner = "the control socket".to_owned();
    addresses.claim(Address::Unix(control_socket.clone()), owner, at, problems);
    let metrics = metrics(&written.metrics, &mut addresses, problems);
    let podman = path(&written.podman, "/run/podman/podman.sock");
    runtime::units_are_distinct(written, problems);
    let services = written.services.iter().take(SERVICES_MAX);
    let services = services
        .map(|written| (written.name.get_ref().clone(), service(written, &mut addresses, problems)))
        .collect();
    Settings { state_dir, control_socket, metrics, podman, services }
}

/// Versions and names of tools are nobody's business outside: a collector runs on the host.
fn metrics(
    set: &Set<SocketAddr>,
    addresses: &mut Addresses,
    problems: &mut Problems,
) -> Option<SocketAddr> {
    let written = set.as_ref()?;
    let address = *written.get_ref();
    if !address.ip().is_loopback() || address.port() == 0 {
        let what = format!("`metrics` is {address}, which is not a port on loopback");
        let help = "write \"127.0.0.1:9469\", and collect the metrics on this host";
        problems.push(Problem::error(Code::BadValue, written.span(), what).help(help));
    }
    let owner = "the metrics of the daemon".to_owned();
    addresses.claim(Address::Tcp(address), owner, written.span(), problems);
    Some(address)
}

fn how_many(written: &Written, problems: &mut Problems) {
    if written.services.is_empty() {
        let what = "there is no service to watch";
        let help = "write [service.NAME], and below it listen, runtime, command and slots";
        problems.push(Problem::error(Code::Missing, 0..0, what).help(help));
    }
    if let Some(service) = written.services.get(SERVICES_MAX) {
        let count = written.services.len();
        let what = format!("there are {count} services; one daemon takes {SERVICES_MAX}");
        let help = "run a second daemon with its own file and state_dir";
        problems.push(Problem::error(Code::OutOfRange, service.name.span(), what).help(help));
    }
}

fn service(
    written: &written::Service,
    addresses: &mut Addresses,
    problems: &mut Problems,
) -> Service {
    name("a service", &written.name, problems);
    let listen = listen(written, addresses, problems);
    let slots = slots(written, addresses, problems);
    let runtime = runtime::check(written, &slots, problems);
    let (probe, failures) = probe::check(written, problems);
    let mut judge = promise::limits(written, failures, problems);
    let scrape = scrape::check(written, &mut judge, problems);
    let order = slots.keys().cloned().collect();
    let policy = promise::policy(written, &probe, judge.bake, order, problems);
    let counted = promise::counted(&written.promise, problems);
    let repeated = promise::repeated(&written.promise, problems);
    promise::reachable(written, &judge, &probe, &policy, problems);
    promise::doubtful(written, &judge, counted.deadline, problems);
    let limits = limits(&written.limits, probe.timeout, counted, repeated, problems);
    Service {
        name: written.name.get_ref().clone(),
        listen,
        path: path(&written.path, problems),
        hosts: hosts(written, listen, problems),
        origins: origins(&written.origins, problems),
        runtime,
        artifact: runtime::artifact(&written.runtime),
        keep_artifacts: runtime::keep_artifacts(&written.runtime, problems),
        slots,
        probe,
        scrape,
        judge,
        policy,
        session_state: session_state(&written.session_state),
        move_forward: written.move_sessions.as_ref().is_some_and(|set| *set.get_ref() == "both"),
        limits,
    }
}

fn session_state(set: &Set<&'static str>) -> SessionState {
    match set.as_ref().map(|set| *set.get_ref()) {
        Some("none") => SessionState::None,
        Some("hard") => SessionState::Hard,
        _ => SessionState::Soft,
    }
}

fn name(whose: &str, name: &Spanned<String>, problems: &mut Problems) {
    let text = name.get_ref();
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
    if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(plain) {
        return;
    }
    let shown = brief(text).escape_debug().to_string();
    let what = format!("\"{shown}\" can not be the name of {whose}");
    let help = format!("write 1 to {NAME_MAX} small letters, digits and hyphens");
    problems.push(Problem::error(Code::BadName, name.span(), what).help(help));
}

fn listen(
    written: &written::Service,
    addresses: &mut Addresses,
    problems: &mut Problems,
) -> SocketAddr {
    let Some(listen) = &written.listen else {
        return SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    };
    let owner = format!("service `{}`", brief(written.name.get_ref()));
    let address = *listen.get_ref();
    addresses.claim(Address::Tcp(address), owner, listen.span(), problems);
    if address.port() == 0 {
        let what = "port 0 is another port at each start: no client would find it";
        let help = "write a port from 1 to 65535";
        problems.push(Problem::warning(Code::RefusesClients, listen.span(), what).help(help));
    }
    if address.ip().is_unspecified() && written.hosts.is_none() {
        let what = "clients from outside are refused: only the names of this machine's loopback \
                    are served";
        let help = "write hosts = [\"mcp.example.org\"], the names that clients use";
        problems.push(Problem::warning(Code::RefusesClients, listen.span(), what).help(help));
    }
    address
}

fn slots(
    written: &written::Service,
    addresses: &mut Addresses,
    problems: &mut Problems,
) -> BTreeMap<Slot, Address> {
    let Some(set) = &written.slots else {
        return BTreeMap::new();
    };
    let count = set.get_ref().len();
    if !(2..=SLOTS_MAX).contains(&count) {
        let what = format!("`slots` has {count}; the new release and the warm one need one each");
        let help = format!("write 2 to {SLOTS_MAX} slots, such as blue and green");
        problems.push(Problem::error(Code::OutOfRange, set.span(), what).help(help));
    }
    let mut slots = BTreeMap::new();
    let mut written_order: Vec<_> = set.get_ref().iter().collect();
    written_order.sort_by_key(|(slot, _)| slot.span().start);
    for (slot, address) in written_order.into_iter().take(SLOTS_MAX) {
        name("a slot", slot, problems);
        let owner =
            format!("slot `{}` of `{}`", brief(slot.get_ref()), brief(written.name.get_ref()));
        if let Address::Tcp(tcp) = address.get_ref()
            && (tcp.ip().is_unspecified() || tcp.port() == 0)
        {
            let what = format!("{owner} is {tcp}, where nothing can be reached");
            let help = "write the IP address and the port at which the release answers";
            problems.push(Problem::error(Code::BadValue, address.span(), what).help(help));
        }
        addresses.claim(address.get_ref().clone(), owner, address.span(), problems);
        slots.insert(Slot(slot.get_ref().clone()), address.get_ref().clone());
    }
    slots
}

fn path(set: &Set<String>, problems: &mut Problems) -> String {
    let Some(written) = set else {
        return "/mcp".to_owned();
    };
    let path = written.get_ref();
    if !probe::usable(path) || path.contains('?') {
        let what = format!("`path` is \"{}\", which is not a path", brief(path));
        let help = "write a path that begins with /, without a query, such as \"/mcp\"";
        problems.push(Problem::error(Code::BadValue, written.span(), what).help(help));
    }
    path.clone()
}

fn hosts(
    written: &written::Service,
    listen: SocketAddr,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let Some(set) = &written.hosts else {
        let mut hosts: BTreeSet<_> = ["localhost", "127.0.0.1", "[::1]"].map(String::from).into();
        if !listen.ip().is_unspecified() {
            hosts.insert(as_host(listen.ip()));
        }
        return hosts;
    };
    for host in set.get_ref() {
        let text = host.get_ref();
        if text != "*" && !is_host(text) {
            let what = format!("\"{}\" is not a host as clients name it", brief(text));
            let help = "write a name or an address, without scheme, port and path, such as \"mcp.example.org\" \
                        or \"[::1]\"; \"*\" for all";
            problems.push(Problem::error(Code::BadValue, host.span(), what).help(help));
        }
    }
    if set.get_ref().is_empty() {
        let what = "no host is served: every request would be refused";
        let help = "write hosts = [\"localhost\"], or leave hosts out for the loopback names";
        problems.push(Problem::error(Code::RefusesClients, set.span(), what).help(help));
    }
    lower(set, problems)
}

fn origins(set: &Set<Vec<Spanned<String>>>, problems: &mut Problems) -> BTreeSet<String> {
    let Some(set) = set else {
        return BTreeSet::new();
    };
    for origin in set.get_ref() {
        let text = origin.get_ref();
        let host = text.split_once("://").filter(|(scheme, _)| {
            !scheme.is_empty() && scheme.chars().all(|it| it.is_ascii_alphanumeric() || it == '-')
        });
        let plain = host.is_some_and(|(_, host)| is_host(without_port(host)));
        if text != "*" && !plain {
            let what = format!("\"{}\" is not an origin", brief(text));
            let help = "write scheme, host and port as browsers send them, without a path: \
                        \"https://app.example.org\"";
            problems.push(Problem::error(Code::BadValue, origin.span(), what).help(help));
        }
    }
    lower(set, problems)
}

/// Names in small letters. Beside "*", another name says nothing.
fn lower(set: &Spanned<Vec<Spanned<String>>>, problems: &mut Problems) -> BTreeSet<String> {
    let names = set.get_ref();
    if names.len() > 1 && names.iter().any(|name| name.get_ref() == "*") {
        let what = "\"*\" serves all; the other names have no effect";
        let help = "write [\"*\"], or only the names";
        problems.push(Problem::error(Code::Contradiction, set.span(), what).help(help));
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

fn as_host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn limits(
    written: &written::Limits,
    probe_timeout: Duration,
    counted: promise::Counted,
    repeated: promise::Repeated,
    problems: &mut Problems,
) -> Limits {
    const MIB: u64 = 1 << 20;
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let idle = Duration::from_mins(1)..=Duration::from_hours(7 * 24);
    let hour = Duration::from_hours(1);
    Limits {
        deadline: counted.deadline,
        slow: counted.slow.unwrap_or(probe_timeout.min(counted.deadline)),
        connections: number(bounded(
            "connections",
            &written.connections,
            10_000,
            1..=1_000_000,
            problems,
        )),
        body: bounded("body", &written.body, 64 * MIB, 1_024..=4_096 * MIB, problems),
        sessions: number(bounded("sessions", &written.sessions, 100_000, 1..=10_000_000, problems)),
        session_idle: bounded("session_idle", &written.session_idle, hour, idle, problems),
        session_move: bounded(
            "session_move",
            &written.session_move,
            Duration::from_secs(10),
            Duration::from_millis(100)..=Duration::from_mins(2),
            problems,
        ),
        shadow_calls: repeated.calls,
        repeatable_tools: repeated.tools,
    }
}
