//! Keeps the sessions within their limits. A session that was opened and never used goes first, then
//! the one that was idle for longest; one with an open stream or request stays.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;
use crate::config::ProxyLimits;
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::live_session::Session;
use crate::proxy::session::table::Sessions;

/// A warning is written when this share of a limit is used, in percent, and again after it was less
/// than the second share.
const WARN_PERCENT: usize = 90;
const WARN_AGAIN_PERCENT: usize = 80;
/// The share of the idle sessions that goes at once, so that a full table is not searched each time.
const IDLE_SHARE: usize = 64;
/// Unused sessions in the queue, besides one for each session, before it is cleaned.
const QUEUE_SLACK: usize = 1024;
/// How long the sessions are not searched again after all of them were in use.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// The limits of the sessions of a service.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct SessionLimits {
    /// Sessions.
    pub count: usize,
    /// Bytes of memory, and of the file about as much.
    pub bytes: usize,
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
    bytes: AtomicUsize,
    /// The sessions that were not used when they were opened, the oldest first.
    unused: Mutex<VecDeque<SessionKey>>,
    /// When all sessions were in use, so that none could go.
    all_in_use_at: Mutex<Option<Instant>>,
    warned: AtomicBool,
}

impl Occupancy {
    /// Records a new session.
    pub(super) fn opened(&self, key: SessionKey) {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).push_back(key);
    }

    /// A session has left the table.
    pub(super) fn release(&self, session: &Session) {
        let size = session.accounted.swap(0, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    fn next_unused(&self) -> Option<SessionKey> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Sessions {
    /// Updates what a session takes.
    pub(super) fn account(&self, session: &Session) {
        let size = session.size();
        let before = session.accounted.swap(size, Ordering::Relaxed);
        // The sum wraps around like the difference.
        self.occupancy.bytes.fetch_add(size.wrapping_sub(before), Ordering::Relaxed);
        if session.is_removed() {
            self.occupancy.release(session);
        }
    }

    /// Removes sessions until `more` fit.
    pub(super) fn make_room(&self, more: usize) {
        self.warn_when_nearly_full();
        if more > 0 {
            self.clean_queue();
        }
        if self.has_room(more) {
            return;
        }
        while let Some(key) = self.occupancy.next_unused() {
            let session = self.by_key.pin().get(&key).cloned();
            if session.is_some_and(|it| !it.used.load(Ordering::Relaxed) && !it.is_in_use()) {
                self.remove_key(&key);
                if self.has_room(more) {
                    return;
                }
            }
        }
        self.remove_longest_idle();
    }

    fn has_room(&self, more: usize) -> bool {
        let bytes = self.occupancy.bytes.load(Ordering::Relaxed);
        self.by_key.len() + more <= self.limits.count && bytes <= self.limits.bytes
    }

    fn remove_longest_idle(&self) {
        let mut all_in_use_at =
            self.occupancy.all_in_use_at.lock().unwrap_or_else(PoisonError::into_inner);
        if all_in_use_at.is_some_and(|at| at.elapsed() < SEARCH_PAUSE) {
            return;
        }
        let by_key = self.by_key.pin();
        let idle = by_key.iter().filter(|(_, session)| !session.is_in_use());
        let mut idle: Vec<_> =
            idle.map(|(key, it)| (it.last_seen.load(Ordering::Relaxed), *key)).collect();
        *all_in_use_at = idle.is_empty().then(monotonic);
        drop(all_in_use_at);
        idle.sort_unstable();
        for (_, key) in idle.iter().take((idle.len() / IDLE_SHARE).max(1)) {
            self.remove_key(key);
        }
    }

    fn warn_when_nearly_full(&self) {
        let bytes = self.occupancy.bytes.load(Ordering::Relaxed);
        let (count, limits) = (self.by_key.len(), self.limits);
        let reaches = |percent: usize| {
            count >= limits.count.saturating_mul(percent) / 100
                || bytes >= limits.bytes.saturating_mul(percent) / 100
        };
        let warned = &self.occupancy.warned;
        if !reaches(WARN_AGAIN_PERCENT) {
            if warned.load(Ordering::Relaxed) {
                warned.store(false, Ordering::Relaxed);
            }
            return;
        }
        if reaches(WARN_PERCENT) && !warned.swap(true, Ordering::Relaxed) {
            let (service, most, kib) = (self.service(), limits.count, limits.bytes / 1024);
            let used = bytes / 1024;
            tracing::warn!(
                service,
                "{count} of {most} sessions, {used} of {kib} KiB: the unused ones go first; raise \
                 `sessions` and `session_memory`"
            );
        }
    }

    /// Removes the keys of sessions that were used or are gone.
    fn clean_queue(&self) {
        let mut unused = self.occupancy.unused.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() > self.by_key.len() + QUEUE_SLACK {
            let by_key = self.by_key.pin();
            unused.retain(|key| by_key.get(key).is_some_and(|it| !it.used.load(Ordering::Relaxed)));
        }
    }
}
