//! The probe of a service: its keys, its checks, and its settings.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use crate::config::placeholder::{PROBE_PLACEHOLDERS, argv};
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::range::{in_range, saturating_u32, span_of};
use crate::config::toml_table::TomlTable;
use crate::config::value::{
    Raw, duration, expect_table, format_duration, is_request_path, one_of, string, string_list,
    unsigned_integer,
};

/// Longest wait for the warm release's response before a rollback.
pub(super) const CONFIRM_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// How the daemon probes a release.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeSettings {
    /// What the probe sends.
    pub kind: ProbeKind,
    /// The time between two probes while the release is healthy.
    pub interval: Duration,
    /// Longest time for a response.
    pub timeout: Duration,
    /// Successful probes in a row before a new release is ready.
    pub ready_after: u32,
}

/// What a probe sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeKind {
    /// `server/discover`, or `initialize` and `tools/list`: whichever the server supports.
    Mcp,
    /// A GET request.
    Http {
        /// Its path.
        path: String,
        /// The required status.
        status: u16,
        /// A field of the JSON response: its pointer, such as `/status`, and its value as text.
        field: Option<(String, String)>,
    },
    /// A connection.
    Tcp,
    /// A command that exits with 0. `{port}`, `{slot}` and `{version}` are replaced.
    Command(Vec<String>),
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
    /// Whether the key exists, with a right or a wrong value.
    pub(super) has_command: bool,
    pub(super) command: Raw<Vec<Spanned<String>>>,
}

/// `field = { pointer, value }`.
pub(super) struct RawField {
    pub(super) span: Range<usize>,
    pub(super) pointer: Raw<String>,
    pub(super) value: Raw<String>,
}

pub(super) fn read(mut table: TomlTable<'_>, problems: &mut Problems) -> RawProbe {
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

/// The probe of a service, and what the judge needs of it.
pub(super) struct CheckedProbe {
    pub(super) settings: ProbeSettings,
    /// Failures in a row that mean the release is down.
    pub(super) failures_max: u32,
}

/// Checks the probe of a service.
pub(super) fn check(
    raw: &RawProbe,
    service_span: Range<usize>,
    problems: &mut Problems,
) -> CheckedProbe {
    const SECOND: Duration = Duration::from_secs(1);
    let interval_range = Duration::from_millis(50)..=Duration::from_mins(1);
    let every = in_range("every", &raw.every, SECOND, interval_range, problems);
    let timeout_range = Duration::from_millis(10)..=Duration::from_secs(30);
    let timeout = in_range("timeout", &raw.timeout, 2 * SECOND, timeout_range, problems);
    let ready = saturating_u32(in_range("ready", &raw.ready, 3, 1..=100, problems));
    let failures = saturating_u32(in_range("failures", &raw.failures, 3, 1..=100, problems));
    reject_other_kinds(raw, problems);
    if let Some(at) = span_of(&raw.timeout).filter(|_| timeout > CONFIRM_TIMEOUT_MAX) {
        let max = format_duration(CONFIRM_TIMEOUT_MAX);
        let what = format!(
            "responses may take {}, but before a rollback the warm release must respond within {max}",
            format_duration(timeout),
        );
        let help = format!("write at most \"{max}\", or a probe that is faster");
        problems.push(Problem::warning(ProblemCode::TooSlow, at, what).help(help));
    }
    let kind = match raw.kind.as_ref().map_or("mcp", |kind| kind.get_ref()) {
        "http" => http_probe(raw, problems),
        "tcp" => ProbeKind::Tcp,
        "command" => command_probe(raw, service_span, problems),
        _ => ProbeKind::Mcp,
    };
    let settings = ProbeSettings { kind, interval: every, timeout, ready_after: ready };
    CheckedProbe { settings, failures_max: failures }
}

/// Reports settings of a kind that was not chosen.
fn reject_other_kinds(raw: &RawProbe, problems: &mut Problems) {
    let chosen = raw.kind.as_ref().map_or("mcp", |kind| kind.get_ref());
    let settings: [(&str, &str, Option<Range<usize>>); 4] = [
        ("http_path", "http", span_of(&raw.http_path)),
        ("status", "http", span_of(&raw.status)),
        ("field", "http", raw.field.as_ref().map(|field| field.span.clone())),
        ("command", "command", span_of(&raw.command)),
    ];
    for (name, kind, at) in settings {
        let Some(at) = at.filter(|_| kind != chosen) else { continue };
        let what = format!("`{name}` has no effect on a probe of kind \"{chosen}\"");
        let help = format!("write kind = \"{kind}\", or leave {name} out");
        let problem = Problem::error(ProblemCode::Contradiction, at, what).help(help);
        problems.push(match span_of(&raw.kind) {
            Some(kind) => problem.related(kind, "the kind is set here"),
            None => problem,
        });
    }
}

fn http_probe(raw: &RawProbe, problems: &mut Problems) -> ProbeKind {
    let status = in_range("status", &raw.status, 200, 100..=599, problems);
    let path = raw.http_path.as_ref().map_or("/health", |path| path.get_ref());
    if let Some(at) = span_of(&raw.http_path).filter(|_| !is_request_path(path)) {
        let what = format!("`http_path` is \"{}\", which is not a path", shorten(path));
        let help = "write a path that begins with /, such as \"/health\"";
        problems.push(Problem::error(ProblemCode::BadValue, at, what).help(help));
    }
    let field = raw.field.as_ref().and_then(|field| {
        let (pointer, value) = (field.pointer.as_ref()?, field.value.as_ref()?);
        if !pointer.get_ref().starts_with('/') {
            let what = format!(
                "`pointer` is \"{}\", which is not a JSON pointer",
                shorten(pointer.get_ref())
            );
            let help = "write a / before each name, as in \"/status\", \"/checks/0/state\"";
            problems.push(Problem::error(ProblemCode::BadValue, pointer.span(), what).help(help));
        }
        Some((pointer.get_ref().clone(), value.get_ref().clone()))
    });
    let status = u16::try_from(status).unwrap_or(200);
    ProbeKind::Http { path: path.to_owned(), status, field }
}

fn command_probe(raw: &RawProbe, service_span: Range<usize>, problems: &mut Problems) -> ProbeKind {
    if !raw.has_command {
        let at = span_of(&raw.kind).unwrap_or(service_span);
        let what = "`command` is missing: a probe of kind \"command\" runs one";
        let help = "write command = [\"/opt/x/check\", \"{port}\"], or another kind";
        problems.push(Problem::error(ProblemCode::Missing, at, what).help(help));
    }
    let command = raw.command.as_ref();
    let argv = command.map(|it| argv("command", it, &PROBE_PLACEHOLDERS, problems));
    ProbeKind::Command(argv.unwrap_or_default())
}
