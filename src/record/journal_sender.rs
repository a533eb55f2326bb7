//! The thread that sends log entries to journald, through the layers of `tracing-journald`.
//!
//! Such a layer has a fixed MESSAGE_ID and PRIORITY, so each kind of message gets its own. An entry
//! goes to its layer with the callsite of the original event: unknown fields, fields of spans, file
//! and line become journal fields.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::Receiver;

use tracing::metadata::LevelFilter;
use tracing::span::Attributes;
use tracing::{Dispatch, Event};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::record::journal_entry::{
    JournalEntry, KIND_FIELD, PAGE_FIELD, SenderCommand, count_lost_message, lost_messages,
};
use crate::record::message_ids::{self, MessageKind};

/// Before the names of all fields but MESSAGE: `service` is ROLLBACKD_SERVICE.
const FIELD_PREFIX: &str = "ROLLBACKD";
const SYSLOG_IDENTIFIER: &str = "rollbackd";
/// The socket to which `tracing-journald` sends.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Where entries go.
pub(super) trait Journal: Send + 'static {
    /// Checks that the journal receives messages: an output does not report a failed send.
    fn probe(&self) -> io::Result<()>;
    /// Makes the output for one class of messages.
    fn connect(&self, class: MessageClass) -> io::Result<Dispatch>;
}

/// What the fixed fields of an output depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageClass {
    pub(super) kind: Option<&'static MessageKind>,
    /// Whether it pages the operator.
    pub(super) pages: bool,
}

/// The journal of this host.
#[derive(Debug)]
pub(super) struct SystemJournal;

impl Journal for SystemJournal {
    fn probe(&self) -> io::Result<()> {
        UnixDatagram::unbound()?.connect(JOURNAL_SOCKET)
    }

    fn connect(&self, class: MessageClass) -> io::Result<Dispatch> {
        let mut layer = tracing_journald::layer()?
            .with_field_prefix(Some(FIELD_PREFIX.to_owned()))
            .with_syslog_identifier(SYSLOG_IDENTIFIER.to_owned())
            .with_priority_mappings(class.priorities());
        if let Some(kind) = class.kind {
            let fields = [("MESSAGE_ID", kind.id), ("ROLLBACKD_EVENT", kind.name)];
            layer = layer.with_custom_fields(fields);
        }
        // Without the filter, this subscriber would enable every trace event of every crate.
        Ok(Dispatch::new(tracing_subscriber::registry().with(LevelFilter::INFO).with(layer)))
    }
}

impl MessageClass {
    fn new(entry: &JournalEntry) -> Self {
        let pages = entry.event.get(PAGE_FIELD) == Some("true");
        let kind = entry.event.get(KIND_FIELD).or(pages.then_some(message_ids::PAGE_KIND));
        Self { kind: kind.and_then(message_ids::lookup), pages }
    }

    /// The PRIORITY of each level.
    pub(super) fn priorities(self) -> PriorityMappings {
        let fixed = match self.kind {
            _ if self.pages => Some(message_ids::PAGE_PRIORITY),
            kind => kind.map(|kind| kind.priority),
        };
        PriorityMappings {
            error: fixed.unwrap_or(Priority::Error),
            warn: fixed.unwrap_or(Priority::Warning),
            info: fixed.unwrap_or(Priority::Informational),
            debug: fixed.unwrap_or(Priority::Debug),
            trace: fixed.unwrap_or(Priority::Debug),
        }
    }
}

/// Sends until all [`JournalLayer`](super::JournalLayer)s are dropped.
pub(super) fn run(journal: impl Journal, receiver: &Receiver<SenderCommand>) {
    let mut sender = Sender { journal, outputs: BTreeMap::new() };
    let mut reported = 0;
    while let Ok(command) = receiver.recv() {
        let entry = match command {
            SenderCommand::Send(entry) => entry,
            SenderCommand::Flush(done) => {
                let _ = done.try_send(());
                continue;
            }
        };
        if sender.send(&entry).is_err() {
            count_lost_message();
            continue;
        }
        let lost = lost_messages();
        if lost != reported && sender.report_lost(lost - reported).is_ok() {
            reported = lost;
        }
    }
}

struct Sender<J> {
    journal: J,
    /// By the name of the kind, and whether it pages the operator.
    outputs: BTreeMap<(Option<&'static str>, bool), Dispatch>,
}

impl<J: Journal> Sender<J> {
    fn send(&mut self, entry: &JournalEntry) -> io::Result<()> {
        let output = self.output(MessageClass::new(entry))?;
        // A registry closes a span through the default subscriber of the thread, not through itself.
        tracing::dispatcher::with_default(output, || emit(output, entry));
        Ok(())
    }

    fn report_lost(&mut self, count: u64) -> io::Result<()> {
        let output = self.output(MessageClass { kind: None, pages: false })?;
        tracing::dispatcher::with_default(output, || {
            tracing::warn!("{count} messages did not reach the journal");
        });
        Ok(())
    }

    fn output(&mut self, class: MessageClass) -> io::Result<&Dispatch> {
        self.journal.probe()?;
        let output = match self.outputs.entry((class.kind.map(|kind| kind.name), class.pages)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.journal.connect(class)?),
        };
        Ok(output)
    }
}

/// Repeats the event, within copies of its spans.
fn emit(output: &Dispatch, entry: &JournalEntry) {
    let mut open_spans = Vec::new();
    for span in &entry.spans {
        // The event's own value of a field wins.
        let values = span.values(|name| entry.event.get(name).is_some());
        let values = span.metadata.fields().value_set_all(&values);
        let id = output.new_span(&Attributes::new(span.metadata, &values));
        output.enter(&id);
        open_spans.push(id);
    }
    let known_kind = MessageClass::new(entry).kind.is_some();
    let values = entry.event.values(|name| name == PAGE_FIELD || name == KIND_FIELD && known_kind);
    let values = entry.event.metadata.fields().value_set_all(&values);
    output.event(&Event::new(entry.event.metadata, &values));
    for id in open_spans.into_iter().rev() {
        output.exit(&id);
        output.try_close(id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender as Channel, channel};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing::field::{Field, Visit};
    use tracing::{Metadata, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::Context;
    use tracing_subscriber::registry::LookupSpan;

    use super::*;
    use crate::record::journal_layer::JournalLayer;

    type Fields = BTreeMap<String, String>;

    /// A journal that reports what it gets, while its lock is free.
    struct FakeJournal {
        lock: Arc<Mutex<()>>,
        received: Channel<(MessageClass, Fields)>,
    }

    struct FakeOutput {
        class: MessageClass,
        lock: Arc<Mutex<()>>,
        received: Channel<(MessageClass, Fields)>,
    }

    #[derive(Default)]
    struct Collected(Fields);

    impl Visit for Collected {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.insert(field.name().to_owned(), format!("{value:?}"));
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.0.insert(field.name().to_owned(), value.to_owned());
        }
    }

    impl Journal for FakeJournal {
        fn probe(&self) -> io::Result<()> {
            Ok(())
        }

        fn connect(&self, class: MessageClass) -> io::Result<Dispatch> {
            let (lock, received) = (Arc::clone(&self.lock), self.received.clone());
            let output = FakeOutput { class, lock, received };
            Ok(Dispatch::new(tracing_subscriber::registry().with(LevelFilter::INFO).with(output)))
        }
    }

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for FakeOutput {
        fn on_new_span(
            &self,
            attributes: &Attributes<'_>,
            id: &tracing::span::Id,
            context: Context<'_, S>,
        ) {
            let mut fields = Collected::default();
            attributes.record(&mut fields);
            context.span(id).unwrap().extensions_mut().insert(fields);
        }

        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            let _free = self.lock.lock().unwrap();
            let mut fields = Collected::default();
            for span in context.lookup_current().into_iter().flat_map(|span| span.scope()) {
                let extensions = span.extensions();
                fields.0.extend(extensions.get::<Collected>().unwrap().0.clone());
            }
            event.record(&mut fields);
            let metadata: &'static Metadata<'static> = event.metadata();
            fields.0.insert("target".to_owned(), metadata.target().to_owned());
            self.received.send((self.class, fields.0)).unwrap();
        }
    }

    #[test]
    fn entries_keep_their_fields_and_a_stuck_journal_blocks_no_caller() {
        let (received, entries) = channel();
        let lock = Arc::new(Mutex::new(()));
        let journal = FakeJournal { lock: Arc::clone(&lock), received };
        let layer = JournalLayer::start(journal).unwrap();
        let next = || entries.recv_timeout(Duration::from_secs(5)).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("release", service = "weather", release = "v1");
            let entered = span.enter();
            let severity = Some("critical");
            tracing::info!(release = "v2", deploy = 42, kind = "decided", severity, "goes");
            let (class, fields) = next();
            assert_eq!(class.kind.unwrap().name, "decided");
            assert_eq!(class.priorities().info, Priority::Warning);
            let expected = [
                ("deploy", "42"),
                ("message", "goes"),
                ("release", "v2"),
                ("service", "weather"),
                ("severity", "critical"),
                ("target", module_path!()),
            ];
            assert_eq!(fields, expected.map(|(name, it)| (name.to_owned(), it.to_owned())).into());
            drop(entered);
            tracing::error!(service = "weather", page = true, "wake\nup");
            let (class, fields) = next();
            assert_eq!((class.kind.unwrap().name, class.pages), (message_ids::PAGE_KIND, true));
            assert_eq!(class.priorities().error, Priority::Critical);
            assert_eq!((fields["message"].as_str(), fields.get("page")), ("wake\nup", None));
            tracing::warn!(error = %"x", "odd");
            let (class, fields) = next();
            assert_eq!(class.priorities().warn, Priority::Warning);
            assert_eq!(
                (fields["message"].as_str(), fields["error"].as_str()),
                ("odd error=x", "x")
            );
            let stuck = lock.lock().unwrap();
            for number in 0..5_000 {
                tracing::info!(number, "flood");
            }
            drop(stuck);
        });
        assert!(lost_messages() > 1_000, "{}", lost_messages());
        while !next().1["message"].contains("messages did not reach the journal") {}
    }
}
