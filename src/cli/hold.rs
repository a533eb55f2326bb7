//! `rollbackd promote`, `rollbackd hold` and `rollbackd resume`

use clap::Args;

use crate::cli::complete;
use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::follow::{Followed, Goal, follow};
use crate::control::Request;

/// The reason in the timeline where there is none.
pub(super) const NO_REASON: &str = "no reason given";

/// A service, and the reason for what is recorded.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    #[arg(add = complete::services())]
    service: String,
    /// The reason; it goes into the timeline.
    #[arg(long, value_name = "REASON", default_value = NO_REASON)]
    because: String,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

pub(super) async fn promote(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, because, json } = options;
    send(&Request::Promote { service, because }, json, daemon).await
}

pub(super) async fn hold(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, because, json } = options;
    send(&Request::Hold { service, because }, json, daemon).await
}

pub(super) async fn resume(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, because, json } = options;
    send(&Request::Resume { service, because }, json, daemon).await
}

async fn send(request: &Request, json: bool, daemon: &DaemonOptions) -> Exit {
    let service = request.service().unwrap_or_default().to_owned();
    let followed = Followed { service, goal: Goal::Record, wait: false, json };
    match daemon.send_request(request).await {
        Ok(client) => follow(client, daemon, &followed).await.exit,
        Err(exit) => exit,
    }
}
