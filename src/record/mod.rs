//! What is written down, and read back: timelines, and what else has to outlive the daemon.

mod state;
mod timeline;

pub use state::{State, StateError};
pub use timeline::{Timeline, Torn, read};
