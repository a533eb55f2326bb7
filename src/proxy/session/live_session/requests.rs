//! The requests of a session that outlive their exchange, and whose it is.

use crate::proxy::session::credentials::Owner;
use crate::proxy::session::live_session::Session;
use crate::proxy::session::tracked_requests::TrackedRequests;

impl Session {
    /// Records who opened it.
    pub(in crate::proxy::session) fn set_owner(&self, owner: Owner) {
        self.inner().owner = owner;
    }

    /// Whether it belongs to these credentials.
    pub(in crate::proxy::session) fn is_owned_by(&self, credentials: &Owner) -> bool {
        self.inner().owner.includes(credentials)
    }

    /// Reads or changes the requests that it remembers.
    pub(in crate::proxy) fn with_requests<T>(
        &self,
        apply: impl FnOnce(&mut TrackedRequests) -> T,
    ) -> T {
        apply(&mut self.tracked_requests())
    }

    /// Records that the response to a request comes on a stream that the client has yet to open.
    pub(in crate::proxy) fn add_detached(&self, generation: u32, id: &str) {
        let mut tracked = self.tracked_requests();
        if tracked.add_detached(generation, id) {
            self.with_machine(|machine| {
                (machine.generation() == generation).then(|| machine.request_started())
            });
        }
    }

    /// Records that a detached request was answered.
    pub(in crate::proxy) fn remove_detached(&self, id: &str) {
        let mut tracked = self.tracked_requests();
        if let Some(generation) = tracked.remove_detached(id) {
            self.with_machine(|machine| machine.request_ended(generation));
        }
    }

    /// Removes the requests that were detached up to a generation: the caller answers them.
    pub(in crate::proxy) fn take_detached(&self, generation: u32) -> Vec<Box<str>> {
        let taken = self.tracked_requests().take_detached(generation);
        for (generation, _) in &taken {
            self.with_machine(|machine| machine.request_ended(*generation));
        }
        taken.into_iter().map(|(_, id)| id).collect()
    }
}
