//! The channels that tell people: `[notify.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use crate::config::channel::{ChannelSettings, ChannelTarget};
use crate::config::email::{self, RawEmail};
use crate::config::name::check_name;
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::range::in_range;
use crate::config::secret::{SecretSource, check_secret};
use crate::config::toml_table::TomlTable;
use crate::config::value::{Raw, absolute_path, duration, one_of, string, string_list, type_name};
use crate::incident::NoticeKind;

/// The most channels: each has a task and a queue.
const CHANNELS_MAX: usize = 16;
/// The kinds that a channel takes by default: what a person wants to know without asking.
const DEFAULT_KINDS: [NoticeKind; 4] =
    [NoticeKind::Page, NoticeKind::Warn, NoticeKind::Resolved, NoticeKind::Reminder];
const PAGER_KINDS: [NoticeKind; 2] = [NoticeKind::Page, NoticeKind::Resolved];
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
const TYPES: [&str; 7] =
    ["webhook", "slack", "pagerduty", "alertmanager", "ntfy", "email", "command"];

/// `[notify.NAME]`.
pub(super) struct RawChannel {
    name: Spanned<String>,
    channel_type: Raw<&'static str>,
    url: Raw<String>,
    format: Raw<&'static str>,
    command: Raw<Vec<Spanned<String>>>,
    email: RawEmail,
    secret_file: Raw<PathBuf>,
    secret_credential: Raw<String>,
    kinds: Raw<Vec<Spanned<String>>>,
    services: Raw<Vec<Spanned<String>>>,
    timeout: Raw<Duration>,
}

/// Reads the tables.
pub(super) fn read(table: TomlTable<'_>, problems: &mut Problems) -> Vec<RawChannel> {
    let mut channels = Vec::new();
    for (key, value) in table.entries() {
        let name = Spanned::new(key.span(), key.get_ref().clone().into_owned());
        let Some(settings) = value.get_ref().as_table() else {
            let name = shorten(name.get_ref());
            let kind = type_name(value.get_ref());
            let what = format!("`{name}` is {kind}, not the settings of a channel");
            let help = "write [notify.NAME], with a name for the channel, above its settings";
            problems.push(Problem::error(ProblemCode::WrongType, key.span(), what).help(help));
            continue;
        };
        let table = TomlTable::new("a channel", key.span(), settings);
        channels.push(read_channel(table, name, problems));
    }
    channels.sort_by_key(|channel| channel.name.span().start);
    channels
}

fn read_channel(
    mut table: TomlTable<'_>,
    name: Spanned<String>,
    problems: &mut Problems,
) -> RawChannel {
    let channel = RawChannel {
        name,
        channel_type: table.required("type", "\"webhook\"", one_of(TYPES), problems),
        url: table.read("url", string, problems),
        format: table.read("format", one_of(["structured", "binary"]), problems),
        command: table.read("command", string_list, problems),
        email: email::read(&mut table, problems),
        secret_file: table.read("secret_file", absolute_path, problems),
        secret_credential: table.read("secret_credential", string, problems),
        kinds: table.read("kinds", string_list, problems),
        services: table.read("services", string_list, problems),
        timeout: table.read("timeout", duration, problems),
    };
    table.reject_unknown_keys(problems);
    channel
}

/// Checks the channels. `services` are the names of all services.
pub(super) fn check(
    raw: &[RawChannel],
    services: &BTreeSet<String>,
    problems: &mut Problems,
) -> BTreeMap<String, ChannelSettings> {
    if let Some(channel) = raw.get(CHANNELS_MAX) {
        let what = format!("there are {} channels, more than {CHANNELS_MAX}", raw.len());
        let help = "remove some; one channel can take the notices of several services";
        problems
            .push(Problem::error(ProblemCode::OutOfRange, channel.name.span(), what).help(help));
    }
    let checked = raw.iter().take(CHANNELS_MAX).filter_map(|it| {
        let channel = check_channel(it, services, problems)?;
        Some((channel.name.clone(), channel))
    });
    checked.collect()
}

fn check_channel(
    raw: &RawChannel,
    services: &BTreeSet<String>,
    problems: &mut Problems,
) -> Option<ChannelSettings> {
    check_name("a channel", &raw.name, problems);
    let kind = raw.channel_type.as_ref().map(|it| *it.get_ref());
    if let Some(kind) = kind {
        reject_other_keys(raw, kind, problems);
    }
    let name = raw.name.get_ref().clone();
    let limits = Duration::from_secs(1)..=Duration::from_mins(1);
    let timeout = in_range("timeout", &raw.timeout, Duration::from_secs(10), limits, problems);
    let kinds = kinds(raw, kind, problems);
    let services = services_of(raw, services, problems);
    let target = target(raw, kind?, problems)?;
    Some(ChannelSettings { name, target, kinds, services, timeout })
}

/// Where the notices go. None after a problem.
fn target(raw: &RawChannel, kind: &str, problems: &mut Problems) -> Option<ChannelTarget> {
    let is_optional = ["webhook", "alertmanager", "ntfy", "email"].contains(&kind);
    let secret = match kind {
        "command" => None,
        _ => secret(raw, (!is_optional).then_some(kind), problems),
    };
    match kind {
        "webhook" => Some(ChannelTarget::Webhook {
            url: url(raw, kind, problems)?,
            key: secret,
            binary: raw.format.as_ref().is_some_and(|it| *it.get_ref() == "binary"),
        }),
        "slack" => Some(ChannelTarget::Slack { url: secret? }),
        "pagerduty" => {
            let url = match raw.url {
                Some(_) => url(raw, kind, problems)?,
                None => PAGERDUTY_URL.to_owned(),
            };
            Some(ChannelTarget::PagerDuty { url, key: secret? })
        }
        "alertmanager" => {
            Some(ChannelTarget::Alertmanager { url: url(raw, kind, problems)?, token: secret })
        }
        "ntfy" => Some(ChannelTarget::Ntfy { url: url(raw, kind, problems)?, token: secret }),
        "email" => {
            email::check(&raw.email, raw.name.span(), secret, problems).map(ChannelTarget::Email)
        }
        _ => command(raw, problems),
    }
}

fn command(raw: &RawChannel, problems: &mut Problems) -> Option<ChannelTarget> {
    let words = raw.command.as_ref().map(|it| it.get_ref().as_slice()).unwrap_or_default();
    let words: Vec<_> = words.iter().map(|it| it.get_ref().clone()).collect();
    if words.first().is_none_or(|it| !it.starts_with('/')) {
        let at = raw.command.as_ref().map_or(raw.name.span(), Spanned::span);
        let what = "`command` names no program by its absolute path";
        let help = "write command = [\"/usr/local/bin/tell-people\"]; it gets JSON on its standard \
                    input and exits with 0";
        problems.push(Problem::error(ProblemCode::Missing, at, what).help(help));
        return None;
    }
    Some(ChannelTarget::Command(words))
}

/// The address, which the channel must have.
fn url(raw: &RawChannel, kind: &str, problems: &mut Problems) -> Option<String> {
    let example = match kind {
        "alertmanager" => "http://127.0.0.1:9093",
        "ntfy" => "https://ntfy.example.org/rollbackd",
        _ => "https://example.org/hooks/rollbackd",
    };
    let help = format!("write url = \"{example}\"");
    let Some(given) = &raw.url else {
        let what = format!("`url` is missing from a channel of type \"{kind}\"");
        problems.push(Problem::error(ProblemCode::Missing, raw.name.span(), what).help(help));
        return None;
    };
    let uri = given.get_ref().parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(|it| it.host());
    let scheme = uri.as_ref().and_then(|it| it.scheme_str());
    let has_topic = || uri.as_ref().is_some_and(|it| topic_of(it.path()).is_some());
    let (Some(host), Some("http" | "https")) = (host, scheme) else {
        let what = "`url` is not an http or https URL";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
        return None;
    };
    if kind == "ntfy" && !has_topic() {
        let what = "`url` has no topic";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
        return None;
    }
    if scheme == Some("http") && !is_loopback(host) {
        let what = "notices go unencrypted over the network, and so does a token";
        let help = "write an https URL";
        problems.push(Problem::warning(ProblemCode::BadValue, given.span(), what).help(help));
    }
    Some(given.get_ref().clone())
}

/// The topic of an address of ntfy: the last part of its path.
fn topic_of(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|it| !it.is_empty())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

/// The secret. A channel of the type `required_by` must have one.
fn secret(
    raw: &RawChannel,
    required_by: Option<&str>,
    problems: &mut Problems,
) -> Option<SecretSource> {
    let (source, at) = match (&raw.secret_file, &raw.secret_credential) {
        (Some(file), Some(credential)) => {
            let what = "`secret_file` and `secret_credential` both name the secret";
            let help = "write one of the two";
            let problem = Problem::error(ProblemCode::Contradiction, credential.span(), what);
            problems.push(problem.help(help).related(file.span(), "the file"));
            return None;
        }
        (Some(file), None) => (SecretSource::File(file.get_ref().clone()), file.span()),
        (None, Some(credential)) => {
            (SecretSource::Credential(credential.get_ref().clone()), credential.span())
        }
        (None, None) => {
            if let Some(kind) = required_by {
                let what = format!("a channel of type \"{kind}\" needs a secret");
                let help = "write secret_credential = \"NAME\" and LoadCredential=NAME:FILE in the \
                            unit, or secret_file = \"/etc/rollbackd/NAME.secret\"";
                problems
                    .push(Problem::error(ProblemCode::Missing, raw.name.span(), what).help(help));
            }
            return None;
        }
    };
    check_secret(&source, at, problems);
    Some(source)
}

/// Keys that have no effect for this type.
fn reject_other_keys(raw: &RawChannel, kind: &str, problems: &mut Problems) {
    let has_secret = kind != "command";
    let given = [
        (
            "url",
            raw.url.as_ref().map(Spanned::span),
            !["slack", "email", "command"].contains(&kind),
        ),
        ("format", raw.format.as_ref().map(Spanned::span), kind == "webhook"),
        ("command", raw.command.as_ref().map(Spanned::span), kind == "command"),
        ("secret_file", raw.secret_file.as_ref().map(Spanned::span), has_secret),
        ("secret_credential", raw.secret_credential.as_ref().map(Spanned::span), has_secret),
    ];
    let email = raw.email.given().into_iter().map(|(key, at)| (key, at, kind == "email"));
    for (key, at, is_used) in given.into_iter().chain(email) {
        let Some(at) = at.filter(|_| !is_used) else { continue };
        let what = format!("`{key}` has no effect in a channel of type \"{kind}\"");
        let help = match (kind, key) {
            ("slack", "url") => {
                "the URL is a secret: write it to a file, and name that file with \
                                 secret_file or secret_credential"
            }
            _ => "leave it out",
        };
        problems.push(Problem::error(ProblemCode::Contradiction, at, what).help(help));
    }
}

fn kinds(raw: &RawChannel, kind: Option<&str>, problems: &mut Problems) -> Vec<NoticeKind> {
    let Some(given) = &raw.kinds else {
        return match kind {
            Some("pagerduty") => PAGER_KINDS.to_vec(),
            _ => DEFAULT_KINDS.to_vec(),
        };
    };
    let mut kinds = Vec::new();
    for word in given.get_ref() {
        match NoticeKind::ALL.into_iter().find(|it| it.label() == word.get_ref()) {
            Some(kind) => kinds.push(kind),
            None => {
                let what = format!("\"{}\" is not a kind of notice", shorten(word.get_ref()));
                let help = "write some of \"page\", \"warn\", \"info\", \"resolved\", \"reminder\"";
                problems.push(Problem::error(ProblemCode::BadValue, word.span(), what).help(help));
            }
        }
    }
    if given.get_ref().is_empty() {
        let what = "`kinds` is empty: the channel never tells anything";
        let help = "leave it out, or write [\"page\", \"resolved\"]";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    }
    kinds
}

fn services_of(
    raw: &RawChannel,
    services: &BTreeSet<String>,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let Some(given) = &raw.services else { return BTreeSet::new() };
    for name in given.get_ref() {
        if !services.contains(name.get_ref()) {
            let what = format!("there is no service \"{}\"", shorten(name.get_ref()));
            let known: Vec<_> = services.iter().take(10).map(String::as_str).collect();
            let help = format!("write some of {}, or leave services out", known.join(", "));
            problems.push(Problem::error(ProblemCode::BadValue, name.span(), what).help(help));
        }
    }
    if given.get_ref().is_empty() {
        let what = "`services` is empty: the channel never tells anything";
        let help = "leave it out for all services";
        problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    }
    given.get_ref().iter().map(|it| it.get_ref().clone()).collect()
}
