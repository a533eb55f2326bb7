/// When live sessions move to another release, as the configuration has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveSessions {
    /// Only away from a release that is rolled back.
    Rollback,
    /// Also to a new release.
    Both,
    /// Also to a new release that gets its users by a ramp.
    Auto,
}

impl MoveSessions {
    /// Whether they move to a new release.
    pub fn to_new_release(self, by_ramp: bool) -> bool {
        match self {
            Self::Rollback => false,
            Self::Both => true,
            Self::Auto => by_ramp,
        }
    }
}
