//! `rollbackd postmortem`

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};

use crate::cli::complete;
use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::incidents::{print_each, query};
use crate::cli::{output, postmortem_edit};
use crate::control::{IncidentReply, IncidentRequest};
use crate::incident::{PostMortem, ReviewVerdict, html, markdown};
use crate::model::ReleaseNumber;

/// Show, edit or close a post-mortem.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Options {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    show: ShowOptions,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// End the review: it needs a root cause, a factor, the remediation and an action item.
    Close(CloseOptions),
}

#[derive(Debug, Args)]
struct ShowOptions {
    /// The service.
    #[arg(required = true, add = complete::services())]
    service: Option<String>,
    /// The incident; by default the newest.
    #[arg(add = complete::incident_numbers())]
    incident: Option<u32>,
    /// The document as one JSON object.
    #[arg(long)]
    json: bool,
    /// Write the document to one HTML file, with charts.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Open the document in $VISUAL or $EDITOR, and save what is written between the markers.
    #[arg(long, conflicts_with_all = ["json", "html"])]
    edit: bool,
    /// With --edit: do not save a text that blames a person; exit with 5.
    #[arg(long, requires = "edit")]
    strict: bool,
}

#[derive(Debug, Args)]
struct CloseOptions {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// The incident.
    #[arg(add = complete::incident_numbers())]
    incident: u32,
    /// Whether the daemon was right: right, false-alarm, missed=MINUTES or not-the-deploy.
    #[arg(long)]
    verdict: Option<ReviewVerdict>,
    /// Close it without a review, and why.
    #[arg(long, value_name = "WHY")]
    no_review: Option<String>,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { verb, show } = options;
    if let Some(Verb::Close(CloseOptions { service, incident, verdict, no_review })) = verb {
        let incident = ReleaseNumber(incident);
        let request = IncidentRequest::Close { service, incident, verdict, no_review };
        return print_each(daemon, request, false).await;
    }
    let document = match fetch(&show, daemon).await {
        Ok(document) => document,
        Err(exit) => return exit,
    };
    if show.edit {
        return postmortem_edit::run(&document, show.strict, daemon).await;
    }
    if let Some(path) = &show.html {
        if let Err(error) = std::fs::write(path, html::render(&document)) {
            output::error_line(&format!("cannot write {}: {error}", path.display()));
            return Exit::Failed;
        }
    } else if show.json {
        output::json_line(&document);
    } else {
        page(&markdown::render(&document));
    }
    Exit::Done
}

async fn fetch(options: &ShowOptions, daemon: &DaemonOptions) -> Result<PostMortem, Exit> {
    let service = options.service.clone().unwrap_or_default();
    let incident = options.incident.map(ReleaseNumber);
    let replies = query(daemon, IncidentRequest::Show { service, incident }).await?;
    let document = replies.into_iter().find_map(|reply| match reply {
        IncidentReply::PostMortem(document) => Some(*document),
        _ => None,
    });
    document.ok_or_else(|| {
        output::error_line("the daemon sent no post-mortem");
        Exit::Failed
    })
}

/// Prints a text through the pager, on a terminal.
fn page(text: &str) {
    if std::io::stdout().is_terminal() {
        let pager = std::env::var("PAGER").unwrap_or_else(|_| "less -FRX".to_owned());
        let mut words = pager.split_whitespace();
        let program =
            words.next().map(|name| Command::new(name).args(words).stdin(Stdio::piped()).spawn());
        if let Some(Ok(mut child)) = program {
            if let Some(mut stdin) = child.stdin.take() {
                // A pager that ends early has shown what was wanted.
                let _ = stdin.write_all(text.as_bytes());
            }
            let _ = child.wait();
            return;
        }
    }
    output::stdout_line(text.trim_end());
}
