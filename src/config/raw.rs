//! The whole file: every key with its span, and the settings that follow from them.

use toml::Spanned;
use toml::de::DeTable;

use crate::config::address::{Address, AddressRegistry};
use crate::config::daemon::{self, RawDaemon};
use crate::config::incidents::{self, RawIncidents};
use crate::config::notify::{self, RawChannel};
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::range::span_of;
use crate::config::runtime;
use crate::config::service::{self, RawService};
use crate::config::settings::Settings;
use crate::config::toml_table::TomlTable;
use crate::config::value::type_name;

const SERVICES_MAX: usize = 256;

/// The whole file.
pub(super) struct RawConfig {
    pub(super) daemon: RawDaemon,
    pub(super) incidents: RawIncidents,
    pub(super) channels: Vec<RawChannel>,
    pub(super) services: Vec<RawService>,
}

/// Reads the parsed text.
pub(super) fn read(root: &DeTable<'_>, problems: &mut Problems) -> RawConfig {
    let mut root = TomlTable::new("the configuration", 0..0, root);
    let daemon = root.subtable("daemon", "the daemon", "[daemon]", problems);
    let daemon = daemon::read(daemon, problems);
    let incidents = root.subtable("incidents", "the incidents", "[incidents]", problems);
    let incidents = incidents::read(incidents, problems);
    let channels = root.subtable("notify", "the channels", "[notify.NAME]", problems);
    let channels = notify::read(channels, problems);
    let services = read_services(
        root.subtable("service", "the services", "[service.NAME]", problems),
        problems,
    );
    root.reject_unknown_keys(problems);
    RawConfig { daemon, incidents, channels, services }
}

fn read_services(table: TomlTable<'_>, problems: &mut Problems) -> Vec<RawService> {
    let mut services = Vec::new();
    for (key, value) in table.entries() {
        let name = Spanned::new(key.span(), key.get_ref().clone().into_owned());
        let Some(settings) = value.get_ref().as_table() else {
            let name = shorten(name.get_ref());
            let kind = type_name(value.get_ref());
            let what = format!("`{name}` is {kind}, not the settings of a service");
            let help = "write [service.NAME], with the name of the service, above its settings";
            problems.push(Problem::error(ProblemCode::WrongType, key.span(), what).help(help));
            continue;
        };
        services.push(service::read(
            TomlTable::new("a service", key.span(), settings),
            name,
            problems,
        ));
    }
    // In the order of the text, so that the second of two conflicting services has the problem.
    services.sort_by_key(|service| service.name.span().start);
    services
}

/// Checks every value, and fills in the defaults.
pub(super) fn build_settings(raw: &RawConfig, problems: &mut Problems) -> Settings {
    let RawConfig { daemon, incidents, channels, services } = raw;
    let control_socket = daemon.control_socket();
    check_service_count(raw, problems);
    let mut addresses = AddressRegistry::default();
    let at = span_of(&daemon.control_socket).unwrap_or(0..0);
    let owner = "the control socket".to_owned();
    addresses.claim(Address::Unix(control_socket.clone()), owner, at, problems);
    let metrics = daemon::metrics(&daemon.metrics, &mut addresses, problems);
    let page = daemon::page(daemon, &mut addresses, problems);
    let names = services.iter().map(|it| it.name.get_ref().clone()).collect();
    let channels = notify::check(channels, &names, problems);
    runtime::check_units_distinct(services.iter().map(|it| &it.runtime), problems);
    let services = services
        .iter()
        .take(SERVICES_MAX)
        .map(|raw| (raw.name.get_ref().clone(), service::check(raw, &mut addresses, problems)))
        .collect();
    Settings {
        state_dir: daemon.state_dir(),
        control_socket,
        metrics,
        page,
        page_url: daemon::page_url(daemon, problems),
        incidents: incidents::check(incidents, problems),
        channels,
        podman: daemon.podman(),
        services,
        awaits_restart: Vec::new(),
    }
}

fn check_service_count(raw: &RawConfig, problems: &mut Problems) {
    if raw.services.is_empty() {
        let what = "the configuration has no service";
        let help = "write [service.NAME], and below it listen, runtime, command and slots";
        problems.push(Problem::error(ProblemCode::Missing, 0..0, what).help(help));
    }
    if let Some(service) = raw.services.get(SERVICES_MAX) {
        let count = raw.services.len();
        let what = format!(
            "the configuration has {count} services; one daemon runs at most {SERVICES_MAX}"
        );
        let help = "run a second daemon with its own configuration and state_dir";
        problems
            .push(Problem::error(ProblemCode::OutOfRange, service.name.span(), what).help(help));
    }
}
