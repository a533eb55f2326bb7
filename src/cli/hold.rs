//! `rollbackd hold` and `rollbackd resume`

use clap::Args;

use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::follow::follow;
use crate::control::Request;

/// Stop automatic rollbacks of a service, or allow them again.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// The reason; it goes into the timeline.
    #[arg(long, value_name = "REASON", default_value = "no reason given")]
    because: String,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
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
    match daemon.send_request(request).await {
        Ok(client) => {
            let service = request.service().unwrap_or_default();
            follow(client, (daemon, service), false, json).await
        }
        Err(exit) => exit,
    }
}
