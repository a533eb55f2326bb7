//! How the suites with a tokio runtime wait for something that happens elsewhere.

use std::time::Duration;

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Wide enough for a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Polls until there is a value; `None` after a minute without one.
pub(crate) async fn poll_for<T, F>(mut poll: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let polling = async {
        loop {
            if let Some(seen) = poll().await {
                return seen;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, polling).await.ok()
}

/// The same; that there is none is a panic, which names `what`.
pub(crate) async fn wait_for<T, F>(what: &str, poll: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    poll_for(poll).await.unwrap_or_else(|| panic!("not within {WAIT_MAX:?}: {what}"))
}
