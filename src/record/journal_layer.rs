//! The layer that copies the daemon's log for systemd's journal.
//!
//! A thread that logs only puts a copy of the event into a bounded queue. The thread of
//! [`journal_sender`](super::journal_sender) sends it. While journald accepts nothing, the queue
//! fills, and further messages are dropped and counted.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::critical;
use crate::record::journal_entry::{JournalEntry, Recorded, SenderCommand, count_lost_message};
use crate::record::journal_sender::{self, Journal, SystemJournal};

/// Messages in the queue.
const QUEUE_MAX: usize = 1024;
/// How long the end of the daemon waits for the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Copies events to systemd's journal.
#[derive(Debug, Clone)]
pub struct JournalLayer(Arc<SyncSender<SenderCommand>>);

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

    /// Starts the thread that sends. A journal that does not run yet, or restarts, gets what is logged
    /// after that.
    ///
    /// # Errors
    /// The thread cannot start.
    pub(super) fn start(journal: impl Journal) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        critical::spawn_thread("journald", move || journal_sender::run(journal, &receiver))?;
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
