//! What stands in the file: every setting with its place, none with a default yet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::settings::Address;
use crate::config::toml_table::{TomlTable, ValueError, shorten, type_name};
use crate::config::value::{
    absolute_path, address, byte_size, duration, error_budget, error_budget_or_off, float, map_of,
    one_of, socket_address, socket_path, string, string_list, unsigned_integer,
};

const SLOTS_EXAMPLE: &str = "{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }";
const RUNTIME_EXAMPLE: &str =
    "\"command\", \"systemd\", or \"external\" if somebody else starts the releases";

/// A setting, if it was written, and where.
pub(super) type Raw<T> = Option<Spanned<T>>;

/// Names with values, and where each stands.
pub(super) type RawMap<T> = BTreeMap<Spanned<String>, Spanned<T>>;

/// The whole file.
pub(super) struct RawConfig {
    pub(super) state_dir: Raw<PathBuf>,
    pub(super) control_socket: Raw<PathBuf>,
    pub(super) metrics: Raw<SocketAddr>,
    pub(super) podman: Raw<PathBuf>,
    pub(super) services: Vec<RawService>,
}

/// `[service.NAME]`.
pub(super) struct RawService {
    pub(super) name: Spanned<String>,
    pub(super) listen: Raw<SocketAddr>,
    pub(super) path: Raw<String>,
    pub(super) hosts: Raw<Vec<Spanned<String>>>,
    pub(super) origins: Raw<Vec<Spanned<String>>>,
    pub(super) mode: Raw<&'static str>,
    pub(super) session_state: Raw<&'static str>,
    pub(super) migrate_sessions: Raw<&'static str>,
    pub(super) slots: Raw<RawMap<Address>>,
    pub(super) runtime: RawRuntime,
    pub(super) slo: RawSlo,
    pub(super) probe: RawProbe,
    pub(super) scrape: Option<RawScrape>,
    pub(super) limits: RawLimits,
}

/// How the releases run.
pub(super) struct RawRuntime {
    pub(super) kind: Raw<&'static str>,
    /// Whether it stands there, right or wrong.
    pub(super) has_command: bool,
    pub(super) command: Raw<Vec<Spanned<String>>>,
    pub(super) env: Raw<RawMap<String>>,
    pub(super) dir: Raw<PathBuf>,
    pub(super) stop_timeout: Raw<Duration>,
    pub(super) unit: Raw<String>,
    pub(super) warm_weight: Raw<u64>,
    pub(super) artifact: Raw<&'static str>,
    pub(super) keep_artifacts: Raw<u64>,
}

/// What is promised, and how it is decided.
pub(super) struct RawSlo {
    pub(super) objective: Raw<f64>,
    pub(super) tool_objective: Raw<Option<f64>>,
    pub(super) latency: Option<RawLatency>,
    pub(super) deadline: Raw<Duration>,
    pub(super) bake: Raw<Duration>,
    pub(super) max_false_rollback: Raw<f64>,
    pub(super) min_effect: Raw<f64>,
    pub(super) burst: Raw<Duration>,
    pub(super) drain_timeout: Raw<Duration>,
    pub(super) session_cost: Raw<f64>,
    pub(super) shadow_calls: Raw<u64>,
    pub(super) repeatable_tools: Raw<Vec<Spanned<String>>>,
    pub(super) rollbacks_per_day: Raw<u64>,
    pub(super) baseline: Raw<&'static str>,
    pub(super) client_faults: Raw<&'static str>,
    pub(super) start_timeout: Raw<Duration>,
}

/// `latency = { under, objective }`.
pub(super) struct RawLatency {
    pub(super) span: Range<usize>,
    pub(super) under: Raw<Duration>,
    pub(super) objective: Raw<f64>,
}

/// `[service.NAME.probe]`.
pub(super) struct RawProbe {
    pub(super) kind: Raw<&'static str>,
    pub(super) every: Raw<Duration>,
    pub(super) timeout: Raw<Duration>,
    pub(super) ready: Raw<u64>,
    pub(super) failures: Raw<u64>,
    pub(super) http_path: Raw<String>,
    pub(super) status: Raw<u64>,
    pub(super) field: Option<RawField>,
    /// Whether it stands there, right or wrong.
    pub(super) has_command: bool,
    pub(super) command: Raw<Vec<Spanned<String>>>,
}

/// `field = { pointer, value }`.
pub(super) struct RawField {
    pub(super) span: Range<usize>,
    pub(super) pointer: Raw<String>,
    pub(super) value: Raw<String>,
}

/// `[service.NAME.scrape]`.
pub(super) struct RawScrape {
    pub(super) span: Range<usize>,
    pub(super) path: Raw<String>,
    pub(super) url: Raw<String>,
    pub(super) total: Raw<String>,
    pub(super) bad: Raw<String>,
    pub(super) every: Raw<Duration>,
    pub(super) timeout: Raw<Duration>,
    pub(super) objective: Raw<f64>,
    pub(super) no_data: Raw<&'static str>,
}

/// `[service.NAME.limits]`.
pub(super) struct RawLimits {
    pub(super) connections: Raw<u64>,
    pub(super) body: Raw<u64>,
    pub(super) sessions: Raw<u64>,
    pub(super) session_idle: Raw<Duration>,
    pub(super) migration_timeout: Raw<Duration>,
}

/// Reads a parsed text.
pub(super) fn read(root: &DeTable<'_>, problems: &mut Problems) -> RawConfig {
    let mut root = TomlTable::new("the configuration", 0..0, root);
    let mut daemon = root.subtable("daemon", "the daemon", "[daemon]", problems);
    let state_dir = daemon.read("state_dir", absolute_path, problems);
    let control_socket = daemon.read("control_socket", socket_path, problems);
    let metrics = daemon.read("metrics", socket_address, problems);
    let podman = daemon.read("podman", socket_path, problems);
    daemon.reject_unknown_keys(problems);
    let services = read_services(
        root.subtable("service", "the services", "[service.NAME]", problems),
        problems,
    );
    root.reject_unknown_keys(problems);
    RawConfig { state_dir, control_socket, metrics, podman, services }
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
        services.push(read_service(
            TomlTable::new("a service", key.span(), settings),
            name,
            problems,
        ));
    }
    // In the order of the text, so that of two that clash the second one is the problem.
    services.sort_by_key(|service| service.name.span().start);
    services
}

fn read_service(
    mut table: TomlTable<'_>,
    name: Spanned<String>,
    problems: &mut Problems,
) -> RawService {
    let service = RawService {
        name,
        listen: table.required("listen", "\"127.0.0.1:8080\"", socket_address, problems),
        path: table.read("path", string, problems),
        hosts: table.read("hosts", string_list, problems),
        origins: table.read("origins", string_list, problems),
        mode: table.read("mode", one_of(["act", "observe"]), problems),
        session_state: table.read("session_state", one_of(["none", "soft", "hard"]), problems),
        migrate_sessions: table.read("move_sessions", one_of(["rollback", "both"]), problems),
        slots: table.required("slots", SLOTS_EXAMPLE, map_of(address), problems),
        runtime: read_runtime(&mut table, problems),
        slo: slo(&mut table, problems),
        probe: read_probe(
            table.subtable("probe", "a probe", "[service.NAME.probe]", problems),
            problems,
        ),
        scrape: read_scrape(&mut table, problems),
        limits: read_limits(
            table.subtable("limits", "the limits", "[service.NAME.limits]", problems),
            problems,
        ),
    };
    table.reject_unknown_keys(problems);
    service
}

fn read_runtime(table: &mut TomlTable<'_>, problems: &mut Problems) -> RawRuntime {
    RawRuntime {
        kind: table.required(
            "runtime",
            RUNTIME_EXAMPLE,
            one_of(["command", "systemd", "external"]),
            problems,
        ),
        has_command: table.has("command"),
        command: table.read("command", string_list, problems),
        env: table.read("env", map_of(string), problems),
        dir: table.read("dir", absolute_path, problems),
        stop_timeout: table.read("stop_timeout", duration, problems),
        unit: table.read("unit", string, problems),
        warm_weight: table.read("warm_weight", unsigned_integer, problems),
        artifact: table.read("artifact", one_of(["auto", "image", "path", "word"]), problems),
        keep_artifacts: table.read("keep_artifacts", unsigned_integer, problems),
    }
}

fn slo(table: &mut TomlTable<'_>, problems: &mut Problems) -> RawSlo {
    RawSlo {
        objective: table.read("objective", error_budget, problems),
        tool_objective: table.read("tool_objective", error_budget_or_off, problems),
        latency: read_latency(table, problems),
        deadline: table.read("deadline", duration, problems),
        bake: table.read("bake", duration, problems),
        max_false_rollback: table.read("max_false_rollback", float, problems),
        min_effect: table.read("min_effect", float, problems),
        burst: table.read("burst", duration, problems),
        drain_timeout: table.read("drain_timeout", duration, problems),
        session_cost: table.read("session_cost", float, problems),
        shadow_calls: table.read("shadow_calls", unsigned_integer, problems),
        repeatable_tools: table.read("repeatable_tools", string_list, problems),
        rollbacks_per_day: table.read("rollbacks_per_day", unsigned_integer, problems),
        baseline: table.read("baseline", one_of(["probes", "required"]), problems),
        client_faults: table.read("client_faults", one_of(["on", "off"]), problems),
        start_timeout: table.read("start_timeout", duration, problems),
    }
}

fn read_latency(table: &mut TomlTable<'_>, problems: &mut Problems) -> Option<RawLatency> {
    const FORM: &str = "latency = { under = \"300ms\", objective = \"99%\" }";
    table.read("latency", |value| expect_table(value, FORM), problems)?;
    let mut table = table.subtable("latency", "`latency`", FORM, problems);
    let latency = RawLatency {
        span: table.span(),
        under: table.required("under", "\"300ms\"", duration, problems),
        objective: table.read("objective", error_budget, problems),
    };
    table.reject_unknown_keys(problems);
    Some(latency)
}

fn read_probe(mut table: TomlTable<'_>, problems: &mut Problems) -> RawProbe {
    let probe = RawProbe {
        kind: table.read("kind", one_of(["mcp", "http", "tcp", "command"]), problems),
        every: table.read("every", duration, problems),
        timeout: table.read("timeout", duration, problems),
        ready: table.read("ready", unsigned_integer, problems),
        failures: table.read("failures", unsigned_integer, problems),
        http_path: table.read("http_path", string, problems),
        status: table.read("status", unsigned_integer, problems),
        field: read_field(&mut table, problems),
        has_command: table.has("command"),
        command: table.read("command", string_list, problems),
    };
    table.reject_unknown_keys(problems);
    probe
}

fn read_field(table: &mut TomlTable<'_>, problems: &mut Problems) -> Option<RawField> {
    const FORM: &str = "field = { pointer = \"/status\", value = \"ok\" }";
    table.read("field", |value| expect_table(value, FORM), problems)?;
    let mut table = table.subtable("field", "`field`", FORM, problems);
    let field = RawField {
        span: table.span(),
        pointer: table.required("pointer", "\"/status\"", string, problems),
        value: table.required("value", "\"ok\"", string, problems),
    };
    table.reject_unknown_keys(problems);
    Some(field)
}

fn read_scrape(table: &mut TomlTable<'_>, problems: &mut Problems) -> Option<RawScrape> {
    const BAD: &str = "'http_requests_total{code=~\"5..\"}'";
    const FORM: &str = "[service.NAME.scrape], and below it total and bad";
    table.read("scrape", |value| expect_table(value, FORM), problems)?;
    let mut table = table.subtable("scrape", "the scrape", FORM, problems);
    let scrape = RawScrape {
        span: table.span(),
        path: table.read("path", string, problems),
        url: table.read("url", string, problems),
        total: table.required("total", "\"http_requests_total\"", string, problems),
        bad: table.required("bad", BAD, string, problems),
        every: table.read("every", duration, problems),
        timeout: table.read("timeout", duration, problems),
        objective: table.read("objective", error_budget, problems),
        no_data: table.read("no_data", one_of(["hold", "ignore"]), problems),
    };
    table.reject_unknown_keys(problems);
    Some(scrape)
}

fn read_limits(mut table: TomlTable<'_>, problems: &mut Problems) -> RawLimits {
    let limits = RawLimits {
        connections: table.read("connections", unsigned_integer, problems),
        body: table.read("body", byte_size, problems),
        sessions: table.read("sessions", unsigned_integer, problems),
        session_idle: table.read("session_idle", duration, problems),
        migration_timeout: table.read("session_move", duration, problems),
    };
    table.reject_unknown_keys(problems);
    limits
}

fn expect_table(value: &DeValue<'_>, form: &str) -> Result<(), ValueError> {
    if value.is_table() {
        return Ok(());
    }
    let what = format!("is {}, not a table", type_name(value));
    Err(ValueError::new(ProblemCode::WrongType, what, format!("write {form}")))
}
