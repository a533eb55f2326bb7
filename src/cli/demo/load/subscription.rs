use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::caller::{self, Caller, Question};

/// Before a subscription that ended is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Holds one `subscriptions/listen` stream open. An end with the result that the protocol has for
/// it is fine; an end without is a failed request.
pub(super) async fn keep(caller: Arc<Caller>) {
    loop {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let question = Question { method: "subscriptions/listen", params };
        if let Ok((response, id)) = caller.open(None, Some(question)).await {
            let start = caller.book.now();
            if let Err(bad) = caller::read(response, &id).await {
                caller.book.answered(start, Some(format!("subscription: {bad}")));
            }
        }
        sleep(AGAIN_AFTER).await;
    }
}
