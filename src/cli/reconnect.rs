//! A verb that follows a deploy goes on with the next daemon, after a handover or a restart.

use std::time::Duration;

use crate::cli::daemon_options::DaemonOptions;
use crate::cli::output;
use crate::control::{ControlClient, Request, Response};
use crate::model::ReleaseNumber;

/// How long a verb that waits looks for a daemon after its own is gone.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const RECONNECT_INTERVAL: Duration = Duration::from_millis(250);

/// Finds the next daemon and follows the deploy there, from its begin; the newest by default. `None`: there
/// is none in time, or another deploy has begun.
pub(super) async fn reconnect(
    daemon: &DaemonOptions,
    service: &str,
    deploy: Option<ReleaseNumber>,
) -> Option<ControlClient> {
    output::stderr_line("the daemon closed the connection; looking for the next one");
    let attempts = async {
        loop {
            tokio::time::sleep(RECONNECT_INTERVAL).await;
            let request = Request::Status { service: Some(service.to_owned()) };
            let Ok(mut client) = daemon.connect(&request).await else { continue };
            let Ok(Some(Response::Status(status))) = client.next_response().await else {
                continue;
            };
            if deploy.is_some_and(|deploy| deploy != status.deploy) {
                return None;
            }
            let service = service.to_owned();
            let request = Request::Timeline { service, deploy, follow: true };
            if let Ok(client) = daemon.connect(&request).await {
                return Some(client);
            }
        }
    };
    tokio::time::timeout(RECONNECT_TIMEOUT, attempts).await.ok().flatten()
}
