//! What the sessions of a service take, and may take.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::config::ProxyLimits;
use crate::mutex::lock;
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::live_session::Session;

/// The limits of the sessions of a service.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct SessionLimits {
    /// Sessions.
    pub count: usize,
    /// Bytes of memory, and of the file about as much.
    pub bytes: usize,
}

/// What the sessions of a service take.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct SessionUsage {
    /// Sessions.
    pub count: usize,
    /// Bytes of memory.
    pub bytes: usize,
    /// The limits of both.
    pub limits: SessionLimits,
}

/// Bytes of the file besides twice those of the sessions: JSON in JSON can double.
const FILE_SLACK: u64 = 4 * 1024 * 1024;

impl SessionLimits {
    /// Those of a service.
    pub(in crate::proxy) fn of(limits: &ProxyLimits) -> Self {
        Self { count: limits.sessions_max, bytes: limits.session_bytes_max }
    }

    /// The most bytes of their file.
    pub(super) fn file_bytes(self) -> u64 {
        let bytes = u64::try_from(self.bytes).unwrap_or(u64::MAX);
        bytes.saturating_mul(2).saturating_add(FILE_SLACK)
    }
}

/// What the sessions take.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    pub(super) bytes: AtomicUsize,
    /// The sessions that were not used when they were opened, the oldest first.
    pub(super) unused: Mutex<VecDeque<SessionKey>>,
    /// When all sessions were in use, so that none could go.
    pub(super) all_in_use_at: Mutex<Option<Instant>>,
}

impl Occupancy {
    /// Records a new session.
    pub(super) fn opened(&self, key: SessionKey) {
        lock(&self.unused).push_back(key);
    }

    /// A session has left the table.
    pub(super) fn release(&self, session: &Session) {
        let size = session.accounted.swap(0, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    /// The oldest session that was not used when it was opened.
    pub(super) fn next_unused(&self) -> Option<SessionKey> {
        lock(&self.unused).pop_front()
    }
}
