use std::fmt;

use serde::{Deserialize, Serialize};

/// Those that would meet a new release in a ramp. Active is who sent a request in the last minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveUsers {
    /// Active sessions that can move.
    pub sessions: u64,
    /// Active clients without a session, about.
    pub clients: u64,
}

impl ActiveUsers {
    /// All of them.
    pub fn total(self) -> u64 {
        self.sessions.saturating_add(self.clients)
    }
}

impl fmt::Display for ActiveUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, clients } = *self;
        match sessions {
            0 if 0 < clients => (),
            0 => f.write_str("no active session can move")?,
            1 => f.write_str("1 active session can move")?,
            _ => write!(f, "{sessions} active sessions can move")?,
        }
        let join = if 0 < sessions && 0 < clients { ", " } else { "" };
        match clients {
            0 => Ok(()),
            1 => write!(f, "{join}1 client without a session is active"),
            _ => write!(f, "{join}{clients} clients without a session are active"),
        }
    }
}
