//! `rollbackd rollback`

use clap::Args;

use crate::cli::ask::{ask, can_ask};
use crate::cli::complete;
use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::follow::{Followed, Goal, follow};
use crate::cli::hold::NO_REASON;
use crate::cli::output;
use crate::control::Request;

/// Roll back to the previous release. During a ramp or a bake this aborts the deploy.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// Do not wait for the requests in flight.
    #[arg(long)]
    cut: bool,
    /// Also to a release whose artifact changed since its deploy.
    #[arg(long = "changed-artifact", visible_alias = "force")]
    force: bool,
    /// The reason; it goes into the timeline. Without it, a terminal is asked for one.
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    /// Return as soon as the daemon has recorded the order.
    #[arg(long)]
    no_wait: bool,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, cut, force, because, no_wait, json } = options;
    let because = match because {
        Some(because) => because,
        None => match ask_reason(&service) {
            Ok(because) => because,
            Err(exit) => return exit,
        },
    };
    let wait = !no_wait;
    let followed = Followed { service: service.clone(), goal: Goal::Rollback, wait, json };
    let request = Request::Rollback { service, cut, force, because, wait };
    match daemon.send_request(&request).await {
        Ok(client) => follow(client, daemon, &followed).await.exit,
        Err(exit) => exit,
    }
}

/// Asks for the reason on a terminal. An end of the input is no rollback: the operator may have
/// changed their mind.
fn ask_reason(service: &str) -> Result<String, Exit> {
    if !can_ask() {
        return Ok(NO_REASON.to_owned());
    }
    let question = format!(
        "Why does {service} go back? It goes into the timeline; Enter for none, Ctrl-C to stop: "
    );
    match ask(&question) {
        Some(reason) if reason.is_empty() => Ok(NO_REASON.to_owned()),
        Some(reason) => Ok(reason),
        None => {
            output::error_line("no reason was given to the end; nothing was rolled back");
            Err(Exit::InvalidArguments)
        }
    }
}
