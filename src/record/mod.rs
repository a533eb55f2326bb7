//! What is written down, and read back: timelines, recordings of what the judge heard, and what
//! else has to outlive the daemon.

mod journal_layer;
mod message_ids;
mod signal_log;
mod state_dir;
mod timeline;

pub use timeline::{Timeline, Truncated, read_deploy, read_latest};

pub use crate::record::journal_layer::{JournalLayer, lost_messages as journal_lost};
pub use crate::record::signal_log::reader::{
    SignalLog, SignalLogError, parse_signal_log as parse_recording,
    read_signal_log as read_recording,
};
pub use crate::record::signal_log::writer::{
    SIGNAL_LOG_BYTES_MAX, SignalLogHeader, SignalLogWriter, list_signal_logs,
};
pub use crate::record::state_dir::{StateDir, StateError};
