//! `rollbackd action`

use clap::{Args, Subcommand};

use crate::cli::complete;
use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::incidents::print_each;
use crate::control::IncidentRequest;
use crate::incident::{Action, ActionId, ActionKind};
use crate::model::ReleaseNumber;

/// List, add or finish action items of incidents.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List action items, those of the newest incident first.
    List(ListOptions),
    /// Add an action item to an incident.
    Add(AddOptions),
    /// Mark an action item as done.
    Done(DoneOptions),
}

#[derive(Debug, Args)]
struct ListOptions {
    /// One service; all by default.
    #[arg(add = complete::services())]
    service: Option<String>,
    /// Also those that are done.
    #[arg(long)]
    all: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AddOptions {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// The incident.
    #[arg(add = complete::incident_numbers())]
    incident: u32,
    /// What has to change.
    text: String,
    /// What it is for: prevent, detect or mitigate.
    #[arg(long, default_value = "prevent")]
    kind: ActionKind,
    /// The team or role that does it.
    #[arg(long)]
    owner: String,
    /// The date until which it is done, such as 2026-12-01.
    #[arg(long)]
    due: String,
    /// How one will know that it is done.
    #[arg(long, default_value = "")]
    check: String,
    /// A ticket: its web address.
    #[arg(long, default_value = "")]
    link: String,
}

#[derive(Debug, Args)]
struct DoneOptions {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// The item, such as 37-2.
    item: ActionId,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    match options.verb {
        Verb::List(ListOptions { service, all, json }) => {
            print_each(daemon, IncidentRequest::Actions { service, open: !all }, json).await
        }
        Verb::Add(options) => {
            let AddOptions { service, incident, text, kind, owner, due, check, link } = options;
            let action = Action { item: 0, kind, text, owner, due, check, link, done: false };
            let incident = ReleaseNumber(incident);
            print_each(daemon, IncidentRequest::AddAction { service, incident, action }, false)
                .await
        }
        Verb::Done(DoneOptions { service, item: ActionId { incident, item } }) => {
            let request = IncidentRequest::FinishAction { service, incident, item };
            print_each(daemon, request, false).await
        }
    }
}
