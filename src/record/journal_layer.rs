//! The layer that copies the daemon's log for systemd's journal.
//!
//! A thread that logs only puts a copy of the event into a bounded queue. The thread of
//! [`journal_sender`](super::journal_sender) sends it. While journald accepts nothing, the queue
//! fills, and further messages are dropped and counted.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tracing::field::{Field, Value, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::record::journal_sender::{self, Journal, SystemJournal};

/// Messages in the queue.
const QUEUE_MAX: usize = 1024;
/// How long the end of the daemon waits for the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// Fields that are journal fields only. The message has all other fields, too.
const QUIET_FIELDS: [&str; 7] =
    ["service", "deploy", "release", "severity", "seq", KIND_FIELD, PAGE_FIELD];
pub(super) const KIND_FIELD: &str = "kind";
pub(super) const PAGE_FIELD: &str = "page";
const MESSAGE_FIELD: &str = "message";

/// Messages that the journal did not get since the daemon started.
static LOST_MESSAGES: AtomicU64 = AtomicU64::new(0);

/// Messages that the journal did not get since the daemon started.
pub fn lost_messages() -> u64 {
    LOST_MESSAGES.load(Ordering::Relaxed)
}

pub(super) fn count_lost_message() {
    LOST_MESSAGES.fetch_add(1, Ordering::Relaxed);
}

/// Copies events to systemd's journal.
#[derive(Debug, Clone)]
pub struct JournalLayer(Arc<SyncSender<SenderCommand>>);

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

impl JournalLayer {
    /// A layer for the journal, if the standard error of this process leads there.
    pub fn connect() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = rustix::fs::fstat(io::stderr()).ok()?;
        if stream != format!("{}:{}", stat.st_dev, stat.st_ino) {
            return None;
        }
        Self::start(SystemJournal).ok()
    }

    /// Starts the thread that sends.
    ///
    /// # Errors
    /// The journal cannot be reached, or the thread cannot start.
    pub(super) fn start(journal: impl Journal) -> io::Result<Self> {
        journal.probe()?;
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("journald".to_owned())
            .spawn(move || journal_sender::run(journal, &receiver))?;
        Ok(Self(Arc::new(sender)))
    }

    /// Waits until the messages so far are sent, at most half a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        let queue = Arc::clone(&self.0);
        // A full queue blocks this thread instead of the caller.
        let sending = std::thread::Builder::new()
            .name("journald-flush".to_owned())
            .spawn(move || queue.send(SenderCommand::Flush(done)));
        if sending.is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournalLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut recorded = Recorded::new(attributes.metadata());
            attributes.record(&mut recorded);
            span.extensions_mut().insert(recorded);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(recorded) = span.extensions_mut().get_mut::<Recorded>()
        {
            values.record(recorded);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() > Level::INFO {
            return;
        }
        let mut recorded = Recorded::new(event.metadata());
        event.record(&mut recorded);
        recorded.extend_message();
        let scope = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let spans = scope.filter_map(|span| span.extensions().get::<Recorded>().cloned());
        let entry = JournalEntry { event: recorded, spans: spans.collect() };
        if self.0.try_send(SenderCommand::Send(entry)).is_err() {
            count_lost_message();
        }
    }
}

impl Recorded {
    fn new(metadata: &'static Metadata<'static>) -> Self {
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
    fn extend_message(&mut self) {
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
            *slot = Some(value);
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
