//! `rollbackd incidents`, `rollbackd ack` and `rollbackd history`, and what the incident verbs share.

use clap::Args;

use crate::cli::complete;
use crate::cli::daemon_options::{DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::{IncidentReply, IncidentRequest, IncidentRow, ROWS_MAX, Request, Response};
use crate::incident::{HistoryRow, render_report_text, utc};
use crate::model::format_seconds;

/// List incidents, newest first.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// One service; all by default.
    #[arg(add = complete::services())]
    service: Option<String>,
    /// Only those that need a review.
    #[arg(long)]
    open: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Acknowledge the page of a service.
#[derive(Debug, Args)]
pub(super) struct AckOptions {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
}

/// List the deploys of a service, newest first.
#[derive(Debug, Args)]
pub(super) struct HistoryOptions {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, open, json } = options;
    print_each(daemon, IncidentRequest::List { service, open }, json).await
}

pub(super) async fn acknowledge(options: AckOptions, daemon: &DaemonOptions) -> Exit {
    print_each(daemon, IncidentRequest::Acknowledge { service: options.service }, false).await
}

pub(super) async fn history(options: HistoryOptions, daemon: &DaemonOptions) -> Exit {
    let HistoryOptions { service, json } = options;
    print_each(daemon, IncidentRequest::History { service }, json).await
}

/// Sends a request and prints every reply.
pub(super) async fn print_each(
    daemon: &DaemonOptions,
    request: IncidentRequest,
    json: bool,
) -> Exit {
    let nothing = match &request {
        IncidentRequest::History { .. } => "no deploy yet",
        IncidentRequest::List { open: true, .. } => "no incident needs a review",
        IncidentRequest::List { .. } => "no incident",
        IncidentRequest::Actions { open: true, .. } => "no open action item",
        IncidentRequest::Actions { .. } => "no action item",
        _ => "nothing to show",
    };
    match query(daemon, request).await {
        Ok(replies) => {
            if replies.is_empty() && !json {
                output::stderr_line(nothing);
            }
            for reply in &replies {
                if json {
                    output::json_line(reply)
                } else {
                    output::stdout_line(&format_reply(reply))
                }
            }
            if replies.len() >= ROWS_MAX {
                output::stderr_line(&format!("only the newest {ROWS_MAX} are listed"));
            }
            Exit::Done
        }
        Err(exit) => exit,
    }
}

/// Sends a request and returns its replies; prints a refusal.
pub(super) async fn query(
    daemon: &DaemonOptions,
    request: IncidentRequest,
) -> Result<Vec<IncidentReply>, Exit> {
    let mut client = daemon.send_request(&Request::Incident { request }).await?;
    let mut replies = Vec::new();
    loop {
        match client.next_response().await {
            Ok(None) => return Ok(replies),
            Ok(Some(Response::Incident { reply })) => replies.push(reply),
            Ok(Some(Response::Refused { code, because, .. })) => {
                output::error_line(&because);
                return Err(code.into());
            }
            Ok(Some(_)) => (),
            Err(error) => return Err(connection_lost(&error)),
        }
    }
}

fn format_reply(reply: &IncidentReply) -> String {
    match reply {
        IncidentReply::Incident(row) => format_incident(row),
        IncidentReply::Deploy(row) => format_deploy(row),
        IncidentReply::Action { service, incident, action } => {
            let state = if action.done { "done" } else { "open" };
            let (kind, text) = (action.kind.label(), &action.text);
            let (owner, due) = (&action.owner, &action.due);
            format!(
                "{service}  {incident}-{}  {state}  {kind:<8}  due {due}  {owner}: {text}",
                action.item
            )
        }
        IncidentReply::Done { because } => because.clone(),
        IncidentReply::PostMortem(document) => document.headline.clone(),
        IncidentReply::Report(report) => render_report_text(report),
        IncidentReply::Conflict { .. } => "the text was changed meanwhile".to_owned(),
    }
}

fn format_incident(row: &IncidentRow) -> String {
    let IncidentRow { service, incident, state, title, opened, failed: (failed, all), .. } = row;
    let age = format_seconds(row.age_s as f64);
    let mut text = format!(
        "{service}  {incident}  {state:<9}  {opened} ({age} ago)  {title}; {failed} of {all} requests \
         failed"
    );
    if row.waits_for_person {
        text.push_str("; waits for a person");
    }
    if let Some(earlier) = row.recurrence_of {
        text.push_str(&format!("; same as incident {earlier}"));
    }
    if row.open_actions > 0 {
        text.push_str(&format!("; {} open actions", row.open_actions));
    }
    text
}

fn format_deploy(row: &HistoryRow) -> String {
    let by = row.by.as_ref().map_or("exchanged by hand".to_owned(), ToString::to_string);
    let took = utc::format_ms(row.duration_ms);
    let (deploy, version, at) = (row.deploy, &row.version, utc::format_time(row.began));
    format!("{deploy:>5}  {at}  {version:<16}  {:<24}  {took:>8}  {by}", row.outcome.label())
}
