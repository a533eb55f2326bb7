//! A client with a `subscriptions/listen` stream.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::demo::traffic::mcp_client;
use crate::demo::traffic::mcp_client::{McpClient, McpRequest};

/// Time before a subscription that ended is requested again.
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// Keeps one stream open. An end with a result is good; an end without one is a failed request.
pub(crate) async fn maintain(client: Arc<McpClient>) {
    loop {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let request = McpRequest { method: "subscriptions/listen", params };
        if let Ok((response, id)) = client.open_stream(None, Some(request)).await {
            let start = client.statistics.now();
            if let Err(bad) = mcp_client::read_response(response, &id).await {
                client.statistics.record_request(start, Some(format!("subscription: {bad}")));
            }
        }
        sleep(RETRY_DELAY).await;
    }
}
