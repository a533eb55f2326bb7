//! The heartbeat of a service loop: shows that it runs, and what its service is waiting for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::mutex::lock;

/// One loop beats; others read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeat(Arc<HeartbeatCells>);

#[derive(Debug, Default)]
struct HeartbeatCells {
    count: AtomicU64,
    status: Mutex<String>,
}

impl Heartbeat {
    /// Counts one iteration of the loop.
    pub(crate) fn beat(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Iterations so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Sets what the service is waiting for.
    pub(crate) fn set_status(&self, text: String) {
        *lock(&self.0.status) = text;
    }

    /// What the service is waiting for.
    pub(crate) fn status(&self) -> String {
        lock(&self.0.status).clone()
    }
}
