//! `rollbackd deploy`

use std::collections::BTreeMap;

use clap::Args;

use super::exit::Exit;
use super::progress::Progress;
use super::{DaemonOptions, timeline};
use crate::cli::output;
use crate::control::{ControlClient, Request, Response};
use crate::model::{Guard, TimelineEntry, TimelineEvent};

/// Start a new release, prove it ready, and give it the traffic.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// What to call the release.
    version: String,
    /// What it runs from: a path or an image reference.
    #[arg(long)]
    artifact: Option<String>,
    /// A setting for its environment; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Where to run it; a free slot by default.
    #[arg(long)]
    slot: Option<String>,
    /// On a breach page and hold, but never go back: for changes that can not be undone.
    #[arg(long)]
    freeze: bool,
    /// Despite a quarantine, a dropped protocol version, or a trial that is held.
    #[arg(long)]
    force: bool,
    /// Not if it drops a tool, a prompt or a capability that clients used in the last hour, or asks
    /// more of them; the deploy then fails before it gets traffic.
    #[arg(long, conflicts_with = "force")]
    strict: bool,
    /// Follow until the release is accepted, failed, or rolled back.
    #[arg(long)]
    wait: bool,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, version, artifact, set, slot, freeze, force, strict, wait, json } =
        options;
    let mut environment = BTreeMap::new();
    for (key, value) in set {
        if environment.contains_key(&key) {
            output::error_line(&format!("{key} is set twice; write it once"));
            return Exit::InvalidArguments;
        }
        environment.insert(key, value);
    }
    let set = environment;
    let request =
        Request::Deploy { service, version, artifact, set, slot, freeze, force, strict, wait };
    match daemon.send_request(&request).await {
        Ok(client) => follow(client, wait, json).await,
        Err(exit) => exit,
    }
}

/// Prints what follows from a command, and tells how it ended.
pub(super) async fn follow(mut client: ControlClient, wait: bool, json: bool) -> Exit {
    let (mut exit, mut rolling_back) = ((!wait).then_some(Exit::Done), false);
    let mut progress = Progress::new();
    loop {
        let response = match client.next_response().await {
            Ok(Some(response)) => response,
            Ok(None) => return exit.unwrap_or_else(end_not_seen),
            Err(error) => {
                output::error_line(&format!("the daemon went away: {error}"));
                return Exit::NoDaemon;
            }
        };
        progress.clear();
        if json && !matches!(response, Response::Status(_)) {
            output::json_line(&response);
        }
        match response {
            Response::Accepted { deploy, because } if !wait && !json => {
                output::stdout_line(&format!("deploy {deploy}: {because}"));
            }
            Response::Refused { code, because } => {
                output::error_line(&because);
                return code.into();
            }
            Response::Event(entry) => {
                if !json {
                    output::stdout_line(&timeline::event_line(&entry));
                }
                rolling_back |= matches!(entry.event, TimelineEvent::Decided { .. });
                exit = exit_for_event(&entry, rolling_back).or(exit);
            }
            Response::Status(status) => progress.show(&status),
            Response::Accepted { .. } => (),
        }
    }
}

fn end_not_seen() -> Exit {
    output::error_line(
        "the end was not seen: the daemon went away, or another deploy began; `rollbackd timeline` \
         tells how it goes on",
    );
    Exit::Failed
}

/// What an entry means for whoever waits, if it is an end.
fn exit_for_event(entry: &TimelineEntry, rolling_back: bool) -> Option<Exit> {
    match entry.event {
        TimelineEvent::Accepted { .. } => Some(Exit::Done),
        TimelineEvent::Failed => Some(Exit::NotReady),
        TimelineEvent::Recovered if rolling_back => Some(Exit::RolledBack),
        TimelineEvent::Blocked { guard: Guard::NoData, .. } => None,
        TimelineEvent::Unrecovered | TimelineEvent::Abandoned | TimelineEvent::Blocked { .. } => {
            Some(Exit::BreachNotRolledBack)
        }
        _ => None,
    }
}
