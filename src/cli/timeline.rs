//! `rollbackd timeline`

use std::io;

use clap::Args;

use crate::cli::complete;
use crate::cli::daemon_options::{ConnectError, DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::reconnect::reconnect;
use crate::control::{ControlClient, Request, Response, unknown_service};
use crate::model::{Moment, ReleaseNumber, TimelineEntry, escape_unsafe};
use crate::record;

/// Show what happened in a deploy, and why.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// The deploy; by default the newest.
    #[arg(long, value_name = "N", add = complete::deploys())]
    deploy: Option<u32>,
    /// One JSON object a line, as on disk.
    #[arg(long)]
    json: bool,
    /// Continue with new events as they happen.
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let deploy = options.deploy.map(ReleaseNumber);
    let Options { service, follow, json, .. } = options;
    let request = Request::Timeline { service: service.clone(), deploy, follow };
    match daemon.connect(&request).await {
        Ok(client) => {
            let printed =
                print_from_daemon(client, daemon, (&service, deploy), (json, follow)).await;
            match printed {
                Exit::Done if follow => follow_ended(daemon, &service, deploy).await,
                exit => exit,
            }
        }
        // A post-mortem must not need a running daemon.
        Err(error) => print_from_disk(daemon, &error, &service, deploy, json),
    }
}

/// The daemon sends no more: the deploy is over because a newer one began, or the daemon stopped.
async fn follow_ended(
    daemon: &DaemonOptions,
    service: &str,
    deploy: Option<ReleaseNumber>,
) -> Exit {
    let request = Request::Status { service: Some(service.to_owned()) };
    let newest = match daemon.connect(&request).await {
        Ok(mut client) => match client.next_response().await {
            Ok(Some(Response::Status(status))) => Some(status.deploy),
            _ => None,
        },
        Err(_) => None,
    };
    match newest.zip(deploy).filter(|(newest, deploy)| deploy < newest) {
        Some((newest, deploy)) => {
            output::stderr_line(&format!(
                "=> deploy {deploy} is over: deploy {newest} began (exit code 0)"
            ));
            Exit::Done
        }
        None => {
            let code = Exit::NoDaemon.code();
            output::stderr_line(&format!("=> the daemon stopped (exit code {code})"));
            Exit::NoDaemon
        }
    }
}

/// Prints what the daemon sends. With `follow` it goes on with the next daemon where this one ends.
async fn print_from_daemon(
    mut client: ControlClient,
    daemon: &DaemonOptions,
    (service, deploy): (&str, Option<ReleaseNumber>),
    (json, follow): (bool, bool),
) -> Exit {
    let mut last = (ReleaseNumber(0), 0);
    loop {
        let end = match client.next_response().await {
            Ok(Some(Response::Event(entry))) => {
                if last < (entry.deploy, entry.seq) {
                    last = (entry.deploy, entry.seq);
                    print_event(&entry, json);
                }
                continue;
            }
            Ok(Some(Response::Refused { code, because, .. })) => {
                output::error_line(&because);
                return code.into();
            }
            Ok(Some(_)) => continue,
            Ok(None) if !follow => return Exit::Done,
            Ok(None) => Exit::Done,
            Err(error) if !follow => return connection_lost(&error),
            Err(_) => Exit::NoDaemon,
        };
        match reconnect(daemon, service, deploy).await {
            Some(next) => client = next,
            None => return end,
        }
    }
}

fn print_from_disk(
    daemon: &DaemonOptions,
    error: &ConnectError,
    service: &str,
    deploy: Option<ReleaseNumber>,
    json: bool,
) -> Exit {
    let path = daemon.config_path();
    let path = path.display();
    let Ok(loaded) = daemon.load_config() else {
        let exit = error.report();
        output::stderr_line(&format!(
            "  {path} is not usable, so the timelines on disk are not known; name one with --config"
        ));
        return exit;
    };
    let known: Vec<_> = loaded.settings.services.keys().map(String::as_str).collect();
    if !known.contains(&service) {
        output::error_line(&format!("{} in {path}", unknown_service(service, &known)));
        return Exit::NotFound;
    }
    let dir = loaded.settings.state_dir.join(service);
    match record::read_deploy(&dir, deploy) {
        Ok(entries) => {
            let why =
                if error.is_forbidden() { "no permission to ask the daemon" } else { "no daemon" };
            output::stderr_line(&format!("{why}; reading from disk"));
            entries.iter().for_each(|entry| print_event(entry, json));
            Exit::Done
        }
        Err(unreadable) if unreadable.kind() == io::ErrorKind::PermissionDenied => {
            let exit = error.report();
            daemon.report_record(service);
            exit
        }
        Err(error) => {
            output::error_line(&error.with_cause());
            if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed }
        }
    }
}

fn print_event(entry: &TimelineEntry, json: bool) {
    if json {
        return output::json_line(entry);
    }
    if entry.seq == 1 {
        output::stdout_line(&format!(
            "{} deploy {}, {}",
            entry.service, entry.deploy, entry.wall_time
        ));
    }
    output::stdout_line(&event_line(entry));
}

/// Formats an event as a line.
pub(super) fn event_line(entry: &TimelineEntry) -> String {
    let mut text = entry.because.clone();
    if !entry.planned_effects.is_empty() {
        text.push_str(" -> ");
        text.push_str(&entry.planned_effects.join(", "));
    }
    let line = format_row(entry.since_deploy_ms, entry.event.kind(), &escape_unsafe(&text));
    match verdict_line(entry) {
        Some(verdict) => format!("{line}\n{:>27}{}", "", escape_unsafe(&verdict)),
        None => line,
    }
}

/// The rule of a verdict, its evidence, and when the trouble began: an estimate of an earlier moment
/// is no event of its own, for the record never runs backwards.
fn verdict_line(entry: &TimelineEntry) -> Option<String> {
    let verdict = entry.event.verdict()?;
    let started = entry.moment - std::time::Duration::from_millis(entry.since_deploy_ms);
    let onset = Moment(u64::try_from(verdict.onset.since(started).as_millis()).unwrap_or(0));
    let first_bad = format!("first bad at {onset}, estimated");
    Some(match &verdict.basis {
        Some(basis) => format!("rule: {basis}; {first_bad}"),
        None => first_bad,
    })
}

fn format_row(ms: u64, kind: &str, text: &str) -> String {
    let at = Moment(ms).to_string();
    format!("{at:>12}  {kind:<11}  {text}")
}
