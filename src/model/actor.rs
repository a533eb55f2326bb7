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
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} (pid {})", self.uid, self.pid)
    }
}
