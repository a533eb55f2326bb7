//! `rollbackd rollback`

use clap::Args;

use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::follow::follow;
use crate::control::Request;

/// Roll back to the previous release.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// Do not wait for the requests in flight.
    #[arg(long)]
    cut: bool,
    /// Also to a release whose artifact changed since its deploy.
    #[arg(long)]
    force: bool,
    /// The reason; it goes into the timeline.
    #[arg(long, value_name = "REASON")]
    because: String,
    /// Return as soon as the daemon has recorded the order.
    #[arg(long)]
    no_wait: bool,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, cut, force, because, no_wait, json } = options;
    let request = Request::Rollback { service, cut, force, because, wait: !no_wait };
    let exit = match daemon.send_request(&request).await {
        Ok(client) => {
            let service = request.service().unwrap_or_default();
            follow(client, (daemon, service), !no_wait, json).await
        }
        Err(exit) => exit,
    };
    // Here the operator asked for a rollback, or for the end of a deploy.
    if matches!(exit, Exit::RolledBack | Exit::NotReady) { Exit::Done } else { exit }
}
