//! A GET stream that its release ended in order. Either the release has nothing more to say, and the
//! client's stream ends as well. Or the release stops: servers that shut down end their streams first.

use std::sync::Arc;
use std::time::Duration;

use crate::proxy::backend::Backend;
use crate::proxy::session::Session;

/// When the proxy looks at the release after the end of the stream: the pauses add up to 750 ms. A
/// server that shuts down in order stops to accept connections before or soon after its streams end.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Whether the release stops: it drains, is cut, accepts no connection, or the session has moved from it.
pub(super) async fn is_stopping(
    backend: Arc<Backend>,
    session: Arc<Session>,
    generation: u32,
) -> bool {
    let is_left = || {
        backend.draining.is_cancelled() || !backend.is_open() || session.generation() != generation
    };
    for pause in PAUSES {
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            () = backend.draining.cancelled() => (),
        }
        // The client ended it.
        if session.is_removed() {
            return false;
        }
        if is_left() || !backend.is_listening().await {
            return true;
        }
    }
    false
}
