//! `rollbackd rollback`

use clap::Args;

use super::exit::Exit;
use super::{DaemonOptions, deploy};
use crate::control::Request;

/// Go back to the previous release.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// Do not let requests in flight finish.
    #[arg(long)]
    cut: bool,
    /// Also to a release whose artifact is not what was deployed any more.
    #[arg(long)]
    force: bool,
    /// Why; it goes into the timeline.
    #[arg(long, value_name = "REASON")]
    because: String,
    /// Return as soon as the order is written down.
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
        Ok(client) => deploy::follow(client, !no_wait, json).await,
        Err(exit) => exit,
    };
    // What a deploy calls a loss was asked for here; so was giving a deploy up.
    if matches!(exit, Exit::RolledBack | Exit::NotReady) { Exit::Done } else { exit }
}
