use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::demo::traffic::mcp_client;
use crate::demo::traffic::mcp_client::{McpClient, McpRequest};

/// Before a subscription that ended is asked for again.
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// Holds one `subscriptions/listen` stream open. An end with the result that the protocol has for
/// it is fine; an end without is a failed request.
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
