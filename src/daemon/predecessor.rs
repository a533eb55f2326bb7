//! The daemon before this one, while it still drains its open requests.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::daemon::services::Proxies;
use crate::proxy::{Proxy, ReplicationMessage};

/// A service, and a change in its proxy.
pub(super) type ServiceChange = (String, ReplicationMessage);

/// The task that applies the changes of the predecessor to the proxies of this daemon.
#[derive(Debug)]
pub(super) struct Predecessor(JoinHandle<()>);

impl Predecessor {
    /// Applies changes until the predecessor is gone: then the sender is dropped.
    pub(super) fn spawn(mut changes: mpsc::Receiver<ServiceChange>, proxies: Proxies) -> Self {
        Self(tokio::spawn(async move {
            while let Some((service, change)) = changes.recv().await {
                if let Some(proxy) = proxies.get(&service) {
                    proxy.apply(change);
                }
            }
            proxies.values().for_each(Proxy::predecessor_gone);
        }))
    }

    /// Waits until the predecessor is gone, at most this long.
    pub(super) async fn wait_until_gone(self, timeout: Duration) {
        if tokio::time::timeout(timeout, self.0).await.is_err() {
            tracing::warn!("the previous daemon has not ended within {} s", timeout.as_secs());
        }
    }
}
