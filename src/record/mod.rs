//! What is written down, and read back: timelines, recordings of what the judge heard, and what
//! else has to outlive the daemon.

mod journal;
mod journald;
mod recorded;
mod recording;
mod shorthand;
mod state;
mod timeline;

pub use journald::{Journald, lost as journal_lost};
pub use recorded::{Recorded, RecordingError, parse as parse_recording, read as read_recording};
pub use recording::{Opening, RECORDING_BYTES_MAX, Recording, recordings};
pub use state::{State, StateError};
pub use timeline::{Timeline, Torn, peek, read};
