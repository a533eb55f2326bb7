//! What outlives the daemon: timelines, signal logs, incidents, the outbox, the secret of the host; and
//! the log, as it
//! reaches systemd's journal or the standard error.

mod error;
mod files;
mod incident_store;
mod journal_entry;
mod journal_layer;
mod journal_sender;
mod message_ids;
mod outbox;
mod outbox_state;
mod output_file;
mod page_layer;
mod signal_log;
mod state_dir;
mod stderr_log;
mod timeline;
mod timeline_file;

pub use timeline::{NewEntry, OpenedTimeline, Room, Timeline, Truncated};

pub use crate::record::error::StateError;
pub use crate::record::incident_store::IncidentStore;
pub use crate::record::journal_entry::lost_messages;
pub use crate::record::journal_layer::JournalLayer;
pub use crate::record::outbox::{Outbox, Queued};
pub use crate::record::outbox_state::OutboxState;
pub use crate::record::output_file::read_output_section;
pub use crate::record::page_layer::{PageLayer, PagedMessage, next_page};
pub use crate::record::signal_log::codec::{SIGNAL_LOG_BYTES_MAX, SignalLogHeader};
pub use crate::record::signal_log::reader::{
    SignalLog, SignalLogError, parse_signal_log, read_signal_log,
};
pub use crate::record::signal_log::writer::{
    SignalLogWriter, last_signal_moment, list_signal_logs,
};
pub use crate::record::state_dir::StateDir;
pub use crate::record::stderr_log::StderrLog;
pub use crate::record::timeline_file::{list_deploys, read_deploy, read_latest};
