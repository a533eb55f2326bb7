//! `rollbackd timeline`

use clap::Args;

use crate::cli::daemon_options::{ConnectError, DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::reconnect::reconnect;
use crate::control::{ControlClient, Request, Response};
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent, Trigger, escape_unsafe};
use crate::record;

/// Show what happened in a deploy, and why.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// The deploy; by default the newest.
    #[arg(long, value_name = "N")]
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
        Ok(client) => print_from_daemon(client, daemon, (&service, deploy), (json, follow)).await,
        // A post-mortem must not need a running daemon.
        Err(error) => print_from_disk(daemon, &error, &service, deploy, json),
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
            Ok(Some(Response::Refused { code, because })) => {
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
    let Ok(loaded) = daemon.load_config() else {
        output::error_line(&format!(
            "no daemon answers, and {} does not name the timelines on disk; write --config FILE",
            path.display()
        ));
        return Exit::NoDaemon;
    };
    output::stderr_line(if error.is_forbidden() {
        "no permission to connect to the daemon; reading from disk"
    } else {
        "no daemon; reading from disk"
    });
    if !loaded.settings.services.contains_key(service) {
        output::error_line(&format!("no service {service} in {}", path.display()));
        return Exit::NotFound;
    }
    match record::read_deploy(&loaded.settings.state_dir.join(service), deploy) {
        Ok(entries) => {
            entries.iter().for_each(|entry| print_event(entry, json));
            Exit::Done
        }
        Err(error) => {
            output::error_line(&error.with_cause());
            Exit::NotFound
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
    if let TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } = &entry.event {
        // An estimate of an earlier moment is no event of its own: the record never runs backwards.
        let started = entry.moment - std::time::Duration::from_millis(entry.since_deploy_ms);
        let onset = Moment(u64::try_from(verdict.onset.since(started).as_millis()).unwrap_or(0));
        text.push_str(&format!(" (first bad at {onset}, estimated)"));
    }
    if !entry.planned_effects.is_empty() {
        text.push_str(" -> ");
        text.push_str(&entry.planned_effects.join(", "));
    }
    format_row(entry.since_deploy_ms, entry.event.kind(), &escape_unsafe(&text))
}

fn format_row(ms: u64, kind: &str, text: &str) -> String {
    let at = Moment(ms).to_string();
    format!("{at:>12}  {kind:<11}  {text}")
}
