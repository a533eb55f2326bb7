//! `rollbackd timeline`

use clap::Args;

use super::DaemonOptions;
use super::exit::Exit;
use crate::cli::output;
use crate::control::{ControlClient, Request, Response};
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::{config, record};

/// What happened in a deploy, and why.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// The deploy; the newest by default.
    #[arg(long, value_name = "N")]
    deploy: Option<u32>,
    /// One JSON object a line, as it lies on disk.
    #[arg(long)]
    json: bool,
    /// Go on as things happen.
    #[arg(long)]
    follow: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let deploy = options.deploy.map(ReleaseNumber);
    let Options { service, follow, json, .. } = options;
    let request = Request::Timeline { service: service.clone(), deploy, follow };
    match ControlClient::connect(&daemon.socket_path()).await {
        Ok(mut client) => match client.send(&request).await {
            Ok(()) => print_from_daemon(client, json).await,
            Err(error) => {
                output::error_line(&format!("the daemon went away: {error}"));
                Exit::NoDaemon
            }
        },
        // A post-mortem must not need a daemon that runs.
        Err(_) => print_from_disk(daemon, &service, deploy, json),
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
            Err(error) => {
                output::error_line(&format!("the daemon went away: {error}"));
                return Exit::NoDaemon;
            }
        }
    }
}

fn print_from_disk(
    daemon: &DaemonOptions,
    service: &str,
    deploy: Option<ReleaseNumber>,
    json: bool,
) -> Exit {
    let path = daemon.config_path();
    let Ok(checked) = config::load(&path) else {
        output::error_line(&format!(
            "no daemon answers, and {} can not be read to find the timelines; name it with --config",
            path.display()
        ));
        return Exit::NoDaemon;
    };
    output::stderr_line("no daemon answers; this is what lies on disk");
    if !checked.settings.services.contains_key(service) {
        output::error_line(&format!("no service {service} in {}", path.display()));
        return Exit::NotFound;
    }
    match record::read_deploy(&checked.settings.state_dir.join(service), deploy) {
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
    if let TimelineEvent::Detected { verdict: Some(verdict), .. } = &entry.event {
        let started = entry.moment - std::time::Duration::from_millis(entry.since_deploy_ms);
        output::stdout_line(&format_row(
            verdict.onset.since(started).as_millis(),
            "first bad",
            "estimated onset",
        ));
    }
    output::stdout_line(&event_line(entry));
}

/// One entry for a reader.
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
