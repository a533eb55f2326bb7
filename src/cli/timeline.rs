//! `rollbackd timeline`

use clap::Args;

use crate::cli::daemon_options::{ConnectError, DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::{ControlClient, Request, Response};
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent, Trigger};
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
        Ok(client) => print_from_daemon(client, json).await,
        // A post-mortem must not need a running daemon.
        Err(error) => print_from_disk(daemon, &error, &service, deploy, json),
    }
}

async fn print_from_daemon(mut client: ControlClient, json: bool) -> Exit {
    loop {
        match client.next_response().await {
            Ok(None) => return Exit::Done,
            Ok(Some(Response::Event(entry))) => print_event(&entry, json),
            Ok(Some(Response::Refused { code, because })) => {
                output::error_line(&because);
                return code.into();
            }
            Ok(Some(Response::Accepted { .. } | Response::Status(_))) => (),
            Err(error) => return connection_lost(&error),
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
    if let TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } = &entry.event {
        let started = entry.moment - std::time::Duration::from_millis(entry.since_deploy_ms);
        output::stdout_line(&format_row(
            verdict.onset.since(started).as_millis(),
            "first bad",
            "estimated onset",
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
    format_row(u128::from(entry.since_deploy_ms), entry.event.kind(), &text)
}

fn format_row(ms: u128, kind: &str, text: &str) -> String {
    let at = Moment(u64::try_from(ms).unwrap_or(u64::MAX)).to_string();
    format!("{at:>12}  {kind:<11}  {text}")
}
