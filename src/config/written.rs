//! What stands in the file: every setting with its place, none with a default yet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Code, Problem, Problems};
use super::settings::Address;
use super::table::{Complaint, Table, brief, kind_of};
use super::value::{
    address, budget, budget_or_off, choice, duration, named, number, path, size, socket, tcp, text,
    texts, whole,
};

const SLOTS: &str = "{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }";
const RUNTIME: &str =
    "\"command\", \"systemd\", or \"external\" if somebody else starts the releases";

/// A setting, if it was written, and where.
pub(super) type Set<T> = Option<Spanned<T>>;

/// Names with values, and where each stands.
pub(super) type Named<T> = BTreeMap<Spanned<String>, Spanned<T>>;

/// The whole file.
pub(super) struct Written {
    pub(super) state_dir: Set<PathBuf>,
    pub(super) control_socket: Set<PathBuf>,
    pub(super) metrics: Set<SocketAddr>,
    pub(super) podman: Set<PathBuf>,
    pub(super) services: Vec<Service>,
}

/// `[service.NAME]`.
pub(super) struct Service {
    pub(super) name: Spanned<String>,
    pub(super) listen: Set<SocketAddr>,
    pub(super) path: Set<String>,
    pub(super) hosts: Set<Vec<Spanned<String>>>,
    pub(super) origins: Set<Vec<Spanned<String>>>,
    pub(super) mode: Set<&'static str>,
    pub(super) session_state: Set<&'static str>,
    pub(super) move_sessions: Set<&'static str>,
    pub(super) slots: Set<Named<Address>>,
    pub(super) runtime: Runtime,
    pub(super) promise: Promise,
    pub(super) probe: Probe,
    pub(super) scrape: Option<Scrape>,
    pub(super) limits: Limits,
}

/// How the releases run.
pub(super) struct Runtime {
    pub(super) kind: Set<&'static str>,
    /// Whether it stands there, right or wrong.
    pub(super) has_command: bool,
    pub(super) command: Set<Vec<Spanned<String>>>,
    pub(super) env: Set<Named<String>>,
    pub(super) dir: Set<PathBuf>,
    pub(super) stop_timeout: Set<Duration>,
    pub(super) unit: Set<String>,
    pub(super) warm_weight: Set<u64>,
    pub(super) artifact: Set<&'static str>,
    pub(super) keep_artifacts: Set<u64>,
}

/// What is promised, and how it is decided.
pub(super) struct Promise {
    pub(super) objective: Set<f64>,
    pub(super) tool_objective: Set<Option<f64>>,
    pub(super) latency: Option<Latency>,
    pub(super) deadline: Set<Duration>,
    pub(super) bake: Set<Duration>,
    pub(super) max_false_rollback: Set<f64>,
    pub(super) min_effect: Set<f64>,
    pub(super) burst: Set<Duration>,
    pub(super) drain_timeout: Set<Duration>,
    pub(super) session_cost: Set<f64>,
    pub(super) shadow_calls: Set<u64>,
    pub(super) repeatable_tools: Set<Vec<Spanned<String>>>,
    pub(super) rollbacks_per_day: Set<u64>,
    pub(super) baseline: Set<&'static str>,
    pub(super) client_faults: Set<&'static str>,
    pub(super) start_timeout: Set<Duration>,
}

/// `latency = { under, objective }`.
pub(super) struct Latency {
    pub(super) at: Range<usize>,
    pub(super) under: Set<Duration>,
    pub(super) objective: Set<f64>,
}

/// `[service.NAME.probe]`.
pub(super) struct Probe {
    pub(super) kind: Set<&'static str>,
    pub(super) every: Set<Duration>,
    pub(super) timeout: Set<Duration>,
    pub(super) ready: Set<u64>,
    pub(super) failures: Set<u64>,
    pub(super) http_path: Set<String>,
    pub(super) status: Set<u64>,
    pub(super) field: Option<Field>,
    /// Whether it stands there, right or wrong.
    pub(super) has_command: bool,
    pub(super) command: Set<Vec<Spanned<String>>>,
}

/// `field = { pointer, value }`.
pub(super) struct Field {
    pub(super) at: Range<usize>,
    pub(super) pointer: Set<String>,
    pub(super) value: Set<String>,
}

/// `[service.NAME.scrape]`.
pub(super) struct Scrape {
    pub(super) at: Range<usize>,
    pub(super) path: Set<String>,
    pub(super) url: Set<String>,
    pub(super) total: Set<String>,
    pub(super) bad: Set<String>,
    pub(super) every: Set<Duration>,
    pub(super) timeout: Set<Duration>,
    pub(super) objective: Set<f64>,
    pub(super) no_data: Set<&'static str>,
}

/// `[service.NAME.limits]`.
pub(super) struct Limits {
    pub(super) connections: Set<u64>,
    pub(super) body: Set<u64>,
    pub(super) sessions: Set<u64>,
    pub(super) session_idle: Set<Duration>,
    pub(super) session_move: Set<Duration>,
}

/// Reads a parsed text.
pub(super) fn read(root: &DeTable<'_>, problems: &mut Problems) -> Written {
    let mut root = Table::new("the configuration", 0..0, root);
    let mut daemon = root.table("daemon", "the daemon", "[daemon]", problems);
    let state_dir = daemon.read("state_dir", path, problems);
    let control_socket = daemon.read("control_socket", socket, problems);
    let metrics = daemon.read("metrics", tcp, problems);
    let podman = daemon.read("podman", socket, problems);
    daemon.finish(problems);
    let services =
        services(root.table("service", "the services", "[service.NAME]", problems), problems);
    root.finish(problems);
    Written { state_dir, control_socket, metrics, podman, services }
}

fn services(table: Table<'_>, problems: &mut Problems) -> Vec<Service> {
    let mut services = Vec::new();
    for (key, value) in table.entries() {
        let name = Spanned::new(key.span(), key.get_ref().clone().into_owned());
        let Some(settings) = value.get_ref().as_table() else {
            let name = brief(name.get_ref());
            let kind = kind_of(value.get_ref());
            let what = format!("`{name}` is {kind}, not the settings of a service");
            let help = "write [service.NAME], with the name of the service, above its settings";
            problems.push(Problem::error(Code::WrongType, key.span(), what).help(help));
            continue;
        };
        services.push(service(Table::new("a service", key.span(), settings), name, problems));
    }
    // In the order of the text, so that of two that clash the second one is the problem.
    services.sort_by_key(|service| service.name.span().start);
    services
}

fn service(mut table: Table<'_>, name: Spanned<String>, problems: &mut Problems) -> Service {
    let service = Service {
        name,
        listen: table.required("listen", "\"127.0.0.1:8080\"", tcp, problems),
        path: table.read("path", text, problems),
        hosts: table.read("hosts", texts, problems),
        origins: table.read("origins", texts, problems),
        mode: table.read("mode", choice(["act", "observe"]), problems),
        session_state: table.read("session_state", choice(["none", "soft", "hard"]), problems),
        move_sessions: table.read("move_sessions", choice(["rollback", "both"]), problems),
        slots: table.required("slots", SLOTS, named(address), problems),
        runtime: runtime(&mut table, problems),
        promise: promise(&mut table, problems),
        probe: probe(table.table("probe", "a probe", "[service.NAME.probe]", problems), problems),
        scrape: scrape(&mut table, problems),
        limits: limits(
            table.table("limits", "the limits", "[service.NAME.limits]", problems),
            problems,
        ),
    };
    table.finish(problems);
    service
}

fn runtime(table: &mut Table<'_>, problems: &mut Problems) -> Runtime {
    Runtime {
        kind: table.required(
            "runtime",
            RUNTIME,
            choice(["command", "systemd", "external"]),
            problems,
        ),
        has_command: table.has("command"),
        command: table.read("command", texts, problems),
        env: table.read("env", named(text), problems),
        dir: table.read("dir", path, problems),
        stop_timeout: table.read("stop_timeout", duration, problems),
        unit: table.read("unit", text, problems),
        warm_weight: table.read("warm_weight", whole, problems),
        artifact: table.read("artifact", choice(["auto", "image", "path", "word"]), problems),
        keep_artifacts: table.read("keep_artifacts", whole, problems),
    }
}

fn promise(table: &mut Table<'_>, problems: &mut Problems) -> Promise {
    Promise {
        objective: table.read("objective", budget, problems),
        tool_objective: table.read("tool_objective", budget_or_off, problems),
        latency: latency(table, problems),
        deadline: table.read("deadline", duration, problems),
        bake: table.read("bake", duration, problems),
        max_false_rollback: table.read("max_false_rollback", number, problems),
        min_effect: table.read("min_effect", number, problems),
        burst: table.read("burst", duration, problems),
        drain_timeout: table.read("drain_timeout", duration, problems),
        session_cost: table.read("session_cost", number, problems),
        shadow_calls: table.read("shadow_calls", whole, problems),
        repeatable_tools: table.read("repeatable_tools", texts, problems),
        rollbacks_per_day: table.read("rollbacks_per_day", whole, problems),
        baseline: table.read("baseline", choice(["probes", "required"]), problems),
        client_faults: table.read("client_faults", choice(["on", "off"]), problems),
        start_timeout: table.read("start_timeout", duration, problems),
    }
}

fn latency(table: &mut Table<'_>, problems: &mut Problems) -> Option<Latency> {
    const FORM: &str = "latency = { under = \"300ms\", objective = \"99%\" }";
    table.read("latency", |value| expect_table(value, FORM), problems)?;
    let mut table = table.table("latency", "`latency`", FORM, problems);
    let latency = Latency {
        at: table.at(),
        under: table.required("under", "\"300ms\"", duration, problems),
        objective: table.read("objective", budget, problems),
    };
    table.finish(problems);
    Some(latency)
}

fn probe(mut table: Table<'_>, problems: &mut Problems) -> Probe {
    let probe = Probe {
        kind: table.read("kind", choice(["mcp", "http", "tcp", "command"]), problems),
        every: table.read("every", duration, problems),
        timeout: table.read("timeout", duration, problems),
        ready: table.read("ready", whole, problems),
        failures: table.read("failures", whole, problems),
        http_path: table.read("http_path", text, problems),
        status: table.read("status", whole, problems),
        field: field(&mut table, problems),
        has_command: table.has("command"),
        command: table.read("command", texts, problems),
    };
    table.finish(problems);
    probe
}

fn field(table: &mut Table<'_>, problems: &mut Problems) -> Option<Field> {
    const FORM: &str = "field = { pointer = \"/status\", value = \"ok\" }";
    table.read("field", |value| expect_table(value, FORM), problems)?;
    let mut table = table.table("field", "`field`", FORM, problems);
    let field = Field {
        at: table.at(),
        pointer: table.required("pointer", "\"/status\"", text, problems),
        value: table.required("value", "\"ok\"", text, problems),
    };
    table.finish(problems);
    Some(field)
}

fn scrape(table: &mut Table<'_>, problems: &mut Problems) -> Option<Scrape> {
    const BAD: &str = "'http_requests_total{code=~\"5..\"}'";
    const FORM: &str = "[service.NAME.scrape], and below it total and bad";
    table.read("scrape", |value| expect_table(value, FORM), problems)?;
    let mut table = table.table("scrape", "the scrape", FORM, problems);
    let scrape = Scrape {
        at: table.at(),
        path: table.read("path", text, problems),
        url: table.read("url", text, problems),
        total: table.required("total", "\"http_requests_total\"", text, problems),
        bad: table.required("bad", BAD, text, problems),
        every: table.read("every", duration, problems),
        timeout: table.read("timeout", duration, problems),
        objective: table.read("objective", budget, problems),
        no_data: table.read("no_data", choice(["hold", "ignore"]), problems),
    };
    table.finish(problems);
    Some(scrape)
}

fn limits(mut table: Table<'_>, problems: &mut Problems) -> Limits {
    let limits = Limits {
        connections: table.read("connections", whole, problems),
        body: table.read("body", size, problems),
        sessions: table.read("sessions", whole, problems),
        session_idle: table.read("session_idle", duration, problems),
        session_move: table.read("session_move", duration, problems),
    };
    table.finish(problems);
    limits
}

fn expect_table(value: &DeValue<'_>, form: &str) -> Result<(), Complaint> {
    if value.is_table() {
        return Ok(());
    }
    let what = format!("is {}, not a table", kind_of(value));
    Err(Complaint::new(Code::WrongType, what, format!("write {form}")))
}
