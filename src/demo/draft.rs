//! The draft of the post-mortem, and the message about it, as people get them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{sleep, timeout};

use crate::control::{ControlClient, IncidentReply, IncidentRequest, Request, Response};
use crate::demo::sandbox::{SERVICE, Sandbox};
use crate::model::{ReleaseNumber, TimelineEntry, TimelineEvent};

/// How long the daemon may take to write the draft.
const DRAFT_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The state of an incident before its draft.
const NOT_DRAFTED: &str = "opened";

/// What people get of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Draft {
    /// The message that a channel sends.
    pub message: String,
    /// The post-mortem as HTML, outside of the folder of the demo.
    pub html: PathBuf,
}

/// Whether a deploy with these events has an incident with a draft.
pub(super) fn is_due(entries: &[TimelineEntry]) -> bool {
    entries.iter().any(|entry| {
        let kind = &entry.event;
        matches!(
            kind,
            TimelineEvent::Recovered | TimelineEvent::Unrecovered | TimelineEvent::Abandoned
        ) || matches!(kind, TimelineEvent::Failed | TimelineEvent::Blocked { .. })
    })
}

/// Waits for the draft, and copies it to a file that stays.
///
/// # Errors
/// The daemon wrote none in time, or it cannot be copied.
pub(super) async fn fetch(sandbox: &Sandbox, deploy: ReleaseNumber) -> Result<Draft, String> {
    let drafted = async {
        loop {
            if let Some(message) = message(&sandbox.socket, deploy).await {
                return message;
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    let message = timeout(DRAFT_TIMEOUT, drafted)
        .await
        .map_err(|_| format!("the daemon wrote no draft within {} s", DRAFT_TIMEOUT.as_secs()))?;
    let written = sandbox.post_mortem_path(deploy);
    let html = keep_copy(&written)
        .map_err(|error| format!("cannot copy {}: {error}", written.display()))?;
    Ok(Draft { message, html })
}

/// The message, if the draft is written.
async fn message(socket: &Path, deploy: ReleaseNumber) -> Option<String> {
    let mut client = ControlClient::connect(socket).await.ok()?;
    let (service, incident) = (SERVICE.to_owned(), Some(deploy));
    let request = Request::Incident { request: IncidentRequest::Show { service, incident } };
    client.send(&request).await.ok()?;
    match client.next_response().await.ok()?? {
        Response::Incident { reply: IncidentReply::PostMortem(document) } => {
            (document.state != NOT_DRAFTED).then_some(document.headline)
        }
        _ => None,
    }
}

fn keep_copy(written: &Path) -> std::io::Result<PathBuf> {
    let mut copy =
        tempfile::Builder::new().prefix("rollbackd-post-mortem-").suffix(".html").tempfile()?;
    std::io::copy(&mut std::fs::File::open(written)?, &mut copy)?;
    let (_, path) = copy.keep()?;
    Ok(path)
}
