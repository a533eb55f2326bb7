//! How a release is probed: the settings of the chosen kind, and none of another.

use std::ops::Range;
use std::time::Duration;

use super::bounds::{bounded, span};
use super::problem::{Code, Problem, Problems};
use super::settings::{Probe, ProbeKind};
use super::table::brief;
use super::value::say;
use super::written;
use super::{promise, runtime};

/// Checks the probe of a service; the failures in a row that mean down go to the judge.
pub(super) fn check(service: &written::Service, problems: &mut Problems) -> (Probe, u32) {
    const SECOND: Duration = Duration::from_secs(1);
    let written = &service.probe;
    let times = Duration::from_millis(50)..=Duration::from_mins(1);
    let every = bounded("every", &written.every, SECOND, times, problems);
    let times = Duration::from_millis(10)..=Duration::from_secs(30);
    let timeout = bounded("timeout", &written.timeout, 2 * SECOND, times, problems);
    let ready = small(bounded("ready", &written.ready, 3, 1..=100, problems));
    let failures = small(bounded("failures", &written.failures, 3, 1..=100, problems));
    foreign(written, problems);
    if let Some(at) = span(&written.timeout).filter(|_| timeout > promise::CONFIRM_MAX) {
        let most = say(promise::CONFIRM_MAX);
        let what = format!(
            "answers may take {}, but before a rollback the warm release must answer within {most}",
            say(timeout),
        );
        let help = format!("write at most \"{most}\", or probe something that is faster");
        problems.push(Problem::warning(Code::TooSlow, at, what).help(help));
    }
    let kind = match written.kind.as_ref().map_or("mcp", |kind| kind.get_ref()) {
        "http" => http(written, problems),
        "tcp" => ProbeKind::Tcp,
        "command" => command(service, problems),
        _ => ProbeKind::Mcp,
    };
    (Probe { kind, every, timeout, ready }, failures)
}

/// Settings of a kind that was not chosen.
fn foreign(written: &written::Probe, problems: &mut Problems) {
    let chosen = written.kind.as_ref().map_or("mcp", |kind| kind.get_ref());
    let settings: [(&str, &str, Option<Range<usize>>); 4] = [
        ("http_path", "http", span(&written.http_path)),
        ("status", "http", span(&written.status)),
        ("field", "http", written.field.as_ref().map(|field| field.at.clone())),
        ("command", "command", span(&written.command)),
    ];
    for (name, kind, at) in settings {
        let Some(at) = at.filter(|_| kind != chosen) else { continue };
        let what = format!("`{name}` has no effect on a probe of kind \"{chosen}\"");
        let help = format!("write kind = \"{kind}\", or leave {name} out");
        let problem = Problem::error(Code::Contradiction, at, what).help(help);
        problems.push(match span(&written.kind) {
            Some(kind) => problem.also(kind, "the kind is chosen here"),
            None => problem,
        });
    }
}

fn http(written: &written::Probe, problems: &mut Problems) -> ProbeKind {
    let status = bounded("status", &written.status, 200, 100..=599, problems);
    let path = written.http_path.as_ref().map_or("/health", |path| path.get_ref());
    if let Some(at) = span(&written.http_path).filter(|_| !usable(path)) {
        let what = format!("`http_path` is \"{}\", which is not a path", brief(path));
        let help = "write a path that begins with /, such as \"/health\"";
        problems.push(Problem::error(Code::BadValue, at, what).help(help));
    }
    let field = written.field.as_ref().and_then(|field| {
        let (pointer, value) = (field.pointer.as_ref()?, field.value.as_ref()?);
        if !pointer.get_ref().starts_with('/') {
            let what = format!("`pointer` is \"{}\", not a pointer", brief(pointer.get_ref()));
            let help = "write a / before each name: \"/status\", \"/checks/0/state\"";
            problems.push(Problem::error(Code::BadValue, pointer.span(), what).help(help));
        }
        Some((pointer.get_ref().clone(), value.get_ref().clone()))
    });
    let status = u16::try_from(status).unwrap_or(200);
    ProbeKind::Http { path: path.to_owned(), status, field }
}

fn command(service: &written::Service, problems: &mut Problems) -> ProbeKind {
    let written = &service.probe;
    if !written.has_command {
        let at = span(&written.kind).unwrap_or(service.name.span());
        let what = "`command` is missing from the probe: kind = \"command\" runs one";
        let help = "write command = [\"/opt/x/check\", \"{port}\"], or another kind";
        problems.push(Problem::error(Code::Missing, at, what).help(help));
    }
    let command = written.command.as_ref();
    let argv = command.map(|it| runtime::argv("command", it, &runtime::PROBE, problems));
    ProbeKind::Command(argv.unwrap_or_default())
}

/// Whether a path can stand in the first line of a request.
pub(super) fn usable(path: &str) -> bool {
    let plain = |it: char| it.is_ascii_graphic() && !['#', '\\', '"', '<', '>'].contains(&it);
    path.starts_with('/') && path.len() <= 1024 && path.chars().all(plain)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
