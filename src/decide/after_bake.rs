//! How a release is watched after its bake.

use crate::model::{Guard, Moment};

/// What the daemon does about a breach after the bake, as the configuration has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterBake {
    /// Nothing: the release is not watched.
    Off,
    /// It pages.
    #[default]
    Page,
    /// It rolls back like in a bake, while the previous release still runs.
    Act,
}

/// The watch over a release that is not on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SteadyWatch {
    /// It is not watched: the operator was paged before, for a rollback that could not finish.
    Off,
    /// It meets its objectives, as far as is known.
    On,
    /// It is in breach, and the operator was paged.
    Breach {
        /// Why it was not rolled back.
        guard: Guard,
        /// When that was recorded.
        since: Moment,
    },
}
