//! Clients with sessions of the legacy era.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::demo::traffic::mcp_client::{LEGACY_VERSION, McpClient, McpRequest, McpResponse};
use crate::model::Era;

/// Time before a stream opens again, or a session is requested again.
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// Calls of a short session.
const SHORT_SESSION_CALLS: usize = 3;

/// A session that lasts as long as the traffic. If the server loses it, a new one begins.
#[derive(Debug, Default)]
pub(crate) struct LongSession {
    open: Mutex<Option<OpenSession>>,
    lost: Notify,
}

/// An open session: its id at the server, and its number in the statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OpenSession {
    id: String,
    number: usize,
}

impl LongSession {
    /// Whether the session is open.
    pub(crate) fn is_open(&self) -> bool {
        self.current().is_some()
    }

    /// Sends a request in the session. Does nothing while a new session begins.
    pub(crate) async fn request(&self, client: &McpClient, request: McpRequest) {
        let Some(open) = self.current() else { return };
        let response = client.request(Era::Legacy, Some(&open.id), request).await;
        self.record(client, &open, response);
    }

    fn record(&self, client: &McpClient, open: &OpenSession, response: McpResponse) {
        if let Some(release) = response.release {
            client.statistics.record_session_release(open.number, release);
        }
        if response.session_lost {
            client.statistics.record_session_broken(open.number);
            let mut current = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // A late 404 of the previous session does not concern this one.
            if current.as_ref() == Some(open) {
                *current = None;
                self.lost.notify_one();
            }
        }
    }

    fn current(&self) -> Option<OpenSession> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Keeps the session and its stream open, and begins a new one after a loss.
pub(crate) async fn maintain(client: Arc<McpClient>, session: Arc<LongSession>) {
    loop {
        let Some(open) = session.current() else {
            match initialize(&client).await {
                Some(open) => {
                    let mut current = session.open.lock().unwrap_or_else(PoisonError::into_inner);
                    *current = Some(open);
                }
                None => sleep(RETRY_DELAY).await,
            }
            continue;
        };
        tokio::select! {
            () = session.lost.notified() => {}
            () = hold_stream(&client, &session, &open) => sleep(RETRY_DELAY).await,
        }
    }
}

/// Runs a session that begins, makes its calls, and ends.
pub(crate) async fn run_short_session(client: &McpClient) {
    let Some(open) = initialize(client).await else { return };
    for sequence in 0..SHORT_SESSION_CALLS {
        let response =
            client.request(Era::Legacy, Some(&open.id), McpRequest::tool_call(sequence)).await;
        if let Some(release) = response.release {
            client.statistics.record_session_release(open.number, release);
        }
        if response.session_lost {
            client.statistics.record_session_broken(open.number);
            return;
        }
    }
    if client.notify(&open.id, Method::DELETE, None).await.session_lost {
        client.statistics.record_session_broken(open.number);
    }
    client.statistics.record_session_closed(open.number);
}

async fn initialize(client: &McpClient) -> Option<OpenSession> {
    let params = json!({
        "protocolVersion": LEGACY_VERSION,
        "capabilities": {},
        "clientInfo": { "name": "rollbackd-demo", "version": "1" },
    });
    let request = McpRequest { method: "initialize", params };
    let response = client.request(Era::Legacy, None, request).await;
    let id = response.session_id.filter(|_| response.error.is_none())?;
    let open = OpenSession { id, number: client.statistics.open_session() };
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    if client.notify(&open.id, Method::POST, Some(notification)).await.session_lost {
        client.statistics.record_session_broken(open.number);
        return None;
    }
    Some(open)
}

/// Reads the stream of the session to its end. The end is not a failure: clients reopen it.
async fn hold_stream(client: &McpClient, session: &LongSession, open: &OpenSession) {
    match client.open_stream(Some(&open.id), None).await {
        Ok((response, _)) => {
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
        Err(response) => session.record(client, open, response),
    }
}
