//! What other daemons know of a session: the next one from the file, the predecessor and the successor.

use std::sync::atomic::Ordering;

use crate::proxy::session::live_session::Session;
use crate::proxy::session::record::{PersistedSession, SessionLocation, encode_key};
use crate::proxy::session::snapshot::OpeningSnapshot;
use crate::proxy::session::state_machine::{SessionMachine, SessionPhase};

impl Session {
    /// What survives the daemon. `None` if it ended, or the proxy did not see its opening.
    pub(in crate::proxy::session) fn to_persisted(&self) -> Option<PersistedSession> {
        let state = self.inner();
        let ended = matches!(state.machine.phase(), SessionPhase::Ended(_));
        let snapshot = state.snapshot.as_deref().filter(|_| !ended)?;
        Some(PersistedSession {
            release: state.machine.release(),
            generation: state.machine.generation(),
            backend_id: state.backend_id.clone(),
            snapshot: Some(snapshot.clone()),
            opened_at: self.opened_at,
            owner: state.owner.clone(),
        })
    }

    /// Where it is.
    pub(in crate::proxy::session) fn location(&self) -> SessionLocation {
        let state = self.inner();
        SessionLocation {
            key: encode_key(&self.key),
            release: state.machine.release(),
            generation: state.machine.generation(),
            backend_id: state.backend_id.clone(),
        }
    }

    /// Applies the state of the same session in another daemon, where that is newer.
    pub(in crate::proxy::session) fn merge(&self, persisted: PersistedSession) {
        let mut state = self.inner();
        // A move that runs here decides the release itself.
        let moving = matches!(state.machine.phase(), SessionPhase::Moving(_));
        if state.machine.generation() < persisted.generation && !moving {
            state.machine = SessionMachine::new(persisted.release, persisted.generation);
            state.backend_id = persisted.backend_id;
            self.release.store(persisted.release.0, Ordering::Relaxed);
        }
        if state.owner.is_empty() {
            state.owner = persisted.owner;
        }
        let Some(opening) = persisted.snapshot else { return };
        match &mut state.snapshot {
            Some(snapshot) => snapshot.merge(opening),
            // A request came here before the record of its opening: the client has initialized it.
            ours @ None => *ours = Some(Box::new(OpeningSnapshot { initialized: true, ..opening })),
        }
    }
}
