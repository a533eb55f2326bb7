use std::fmt;

use serde::{Deserialize, Serialize};

/// Who gave a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// User id, from the kernel.
    pub uid: u32,
    /// Process id; 0 where it is not known.
    #[serde(default)]
    pub pid: i32,
    /// The name of the user, where the system knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "{user} (pid {})", self.pid),
            None => write!(f, "uid {} (pid {})", self.uid, self.pid),
        }
    }
}
