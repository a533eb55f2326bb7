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
    /// A person knows that it is in trouble.
    Off,
    /// It meets its objectives, as far as is known.
    On,
    /// It is in breach, and a person was told.
    Breach {
        /// Why it was not rolled back.
        guard: Guard,
        /// When that was recorded.
        since: Moment,
    },
}
