//! The `subscriptions/listen` stream of the demo traffic.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::demo::traffic::mcp_client;
use crate::demo::traffic::mcp_client::{McpClient, McpRequest};
use crate::mcp::methods;

/// The delay before a subscription is opened again.
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// Holds one `subscriptions/listen` stream open. An end without its result counts as a failure.
pub(crate) async fn maintain(client: Arc<McpClient>) {
    loop {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let request = McpRequest { method: methods::SUBSCRIPTIONS_LISTEN, params };
        if let Ok((response, id)) = client.open_stream(None, Some(request)).await {
            let start = client.statistics.now();
            if let Err(error) = mcp_client::read_response(response, &id).await {
                client.statistics.record_request(start, Some(format!("subscription: {error}")));
            }
        }
        sleep(RETRY_DELAY).await;
    }
}
