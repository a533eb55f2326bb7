//! What is written down, and read back: timelines, recordings of what the judge heard, and what
//! else has to outlive the daemon.

mod journal;
mod journald;
mod recorded;
mod recording;
mod shorthand;
mod state;
mod timeline;

pub use journald::{JournalLayer, lost_messages as journal_lost};
pub use recorded::{
    SignalLog, SignalLogError, parse_signal_log as parse_recording,
    read_signal_log as read_recording,
};
pub use recording::{SIGNAL_LOG_BYTES_MAX, SignalLogHeader, SignalLogWriter, list_signal_logs};
pub use state::{StateDir, StateError};
pub use timeline::{Timeline, Truncated, read_deploy, read_latest};
