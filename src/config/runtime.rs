//! How releases run: the command, its environment, and the placeholders in it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::problem::{Problem, ProblemCode, Problems};
use super::settings::{Address, CommandRuntime, Runtime, UnitTemplate};
use crate::artifact::ArtifactKind;
use crate::config::range::{in_range, span_of};
use crate::config::raw;
use crate::config::toml_table::{closest_match, shorten};
use crate::model::{Release, Slot};

/// What is filled in at the start of a release.
const START_PLACEHOLDERS: [&str; 4] = ["version", "artifact", "slot", "port"];
/// What is filled in for the command of a probe.
pub(super) const PROBE_PLACEHOLDERS: [&str; 3] = ["port", "slot", "version"];
const ENV_NAME_MAX: usize = 256;
/// systemd takes 255 bytes with the slot and the ending.
const UNIT_NAME_MAX: usize = 200;

/// Checks how a service runs.
pub(super) fn check(
    service: &raw::RawService,
    slots: &BTreeMap<Slot, Address>,
    problems: &mut Problems,
) -> Runtime {
    let raw = &service.runtime;
    let max = Duration::from_mins(5);
    let default = Duration::from_secs(10);
    let stop = in_range("stop_timeout", &raw.stop_timeout, default, Duration::ZERO..=max, problems);
    let kind = raw.kind.as_ref().map(|kind| *kind.get_ref());
    reject_unused_settings(raw, kind, problems);
    match kind {
        Some("external") => return Runtime::External,
        Some("systemd") => return systemd_runtime(service, stop, problems),
        _ => (),
    }
    // Without a known runtime the rest is checked all the same: it is most likely a command.
    if !raw.has_command && raw.kind.is_some() {
        let what = "`command` is missing: runtime = \"command\" starts one";
        let help = "write command = [\"/opt/x/{version}/server\"], or runtime = \"external\"";
        problems.push(Problem::error(ProblemCode::Missing, service.name.span(), what).help(help));
    }
    let argv = match &raw.command {
        Some(command) => argv("command", command, &START_PLACEHOLDERS, problems),
        None => Vec::new(),
    };
    if let Some(command) = &raw.command {
        check_port_placeholder(command, slots, problems);
    }
    let env = environment(raw, problems);
    let dir = raw.dir.as_ref().map(|dir| dir.get_ref().clone());
    Runtime::Command(CommandRuntime { argv, env, working_dir: dir, stop_timeout: stop })
}

/// The words of a command; `check_placeholders` placeholders may stand in them.
pub(super) fn argv(
    name: &str,
    command: &Spanned<Vec<Spanned<String>>>,
    known: &[&'static str],
    problems: &mut Problems,
) -> Vec<String> {
    let words = command.get_ref();
    if words.first().is_none_or(|program| program.get_ref().trim().is_empty()) {
        let what = format!("`{name}` names no program");
        let help = "write the program first, then each argument: [\"/opt/x/server\", \"--fast\"]";
        problems.push(Problem::error(ProblemCode::BadValue, command.span(), what).help(help));
    }
    for word in words {
        check_placeholders(word.get_ref(), word.span(), known, problems);
    }
    words.iter().map(|word| word.get_ref().clone()).collect()
}

/// Whether every placeholder in a text is known.
pub(super) fn check_placeholders(
    text: &str,
    at: Range<usize>,
    known: &[&'static str],
    problems: &mut Problems,
) {
    for placeholder in placeholders(text).filter(|it| !known.contains(it)) {
        problems.push(unknown_placeholder(placeholder, at.clone(), known));
    }
}

fn unknown_placeholder(placeholder: &str, at: Range<usize>, known: &[&'static str]) -> Problem {
    let list = known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
    let shown = shorten(placeholder);
    match closest_match(placeholder, known) {
        Some(suggestion) => {
            let what = format!("{{{shown}}} is never filled in");
            Problem::error(ProblemCode::UnknownPlaceholder, at, what)
                .help(format!("did you mean {{{suggestion}}}?"))
        }
        // A script may well hold braces of its own.
        None => {
            let what = format!("{{{shown}}} is not filled in and reaches the program as it is");
            Problem::warning(ProblemCode::UnknownPlaceholder, at, what)
                .help(format!("only {list} are filled in"))
        }
    }
}

/// The names between braces: small letters, digits, `_` and `-`.
fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let plain = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    })
}

fn check_port_placeholder(
    command: &Spanned<Vec<Spanned<String>>>,
    slots: &BTreeMap<Slot, Address>,
    problems: &mut Problems,
) {
    let unix_slot = slots.iter().find(|(_, address)| matches!(address, Address::Unix(_)));
    let word = command
        .get_ref()
        .iter()
        .find(|word| placeholders(word.get_ref()).any(|placeholder| placeholder == "port"));
    if let (Some((slot, address)), Some(word)) = (unix_slot, word) {
        let what = format!("{{port}} has no value in slot `{slot}`, which is {address}");
        let help = "give every slot an IP address and a port, or leave {port} out";
        problems.push(Problem::error(ProblemCode::Contradiction, word.span(), what).help(help));
    }
}

fn environment(raw: &raw::RawRuntime, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(env) = &raw.env else {
        return BTreeMap::new();
    };
    for name in env.get_ref().keys() {
        let text = name.get_ref();
        let shown = shorten(text).escape_debug().to_string();
        if text.is_empty() || text.contains(['=', '\0']) || text.len() > ENV_NAME_MAX {
            let what = format!("`{shown}` can not be the name of an environment variable");
            let help = "write 1 to 256 characters without = and NUL, such as NODE_ENV";
            problems.push(Problem::error(ProblemCode::BadName, name.span(), what).help(help));
        } else if Release::is_reserved_variable(text) {
            let what = format!("`{shown}` is set by the daemon, for each release");
            let help = "leave it out of env";
            problems.push(Problem::error(ProblemCode::Contradiction, name.span(), what).help(help));
        }
    }
    let pairs = env.get_ref().iter();
    pairs.map(|(name, value)| (name.get_ref().clone(), value.get_ref().clone())).collect()
}

/// Settings that the chosen runtime does not read.
fn reject_unused_settings(raw: &raw::RawRuntime, kind: Option<&str>, problems: &mut Problems) {
    let command_settings = [("command", span_of(&raw.command)), ("dir", span_of(&raw.dir))];
    let start_settings = [("env", span_of(&raw.env)), ("stop_timeout", span_of(&raw.stop_timeout))];
    let unit_settings = [("unit", span_of(&raw.unit)), ("warm_weight", span_of(&raw.warm_weight))];
    let ignored: Vec<_> = match kind {
        Some("external") => {
            command_settings.into_iter().chain(start_settings).chain(unit_settings).collect()
        }
        Some("systemd") => command_settings.to_vec(),
        Some(_) => unit_settings.to_vec(),
        None => return,
    };
    let (reason, label) = match kind {
        Some("external") => ("somebody else runs the releases", "the daemon does not start them"),
        Some("systemd") => ("the unit says what is run", "systemd starts them"),
        _ => ("the daemon runs the releases itself", "the daemon starts them"),
    };
    for (name, at) in ignored {
        let Some(at) = at else { continue };
        let other = if matches!(name, "unit" | "warm_weight") { "systemd" } else { "command" };
        let what = format!("`{name}` has no effect: {reason}");
        let help = format!("write runtime = \"{other}\", or leave {name} out");
        let problem = Problem::error(ProblemCode::Contradiction, at, what).help(help);
        problems.push(match span_of(&raw.kind) {
            Some(kind) => problem.related(kind, label),
            None => problem,
        });
    }
}

fn systemd_runtime(service: &raw::RawService, stop: Duration, problems: &mut Problems) -> Runtime {
    let raw = &service.runtime;
    let unit = match &raw.unit {
        Some(unit) => {
            if !is_unit_template(unit.get_ref()) {
                let what = format!(
                    "`unit` is \"{}\", which is not a template: each slot needs a unit of its own",
                    shorten(unit.get_ref())
                );
                let help = "write the name of a template, such as \"mcp-weather@.service\": slot blue is \
                            then mcp-weather@blue.service";
                problems.push(Problem::error(ProblemCode::BadValue, unit.span(), what).help(help));
            }
            unit.get_ref().clone()
        }
        None => {
            let what = "`unit` is missing: runtime = \"systemd\" starts its instances";
            let help = "write unit = \"mcp-weather@.service\", the name of the template";
            problems
                .push(Problem::error(ProblemCode::Missing, service.name.span(), what).help(help));
            String::new()
        }
    };
    let warm_weight = in_range("warm_weight", &raw.warm_weight, 20, 1..=10_000, problems);
    Runtime::Systemd(UnitTemplate {
        unit,
        env: environment(raw, problems),
        stop_timeout: stop,
        warm_weight,
    })
}

/// `NAME@.service`, of characters that systemd takes.
fn is_unit_template(unit: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, ':' | '-' | '_' | '.');
    unit.strip_suffix("@.service")
        .is_some_and(|name| (1..=UNIT_NAME_MAX).contains(&name.len()) && name.chars().all(plain))
}

/// Two services with the same units would stop each other's releases.
pub(super) fn check_units_distinct(raw: &raw::RawConfig, problems: &mut Problems) {
    let mut seen: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    for unit in raw.services.iter().filter_map(|service| service.runtime.unit.as_ref()) {
        match seen.get(unit.get_ref().as_str()) {
            Some(first) => {
                let what = format!("`{}` runs another service already", shorten(unit.get_ref()));
                let help = "give each service a template of its own";
                let problem =
                    Problem::error(ProblemCode::Contradiction, unit.span(), what).help(help);
                problems.push(problem.related(first.clone(), "it is named here first"));
            }
            None => _ = seen.insert(unit.get_ref(), unit.span()),
        }
    }
}

/// What artifacts are, as it is written.
pub(super) fn artifact_kind(raw: &raw::RawRuntime) -> ArtifactKind {
    match raw.artifact.as_ref().map(|kind| *kind.get_ref()) {
        Some("image") => ArtifactKind::Image,
        Some("path") => ArtifactKind::Path,
        Some("word") => ArtifactKind::Opaque,
        _ => ArtifactKind::Auto,
    }
}

/// Of how many releases the artifacts are kept: the active and the warm one at least.
pub(super) fn keep_artifacts(raw: &raw::RawRuntime, problems: &mut Problems) -> u32 {
    let kept = in_range("keep_artifacts", &raw.keep_artifacts, 5, 2..=100, problems);
    u32::try_from(kept).unwrap_or(u32::MAX)
}
