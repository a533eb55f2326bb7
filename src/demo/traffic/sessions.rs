//! The legacy sessions of the demo traffic.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::demo::traffic::mcp_client::{McpClient, McpRequest, McpResponse};
use crate::mcp::client::ClientSession;
use crate::mutex::lock;

/// The delay before a stream or a session is opened again.
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// The number of calls in a short session.
const SHORT_SESSION_CALLS: usize = 3;

/// A session that lives as long as the traffic. When the server loses it, it is opened again.
#[derive(Debug, Default)]
pub(crate) struct LongSession {
    open: Mutex<Option<OpenSession>>,
    lost: Notify,
}

/// An open session, and its number in the statistics.
#[derive(Debug, Clone)]
struct OpenSession {
    session: ClientSession,
    number: usize,
}

impl LongSession {
    /// Whether the session is open.
    pub(crate) fn is_open(&self) -> bool {
        self.current().is_some()
    }

    /// Sends a request in the session. Does nothing while the session is being opened.
    pub(crate) async fn request(&self, client: &McpClient, request: McpRequest) {
        let Some(open) = self.current() else { return };
        let response = client.request(Some(&open.session), request).await;
        self.record(client, &open, response);
    }

    fn record(&self, client: &McpClient, open: &OpenSession, response: McpResponse) {
        if let Some(release) = response.release {
            client.statistics.record_session_release(open.number, release);
        }
        if response.session_lost {
            client.statistics.record_session_broken(open.number);
            let mut current = lock(&self.open);
            // A late 404 of an earlier session says nothing about this one.
            if current.as_ref().is_some_and(|it| it.number == open.number) {
                *current = None;
                self.lost.notify_one();
            }
        }
    }

    fn current(&self) -> Option<OpenSession> {
        lock(&self.open).clone()
    }
}

/// Opens the session, again after each loss, and holds its stream open.
pub(crate) async fn maintain(client: Arc<McpClient>, session: Arc<LongSession>) {
    loop {
        let Some(open) = session.current() else {
            match initialize(&client).await {
                Some(open) => {
                    let mut current = lock(&session.open);
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

/// Opens a session, makes its calls, and closes it.
pub(crate) async fn run_short_session(client: &McpClient) {
    let Some(open) = initialize(client).await else { return };
    for sequence in 0..SHORT_SESSION_CALLS {
        let response = client.request(Some(&open.session), McpRequest::tool_call(sequence)).await;
        if let Some(release) = response.release {
            client.statistics.record_session_release(open.number, release);
        }
        if response.session_lost {
            client.statistics.record_session_broken(open.number);
            return;
        }
    }
    if client.close(&open.session).await.session_lost {
        client.statistics.record_session_broken(open.number);
    }
    client.statistics.record_session_closed(open.number);
}

async fn initialize(client: &McpClient) -> Option<OpenSession> {
    let session = client.initialize().await?;
    let open = OpenSession { session, number: client.statistics.open_session() };
    if client.send_initialized(&open.session).await.session_lost {
        client.statistics.record_session_broken(open.number);
        return None;
    }
    Some(open)
}

/// Reads the stream of the session to its end. The end is not a failure: a client reconnects.
async fn hold_stream(client: &McpClient, session: &LongSession, open: &OpenSession) {
    match client.open_stream(Some(&open.session), None).await {
        Ok((response, _)) => {
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
        Err(response) => session.record(client, open, response),
    }
}
