//! Who is let in, and how those who are in are asked to leave.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often it is looked for who is still there.
const LOOK: Duration = Duration::from_millis(10);

/// What tells the connections of one listener what to do. Each step includes the ones before.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Clients are let in.
    pub opened: CancellationToken,
    /// Every answer is the last on its connection.
    pub closing: CancellationToken,
    /// Connections from before `closing` end when they have nothing open.
    pub hush: CancellationToken,
    /// Nobody is let in, and every connection ends.
    pub stop: CancellationToken,
    old: Arc<()>,
    late: Arc<()>,
}

/// A client that is in, until it is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    /// It came after `closing`.
    pub late: bool,
    _counted: Arc<()>,
}

impl Door {
    /// Counts a client.
    pub(super) fn enter(&self) -> Guest {
        let late = self.closing.is_cancelled();
        let counted = Arc::clone(if late { &self.late } else { &self.old });
        Guest { late, _counted: counted }
    }

    /// Waits until nobody from before `closing` is in.
    pub(super) async fn old_gone(&self) {
        while Arc::strong_count(&self.old) > 1 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until nobody is in.
    pub(super) async fn all_gone(&self) {
        self.old_gone().await;
        while Arc::strong_count(&self.late) > 1 {
            tokio::time::sleep(LOOK).await;
        }
    }
}
