//! A log entry on its way to the journal's thread.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use tracing::Metadata;
use tracing::field::{Field, Value, Visit};

use crate::model::escape_unsafe;

/// Fields that are journal fields only. The message has all other fields, too.
const QUIET_FIELDS: [&str; 7] =
    ["service", "deploy", "release", "severity", "seq", KIND_FIELD, PAGE_FIELD];
pub(super) const KIND_FIELD: &str = "kind";
pub(super) const PAGE_FIELD: &str = "page";
const MESSAGE_FIELD: &str = "message";

/// Messages that the log, the journal or the standard error, did not get since the daemon started.
pub(super) static LOST_MESSAGES: AtomicU64 = AtomicU64::new(0);

/// Messages that the log, the journal or the standard error, did not get since the daemon started.
pub fn lost_messages() -> u64 {
    LOST_MESSAGES.load(Ordering::Relaxed)
}

pub(super) fn count_lost_message() {
    LOST_MESSAGES.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug)]
pub(super) enum SenderCommand {
    Send(JournalEntry),
    Flush(SyncSender<()>),
}

/// An event with the spans around it, outermost first.
#[derive(Debug)]
pub(super) struct JournalEntry {
    pub(super) event: Recorded,
    pub(super) spans: Vec<Recorded>,
}

/// The values of an event or a span, in the order of its fields.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) metadata: &'static Metadata<'static>,
    values: Vec<Option<String>>,
}

impl Recorded {
    pub(super) fn new(metadata: &'static Metadata<'static>) -> Self {
        Self { metadata, values: vec![None; metadata.fields().len()] }
    }

    /// The value of a field; `None` if the event does not have it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(self.metadata.fields().field(name)?.index())?.as_deref()
    }

    /// The values to send, without those of fields for which `skip` returns true.
    pub(super) fn values(&self, skip: impl Fn(&str) -> bool) -> Vec<Option<&dyn Value>> {
        let fields = self.metadata.fields().iter().zip(&self.values);
        let values = fields.map(|(field, value)| {
            let value = value.as_ref().filter(|_| !skip(field.name()))?;
            Some(value as &dyn Value)
        });
        values.collect()
    }

    /// Adds to the message what `journalctl` would not show: it prints no other fields.
    pub(super) fn extend_message(&mut self) {
        let Some(message) = self.metadata.fields().field(MESSAGE_FIELD) else { return };
        let mut extra = String::new();
        for (field, value) in self.metadata.fields().iter().zip(&self.values) {
            let name = field.name();
            if let Some(value) = value
                && name != MESSAGE_FIELD
                && !QUIET_FIELDS.contains(&name)
            {
                extra.push_str(&format!(" {name}={value}"));
            }
        }
        if let Some(Some(message)) = self.values.get_mut(message.index()) {
            message.push_str(&extra);
        }
    }

    fn set(&mut self, field: &Field, value: String) {
        if let Some(slot) = self.values.get_mut(field.index()) {
            // journald keeps line breaks apart from the next message; it shows other control
            // characters as they are, or the whole message as binary data.
            let lines: Vec<_> = value.split('\n').map(escape_unsafe).collect();
            *slot = Some(lines.join("\n"));
        }
    }
}

impl Visit for Recorded {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, format!("{value:?}"));
    }
}
