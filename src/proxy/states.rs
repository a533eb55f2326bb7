//! Which release sealed which `requestState` (2026-07-28).
//!
//! A server that needs more input hands the client a sealed state, and gets it back with the next
//! request. Another release may not be able to open it. What is remembered is a hash of it, so that
//! requests and answers pass as they are, however long they are; a client can only ever name a state
//! that it was given, and no release by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::model::Number;

use super::overlap::{Note, Tell};

/// States that are remembered; the oldest is forgotten first.
const STATES_MAX: usize = 4096;

/// The states that releases of one service gave out.
#[derive(Debug, Default)]
pub(super) struct States {
    given: Mutex<Given>,
    /// Who takes over.
    tell: OnceLock<Arc<Tell>>,
}

#[derive(Debug, Default)]
struct Given {
    by: BTreeMap<u64, Number>,
    order: VecDeque<u64>,
}

impl States {
    /// A release gave a state out.
    pub(super) fn note(&self, state: u64, release: Number) {
        if let Some(tell) = self.tell.get() {
            tell.note(Note::State(state, release));
        }
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.by.insert(state, release).is_none() {
            given.order.push_back(state);
        }
        if given.order.len() > STATES_MAX
            && let Some(oldest) = given.order.pop_front()
        {
            given.by.remove(&oldest);
        }
    }

    /// Who gave it out; `None` when that is not known.
    pub(super) fn by(&self, state: u64) -> Option<Number> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.by.get(&state).copied()
    }

    /// Tells, from now on, what is given out.
    pub(super) fn tell(&self, tell: Arc<Tell>) {
        let _ = self.tell.set(tell);
    }

    /// All that are remembered, the oldest first.
    pub(super) fn all(&self) -> Vec<(u64, Number)> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.order.iter().filter_map(|state| Some((*state, *given.by.get(state)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_with_whoever_gave_them_last() {
        let states = States::default();
        for state in 0..STATES_MAX as u64 {
            states.note(state, Number(1));
        }
        states.note(1, Number(2));
        assert_eq!((states.by(0), states.by(1)), (Some(Number(1)), Some(Number(2))));
        states.note(u64::MAX, Number(3));
        assert_eq!((states.by(0), states.by(u64::MAX)), (None, Some(Number(3))));
    }
}
