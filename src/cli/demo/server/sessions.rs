use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Sessions at once; the oldest is forgotten for a new one.
const SESSIONS_MAX: usize = 4096;

/// The legacy sessions of one process; they end with it.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    made: u64,
    by_id: BTreeMap<String, Session>,
}

#[derive(Debug)]
struct Session {
    order: u64,
    /// Streams of the session end when this is dropped.
    end: watch::Sender<()>,
}

impl Sessions {
    /// A new session; its id can not be guessed. `None` when there is no randomness.
    pub(super) fn begin(&self) -> Option<String> {
        let mut secret = [0_u8; 16];
        getrandom::fill(&mut secret).ok()?;
        let id: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.by_id.len() >= SESSIONS_MAX {
            let oldest = open.by_id.iter().min_by_key(|(_, session)| session.order);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                open.by_id.remove(&oldest);
            }
        }
        open.made += 1;
        let session = Session { order: open.made, end: watch::Sender::new(()) };
        open.by_id.insert(id.clone(), session);
        Some(id)
    }

    /// Fails for its waiter when the session ends; `None` when there is no such session.
    pub(super) fn watch(&self, id: &str) -> Option<watch::Receiver<()>> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_id.get(id).map(|session| session.end.subscribe())
    }

    /// Ends the session; false when there is none.
    pub(super) fn end(&self, id: &str) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_id.remove(id).is_some()
    }
}
