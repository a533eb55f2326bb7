//! Which release sealed which `requestState` (2026-07-28).
//!
//! A server that needs more input hands the client a sealed state, and gets it back with the next
//! request. Another release may not be able to open it. What is remembered is a hash of it, so that
//! requests and answers pass as they are, however long they are; a client can only ever name a state
//! that it was given, and no release by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::model::ReleaseNumber;
use crate::proxy::handover::replication::{ChangeQueue, LocalChange};

/// States that are remembered; the oldest is forgotten first.
const STATES_MAX: usize = 4096;

/// The states that releases of one service gave out.
#[derive(Debug, Default)]
pub(in crate::proxy) struct RequestStates {
    owners: Mutex<Owners>,
    /// Who takes over.
    change_sink: OnceLock<Arc<ChangeQueue>>,
}

#[derive(Debug, Default)]
struct Owners {
    by_state: BTreeMap<u64, ReleaseNumber>,
    order: VecDeque<u64>,
}

impl RequestStates {
    /// A release gave a state out.
    pub(in crate::proxy) fn record(&self, state: u64, release: ReleaseNumber) {
        if let Some(change_sink) = self.change_sink.get() {
            change_sink.push(LocalChange::RequestState(state, release));
        }
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.by_state.insert(state, release).is_none() {
            owners.order.push_back(state);
        }
        if owners.order.len() > STATES_MAX
            && let Some(oldest) = owners.order.pop_front()
        {
            owners.by_state.remove(&oldest);
        }
    }

    /// Who gave it out; `None` when that is not known.
    pub(in crate::proxy) fn owner(&self, state: u64) -> Option<ReleaseNumber> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.by_state.get(&state).copied()
    }

    /// Tells, from now on, what is given out.
    pub(in crate::proxy) fn set_change_sink(&self, change_sink: Arc<ChangeQueue>) {
        let _ = self.change_sink.set(change_sink);
    }

    /// All that are remembered, the oldest first.
    pub(in crate::proxy) fn entries(&self) -> Vec<(u64, ReleaseNumber)> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn the_newest_are_remembered_with_whoever_gave_them_last() {
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
