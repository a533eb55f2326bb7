//! Keeps the sessions within their limits. A session that was opened and never used goes first, then
//! the one that was idle for longest; one with an open stream or request stays.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::monotonic;
use crate::mutex::lock;
use crate::proxy::session::live_session::Session;
use crate::proxy::session::occupancy::SessionUsage;
use crate::proxy::session::table::Sessions;

/// The share of the idle sessions that goes at once, so that a full table is not searched each time.
const IDLE_SHARE: usize = 64;
/// Unused sessions in the queue, besides one for each session, before it is cleaned.
const QUEUE_SLACK: usize = 1024;
/// How long the sessions are not searched again after all of them were in use.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// Releases that are remembered to give ids: more than a service has slots.
const RELEASES_MAX: usize = 32;

impl Sessions {
    /// Updates what a session takes.
    pub(super) fn account(&self, session: &Session) {
        if let Some(release) = session.id_given_by() {
            let mut releases = lock(&self.giving_ids);
            releases.insert(release);
            if releases.len() > RELEASES_MAX {
                releases.pop_first();
            }
        }
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
        let mut all_in_use_at = lock(&self.occupancy.all_in_use_at);
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

    /// How much of their limits the sessions use.
    pub(in crate::proxy) fn usage(&self) -> SessionUsage {
        let bytes = self.occupancy.bytes.load(Ordering::Relaxed);
        SessionUsage { count: self.by_key.len(), bytes, limits: self.limits }
    }

    /// Removes the keys of sessions that were used or are gone.
    fn clean_queue(&self) {
        let mut unused = lock(&self.occupancy.unused);
        if unused.len() > self.by_key.len() + QUEUE_SLACK {
            let by_key = self.by_key.pin();
            unused.retain(|key| by_key.get(key).is_some_and(|it| !it.used.load(Ordering::Relaxed)));
        }
    }
}
