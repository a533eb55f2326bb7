//! How a release is probed: the settings of the chosen kind, and none of another.

use std::ops::Range;
use std::time::Duration;

use super::problem::{Problem, ProblemCode, Problems};
use super::runtime;
use super::settings::{ProbeKind, ProbeSettings};
use super::value::format_duration;
use crate::config::range::{in_range, span_of};
use crate::config::toml_table::shorten;
use crate::config::{raw, slo};

/// Checks the probe of a service; the failures in a row that mean down go to the judge.
pub(super) fn check(service: &raw::RawService, problems: &mut Problems) -> (ProbeSettings, u32) {
    const SECOND: Duration = Duration::from_secs(1);
    let raw = &service.probe;
    let interval_range = Duration::from_millis(50)..=Duration::from_mins(1);
    let every = in_range("every", &raw.every, SECOND, interval_range, problems);
    let timeout_range = Duration::from_millis(10)..=Duration::from_secs(30);
    let timeout = in_range("timeout", &raw.timeout, 2 * SECOND, timeout_range, problems);
    let ready = saturating_u32(in_range("ready", &raw.ready, 3, 1..=100, problems));
    let failures = saturating_u32(in_range("failures", &raw.failures, 3, 1..=100, problems));
    reject_other_kinds(raw, problems);
    if let Some(at) = span_of(&raw.timeout).filter(|_| timeout > slo::CONFIRM_TIMEOUT_MAX) {
        let max = format_duration(slo::CONFIRM_TIMEOUT_MAX);
        let what = format!(
            "answers may take {}, but before a rollback the warm release must answer within {max}",
            format_duration(timeout),
        );
        let help = format!("write at most \"{max}\", or probe something that is faster");
        problems.push(Problem::warning(ProblemCode::TooSlow, at, what).help(help));
    }
    let kind = match raw.kind.as_ref().map_or("mcp", |kind| kind.get_ref()) {
        "http" => http_probe(raw, problems),
        "tcp" => ProbeKind::Tcp,
        "command" => command_probe(service, problems),
        _ => ProbeKind::Mcp,
    };
    (ProbeSettings { kind, interval: every, timeout, ready_after: ready }, failures)
}

/// Settings of a kind that was not chosen.
fn reject_other_kinds(raw: &raw::RawProbe, problems: &mut Problems) {
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
            Some(kind) => problem.related(kind, "the kind is chosen here"),
            None => problem,
        });
    }
}

fn http_probe(raw: &raw::RawProbe, problems: &mut Problems) -> ProbeKind {
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
            let what = format!("`pointer` is \"{}\", not a pointer", shorten(pointer.get_ref()));
            let help = "write a / before each name: \"/status\", \"/checks/0/state\"";
            problems.push(Problem::error(ProblemCode::BadValue, pointer.span(), what).help(help));
        }
        Some((pointer.get_ref().clone(), value.get_ref().clone()))
    });
    let status = u16::try_from(status).unwrap_or(200);
    ProbeKind::Http { path: path.to_owned(), status, field }
}

fn command_probe(service: &raw::RawService, problems: &mut Problems) -> ProbeKind {
    let raw = &service.probe;
    if !raw.has_command {
        let at = span_of(&raw.kind).unwrap_or(service.name.span());
        let what = "`command` is missing from the probe: kind = \"command\" runs one";
        let help = "write command = [\"/opt/x/check\", \"{port}\"], or another kind";
        problems.push(Problem::error(ProblemCode::Missing, at, what).help(help));
    }
    let command = raw.command.as_ref();
    let argv =
        command.map(|it| runtime::argv("command", it, &runtime::PROBE_PLACEHOLDERS, problems));
    ProbeKind::Command(argv.unwrap_or_default())
}

/// Whether a path can stand in the first line of a request.
pub(super) fn is_request_path(path: &str) -> bool {
    let plain = |it: char| it.is_ascii_graphic() && !['#', '\\', '"', '<', '>'].contains(&it);
    path.starts_with('/') && path.len() <= 1024 && path.chars().all(plain)
}

fn saturating_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
