//! How releases run: as a command, as systemd units, or started externally.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::artifact::ArtifactKind;
use crate::config::address::Address;
use crate::config::placeholder::{START_PLACEHOLDERS, argv, placeholders};
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::range::{in_range, saturating_u32, span_of};
use crate::config::release_user::{self, ReleaseUser};
use crate::config::toml_table::TomlTable;
use crate::config::value::{
    Raw, RawMap, ValueError, absolute_path, duration, map_of, one_of, string, string_list,
    unsigned_integer,
};
use crate::model::{Release, Slot};

const RUNTIME_EXAMPLE: &str =
    "\"command\", \"systemd\", or \"external\" if the releases are started externally";

const ENV_NAME_MAX: usize = 256;

/// systemd accepts 255 bytes, with the slot and the suffix.
const UNIT_NAME_MAX: usize = 200;

/// How a release runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Runtime {
    /// The daemon starts, watches, restarts and stops it.
    Command(CommandRuntime),
    /// systemd runs it as an instance of a template for each slot; the daemon starts and stops it.
    Systemd(UnitTemplate),
    /// Started externally: the daemon only watches it and switches the traffic.
    External,
}

/// A command. `{version}`, `{artifact}`, `{slot}` and `{port}` are replaced at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRuntime {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// Its environment, besides the daemon's `PATH` and the variables of the deploy.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub working_dir: Option<PathBuf>,
    /// Who it runs as; the daemon's user if there is none.
    pub user: Option<ReleaseUser>,
    /// The time from SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
}

/// A template of systemd units, with one instance for each slot.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitTemplate {
    /// Its name, such as `mcp-weather@.service`.
    pub unit: String,
    /// The environment of its instances, besides the variables of the deploy.
    pub env: BTreeMap<String, String>,
    /// How long the daemon waits for a stop. systemd continues to stop it after that.
    pub stop_timeout: Duration,
    /// CPUWeight= and IOWeight= of a warm release without traffic.
    pub warm_weight: u64,
}

impl UnitTemplate {
    /// The unit of a slot, such as `mcp-weather@blue.service`.
    pub fn unit_of(&self, slot: &Slot) -> String {
        self.unit.replacen('@', &format!("@{slot}"), 1)
    }
}

/// How the releases run.
pub(super) struct RawRuntime {
    pub(super) kind: Raw<&'static str>,
    /// Whether the key exists, with a right or a wrong value.
    pub(super) has_command: bool,
    pub(super) command: Raw<Vec<Spanned<String>>>,
    pub(super) env: Raw<RawMap<String>>,
    pub(super) dir: Raw<PathBuf>,
    pub(super) user: Raw<String>,
    pub(super) stop_timeout: Raw<Duration>,
    pub(super) unit: Raw<String>,
    pub(super) warm_weight: Raw<u64>,
    pub(super) artifact: Raw<&'static str>,
    pub(super) keep_artifacts: Raw<u64>,
}

pub(super) fn read(table: &mut TomlTable<'_>, problems: &mut Problems) -> RawRuntime {
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
        user: table.read("user", string, problems),
        stop_timeout: table.read("stop_timeout", duration, problems),
        unit: table.read("unit", string, problems),
        warm_weight: table.read("warm_weight", unsigned_integer, problems),
        artifact: table.read("artifact", artifact_word, problems),
        keep_artifacts: table.read("keep_artifacts", unsigned_integer, problems),
    }
}

/// The word for the kind of artifact. Before 0.2.0 `"opaque"` was `"word"`.
fn artifact_word(value: &DeValue<'_>) -> Result<&'static str, ValueError> {
    if value.as_str() == Some("word") {
        return Ok("opaque");
    }
    one_of(["auto", "image", "path", "opaque"])(value)
}

/// Checks how a service runs.
pub(super) fn check(
    raw: &RawRuntime,
    service_span: Range<usize>,
    slots: &BTreeMap<Slot, Address>,
    problems: &mut Problems,
) -> Runtime {
    let max = Duration::from_mins(5);
    let default = Duration::from_secs(10);
    let stop = in_range("stop_timeout", &raw.stop_timeout, default, Duration::ZERO..=max, problems);
    let kind = raw.kind.as_ref().map(|kind| *kind.get_ref());
    reject_unused_settings(raw, kind, problems);
    match kind {
        Some("external") => return Runtime::External,
        Some("systemd") => return systemd_runtime(raw, service_span, stop, problems),
        _ => (),
    }
    // Without a known runtime the rest is checked as a command, which is most likely.
    if !raw.has_command && raw.kind.is_some() {
        let what = "`command` is missing: runtime = \"command\" starts one";
        let help = "write command = [\"/opt/x/{version}/server\"], or runtime = \"external\"";
        problems.push(Problem::error(ProblemCode::Missing, service_span, what).help(help));
    }
    let argv = match &raw.command {
        Some(command) => argv("command", command, &START_PLACEHOLDERS, problems),
        None => Vec::new(),
    };
    if let Some(command) = &raw.command {
        check_port_placeholder(command, slots, problems);
        check_release_placeholder(command, problems);
    }
    let env = environment(raw, problems);
    let dir = raw.dir.as_ref().map(|dir| dir.get_ref().clone());
    let user = release_user::check(&raw.user, problems);
    Runtime::Command(CommandRuntime { argv, env, working_dir: dir, user, stop_timeout: stop })
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

/// A command has to differ between releases. A script can use the variables of the release itself.
fn check_release_placeholder(command: &Spanned<Vec<Spanned<String>>>, problems: &mut Problems) {
    let words = || command.get_ref().iter().map(|word| word.get_ref().as_str());
    // A placeholder that is not known is another problem.
    let differs = |name: &str| name != "port";
    let uses_variable = |word: &str| word.contains("ROLLBACKD_");
    if words().next().is_none()
        || words().flat_map(placeholders).any(differs)
        || words().any(uses_variable)
    {
        return;
    }
    let what =
        "`command` has no {version}, {artifact} or {slot}: every release runs the same program";
    let help = "write what differs, such as \"/opt/x/{version}/server\", unless the program reads \
                ROLLBACKD_VERSION itself";
    problems.push(Problem::warning(ProblemCode::SameCommand, command.span(), what).help(help));
}

fn environment(raw: &RawRuntime, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(env) = &raw.env else {
        return BTreeMap::new();
    };
    for name in env.get_ref().keys() {
        let text = name.get_ref();
        let shown = shorten(text).escape_debug().to_string();
        if text.is_empty() || text.contains(['=', '\0']) || text.len() > ENV_NAME_MAX {
            let what = format!("`{shown}` is not a valid name of an environment variable");
            let help =
                format!("write 1 to {ENV_NAME_MAX} bytes without = and NUL, such as NODE_ENV");
            problems.push(Problem::error(ProblemCode::BadName, name.span(), what).help(help));
        } else if Release::is_reserved_variable(text) {
            let what = format!("`{shown}` is set by the daemon for each release");
            let help = "leave it out of env";
            problems.push(Problem::error(ProblemCode::Contradiction, name.span(), what).help(help));
        }
    }
    let pairs = env.get_ref().iter();
    pairs.map(|(name, value)| (name.get_ref().clone(), value.get_ref().clone())).collect()
}

/// Reports settings that the chosen runtime does not use.
fn reject_unused_settings(raw: &RawRuntime, kind: Option<&str>, problems: &mut Problems) {
    let command_settings = [
        ("command", span_of(&raw.command)),
        ("dir", span_of(&raw.dir)),
        ("user", span_of(&raw.user)),
    ];
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
        Some("external") => {
            ("the releases are started externally", "the daemon does not start them")
        }
        Some("systemd") => ("the unit defines what runs", "systemd starts them"),
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

fn systemd_runtime(
    raw: &RawRuntime,
    service_span: Range<usize>,
    stop: Duration,
    problems: &mut Problems,
) -> Runtime {
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
            problems.push(Problem::error(ProblemCode::Missing, service_span, what).help(help));
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

/// Whether it is `NAME@.service`, with characters that systemd accepts.
fn is_unit_template(unit: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, ':' | '-' | '_' | '.');
    unit.strip_suffix("@.service")
        .is_some_and(|name| (1..=UNIT_NAME_MAX).contains(&name.len()) && name.chars().all(plain))
}

/// Reports units of two services: they would stop each other's releases.
pub(super) fn check_units_distinct<'a>(
    runtimes: impl Iterator<Item = &'a RawRuntime>,
    problems: &mut Problems,
) {
    let mut seen: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    for unit in runtimes.filter_map(|runtime| runtime.unit.as_ref()) {
        match seen.get(unit.get_ref().as_str()) {
            Some(first) => {
                let what = format!("`{}` already runs another service", shorten(unit.get_ref()));
                let help = "give each service a template of its own";
                let problem =
                    Problem::error(ProblemCode::Contradiction, unit.span(), what).help(help);
                problems.push(problem.related(first.clone(), "it is used here first"));
            }
            None => _ = seen.insert(unit.get_ref(), unit.span()),
        }
    }
}

/// The kind of the artifacts.
pub(super) fn artifact_kind(raw: &RawRuntime) -> ArtifactKind {
    match raw.artifact.as_ref().map(|kind| *kind.get_ref()) {
        Some("image") => ArtifactKind::Image,
        Some("path") => ArtifactKind::Path,
        Some("opaque") => ArtifactKind::Opaque,
        _ => ArtifactKind::Auto,
    }
}

/// How many releases keep their artifacts: at least the active and the warm one.
pub(super) fn keep_artifacts(raw: &RawRuntime, problems: &mut Problems) -> u32 {
    saturating_u32(in_range("keep_artifacts", &raw.keep_artifacts, 5, 2..=100, problems))
}
