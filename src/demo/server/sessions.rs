//! The legacy sessions of one server.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::mutex::lock;

use tokio::sync::watch;

/// Sessions at once; a new one replaces the oldest.
const SESSIONS_MAX: usize = 4096;

/// The sessions, by id. They end with the process.
#[derive(Debug, Default)]
pub(crate) struct SessionStore(Mutex<SessionTable>);

#[derive(Debug, Default)]
struct SessionTable {
    created: u64,
    by_id: BTreeMap<String, Session>,
}

#[derive(Debug)]
struct Session {
    sequence: u64,
    /// Streams of the session end when this is dropped.
    end: watch::Sender<()>,
}

impl SessionStore {
    /// Creates a session with a random id. `None` if the system has no randomness.
    pub(crate) fn create(&self) -> Option<String> {
        let mut secret = [0_u8; 16];
        getrandom::fill(&mut secret).ok()?;
        let id: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut table = lock(&self.0);
        if table.by_id.len() >= SESSIONS_MAX {
            let oldest = table.by_id.iter().min_by_key(|(_, session)| session.sequence);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                table.by_id.remove(&oldest);
            }
        }
        table.created += 1;
        let session = Session { sequence: table.created, end: watch::Sender::new(()) };
        table.by_id.insert(id.clone(), session);
        Some(id)
    }

    /// Returns a receiver that fails when the session ends; `None` if there is no such session.
    pub(crate) fn subscribe(&self, id: &str) -> Option<watch::Receiver<()>> {
        let table = lock(&self.0);
        table.by_id.get(id).map(|session| session.end.subscribe())
    }

    /// Ends the session, if there is one.
    pub(crate) fn remove(&self, id: &str) {
        let mut table = lock(&self.0);
        table.by_id.remove(id);
    }
}
