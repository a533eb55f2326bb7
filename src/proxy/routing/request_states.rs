//! Which release issued which `requestState` (2026-07-28).
//!
//! A server that needs more input gives the client an opaque state; the client returns it with its
//! next request. Another release may not be able to decode it. The proxy stores only a hash: requests
//! and responses of any length pass unchanged. A client can name only a state that it received, and
//! never a release.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use crate::model::ReleaseNumber;
use crate::mutex::lock;
use crate::proxy::session::ChangeSink;

/// States that are stored; the oldest is dropped first.
const STATES_MAX: usize = 4096;

/// The states that the releases of one service issued.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RequestStates {
    owners: Mutex<Owners>,
    /// Receives each change, for a successor.
    change_sink: OnceLock<Arc<dyn ChangeSink>>,
}

#[derive(Debug, Default)]
struct Owners {
    by_state: BTreeMap<u64, ReleaseNumber>,
    order: VecDeque<u64>,
}

impl RequestStates {
    /// Stores that a release issued a state.
    pub(in crate::proxy) fn record(&self, state: u64, release: ReleaseNumber) {
        if let Some(change_sink) = self.change_sink.get() {
            change_sink.request_state_issued(state, release);
        }
        let mut owners = lock(&self.owners);
        if owners.by_state.insert(state, release).is_none() {
            owners.order.push_back(state);
        }
        if owners.order.len() > STATES_MAX
            && let Some(oldest) = owners.order.pop_front()
        {
            owners.by_state.remove(&oldest);
        }
    }

    /// The release that issued it, if it is known.
    pub(in crate::proxy) fn owner(&self, state: u64) -> Option<ReleaseNumber> {
        let owners = lock(&self.owners);
        owners.by_state.get(&state).copied()
    }

    /// Sends each change from now on to this sink.
    pub(in crate::proxy) fn set_change_sink(&self, change_sink: Arc<dyn ChangeSink>) {
        let _ = self.change_sink.set(change_sink);
    }

    /// All states, the oldest first.
    pub(in crate::proxy) fn entries(&self) -> Vec<(u64, ReleaseNumber)> {
        let owners = lock(&self.owners);
        owners
            .order
            .iter()
            .filter_map(|state| Some((*state, *owners.by_state.get(state)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_states_are_kept_with_their_last_issuer() {
        let states = RequestStates::default();
        for state in 0..STATES_MAX as u64 {
            states.record(state, ReleaseNumber(1));
        }
        states.record(1, ReleaseNumber(2));
        assert_eq!(
            (states.owner(0), states.owner(1)),
            (Some(ReleaseNumber(1)), Some(ReleaseNumber(2)))
        );
        states.record(u64::MAX, ReleaseNumber(3));
        assert_eq!((states.owner(0), states.owner(u64::MAX)), (None, Some(ReleaseNumber(3))));
    }
}
