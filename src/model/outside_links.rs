use std::fmt;

use serde::{Deserialize, Serialize};

/// The symbolic links of an artifact that lead out of it: the artifact's digest covers the links, and
/// not what they lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideLinks {
    /// How many there are.
    pub count: u64,
    /// The first of them by path, at most [`Self::LISTED_MAX`].
    pub listed: Vec<OutsideLink>,
}

/// A link of an artifact that leads out of it. Long texts are cut, and control characters replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideLink {
    /// Its path below the artifact.
    pub path: String,
    /// Its target, as the link has it.
    pub target: String,
}

impl OutsideLinks {
    /// Links that are listed.
    pub const LISTED_MAX: usize = 16;
    /// Links that a text names.
    const NAMED: usize = 3;

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Counts a link, and lists it if there is room.
    pub fn add(&mut self, link: OutsideLink) {
        self.count = self.count.saturating_add(1);
        if self.listed.len() < Self::LISTED_MAX {
            self.listed.push(link);
        }
    }
}

/// Such as `2 links lead out of the artifact: lib -> /usr/lib, log -> /var/log`.
impl fmt::Display for OutsideLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (links, lead) = if self.count == 1 { ("link", "leads") } else { ("links", "lead") };
        let named: Vec<_> = self.listed.iter().take(Self::NAMED).map(ToString::to_string).collect();
        write!(f, "{} {links} {lead} out of the artifact: {}", self.count, named.join(", "))?;
        match self.count.saturating_sub(named.len() as u64) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl fmt::Display for OutsideLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.path, self.target)
    }
}
