//! Completion of what only the daemon knows: services, versions, deploys, incidents, channels.
//!
//! A shell runs `rollbackd` with `ROLLBACKD_COMPLETE` set at each tab. The daemon has little time to answer: without
//! one, nothing is completed, and nothing is printed.

use std::collections::BTreeSet;
use std::time::Duration;

use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use clap_complete::env::Shells;

use crate::cli::daemon_options::DaemonOptions;
use crate::control::{IncidentReply, IncidentRequest, Request, Response, Status};

/// A shell sets it to its name, such as `bash`, to get completions.
pub(super) const VARIABLE: &str = "ROLLBACKD_COMPLETE";
/// How long the daemon may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Numbers of deploys that are completed: the newest.
const DEPLOYS_MAX: u32 = 20;
/// Answers that are read.
const RESPONSES_MAX: usize = 512;

/// The script of the package with which a shell asks `rollbackd` for completions.
///
/// # Errors
/// No such shell is known.
pub fn completion_script(shell: &str) -> std::io::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or(std::io::ErrorKind::Unsupported)?;
    let mut script = Vec::new();
    let name = "rollbackd";
    completer.write_registration(VARIABLE, name, name, name, &mut script)?;
    if shell == "zsh" {
        // The first completion loads the file as the function `_rollbackd`, and is not asked again.
        script.extend_from_slice(
            b"\nif [ \"$funcstack[1]\" = \"_rollbackd\" ]; then\n    \
              _clap_dynamic_completer_rollbackd \"$@\"\nfi\n",
        );
    }
    Ok(script)
}

/// Names of services.
pub(super) fn services() -> ArgValueCompleter {
    completer(|| statuses().into_iter().map(|it| (it.service, it.phase)).collect())
}

/// Names of services, and files.
pub(super) fn services_and_files() -> ArgValueCompleter {
    let services = services();
    ArgValueCompleter::new(move |current: &std::ffi::OsStr| {
        let mut candidates = services.complete(current);
        candidates.extend(PathCompleter::file().complete(current));
        candidates
    })
}

/// Versions of the releases that the service runs or ran.
pub(super) fn versions() -> ArgValueCompleter {
    completer(|| {
        let mut versions = BTreeSet::new();
        for status in named_statuses() {
            versions.extend(status.releases.into_iter().map(|it| (it.version, it.role)));
        }
        let known: BTreeSet<_> = versions.iter().map(|(version, _)| version.clone()).collect();
        let rows = incidents().into_iter().map(|(_, version, state)| (version, state));
        versions.extend(rows.filter(|(version, _)| !known.contains(version)));
        versions.into_iter().collect()
    })
}

/// Numbers of the newest deploys.
pub(super) fn deploys() -> ArgValueCompleter {
    completer(|| {
        let newest = named_statuses().into_iter().map(|it| it.deploy.0).max().unwrap_or(0);
        let numbers = (1..=newest).rev().take(usize::try_from(DEPLOYS_MAX).unwrap_or(0));
        numbers.map(|number| (number.to_string(), String::new())).collect()
    })
}

/// Numbers of incidents.
pub(super) fn incident_numbers() -> ArgValueCompleter {
    completer(|| {
        let rows = incidents().into_iter();
        rows.map(|(number, version, state)| (number, format!("{version}, {state}"))).collect()
    })
}

/// Words that are known without the daemon.
pub(super) fn words_of(words: &'static [&'static str]) -> ArgValueCompleter {
    completer(move || words.iter().map(|word| ((*word).to_owned(), String::new())).collect())
}

/// Names of channels that tell people.
pub(super) fn channels() -> ArgValueCompleter {
    completer(|| {
        let channels = statuses().into_iter().flat_map(|status| status.channels);
        let names: BTreeSet<_> = channels.map(|it| (it.name, it.channel_type)).collect();
        names.into_iter().collect()
    })
}

fn completer(
    candidates: impl Fn() -> Vec<(String, String)> + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &std::ffi::OsStr| {
        let current = current.to_string_lossy().into_owned();
        let known = candidates().into_iter().filter(|(value, _)| value.starts_with(&*current));
        let candidate = |(value, help): (String, String)| {
            let help = (!help.is_empty()).then(|| help.into());
            CompletionCandidate::new(value).help(help)
        };
        known.map(candidate).collect::<Vec<_>>()
    })
}

/// The services that the command line names; all if it names none.
fn named_statuses() -> Vec<Status> {
    let words: BTreeSet<_> = words().collect();
    let (named, others): (Vec<_>, Vec<_>) =
        statuses().into_iter().partition(|it| words.contains(&it.service));
    if named.is_empty() { others } else { named }
}

fn statuses() -> Vec<Status> {
    let responses = ask(&Request::Status { service: None }).into_iter();
    let status = |response| match response {
        Response::Status(status) => Some(*status),
        _ => None,
    };
    responses.filter_map(status).collect()
}

/// Number, version and state of the incidents of the service that the command line names.
fn incidents() -> Vec<(String, String, String)> {
    let words: BTreeSet<_> = words().collect();
    let request = IncidentRequest::List { service: None, open: false };
    let responses = ask(&Request::Incident { request }).into_iter();
    let row = |response| match response {
        Response::Incident { reply: IncidentReply::Incident(row) }
            if words.contains(&row.service) =>
        {
            Some((row.incident.to_string(), row.version, row.state))
        }
        _ => None,
    };
    responses.filter_map(row).collect()
}

/// What the daemon answers in time.
fn ask(request: &Request) -> Vec<Response> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let mut responses = Vec::new();
    runtime.block_on(async {
        let daemon = DaemonOptions::of_words(words());
        let asking = async {
            let Ok(mut client) = daemon.connect(request).await else { return };
            while let Ok(Some(response)) = client.next_response().await {
                responses.push(response);
                if responses.len() == RESPONSES_MAX {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, asking).await;
    });
    responses
}

/// The words of the command line that is completed: they follow `--`.
fn words() -> impl Iterator<Item = String> {
    let arguments = std::env::args_os().skip_while(|it| it != "--").skip(1);
    arguments.map(|word| word.to_string_lossy().into_owned())
}
