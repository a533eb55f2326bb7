//! The log, as the system's journal takes it: datagrams with fields.
//!
//! The threads of the proxy only put a message into a queue; one thread of its own sends it. When
//! journald does not take them, the queue fills and messages are dropped, and counted.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::record::message_ids;

const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// Messages that wait for journald.
const QUEUE_MAX: usize = 1024;
/// How long the end of the daemon waits for them.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Messages that journald did not get, since the daemon started.
static LOST_MESSAGES: AtomicU64 = AtomicU64::new(0);

/// Messages that the system's journal did not get, since the daemon started.
pub fn lost_messages() -> u64 {
    LOST_MESSAGES.load(Ordering::Relaxed)
}

/// Sends what is logged to the system's journal.
#[derive(Debug, Clone)]
pub struct JournalLayer(Arc<SyncSender<SenderCommand>>);

#[derive(Debug)]
enum SenderCommand {
    Send(Vec<u8>),
    Flush(SyncSender<()>),
}

/// What one event says.
#[derive(Debug, Default)]
struct JournalEntry {
    message: String,
    /// Further words for the message.
    extra_text: String,
    fields: Vec<(&'static str, String)>,
    kind: Option<String>,
    page: bool,
}

impl JournalLayer {
    /// The system's journal, if the standard error of this process leads there.
    pub fn connect() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = rustix::fs::fstat(io::stderr()).ok()?;
        if stream != format!("{}:{}", stat.st_dev, stat.st_ino) {
            return None;
        }
        Self::connect_to(Path::new(JOURNAL_SOCKET)).ok()
    }

    /// The journal that listens on this socket.
    ///
    /// # Errors
    /// When nothing listens there, or no thread can be started.
    fn connect_to(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Only to see that somebody listens; a journald that is started again is found by its path.
        UnixDatagram::unbound()?.connect(path)?;
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("journald".to_owned())
            .spawn(move || run_sender(&socket, &path, &receiver))?;
        Ok(Self(Arc::new(sender)))
    }

    /// Waits until all is sent that was logged so far, half a second at most.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.0.try_send(SenderCommand::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_MAX);
        }
    }
}

fn run_sender(socket: &UnixDatagram, path: &PathBuf, receiver: &Receiver<SenderCommand>) {
    let mut reported = 0;
    while let Ok(job) = receiver.recv() {
        let datagram = match job {
            SenderCommand::Send(datagram) => datagram,
            SenderCommand::Flush(done) => {
                let _ = done.try_send(());
                continue;
            }
        };
        if socket.send_to(&datagram, path).is_err() {
            LOST_MESSAGES.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let lost = lost_messages();
        if lost != reported {
            let text = format!("{} messages did not reach the journal", lost - reported);
            let entry = JournalEntry { message: text, ..JournalEntry::default() };
            if socket.send_to(&entry.datagram(Level::WARN), path).is_ok() {
                reported = lost;
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut entry = JournalEntry::default();
        event.record(&mut entry);
        if self.0.try_send(SenderCommand::Send(entry.datagram(level))).is_err() {
            LOST_MESSAGES.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl JournalEntry {
    fn datagram(&self, level: Level) -> Vec<u8> {
        let kind = self.kind.as_deref().or(self.page.then_some(message_ids::PAGE_KIND));
        let message_kind = kind.and_then(message_ids::lookup);
        let by_level = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let priority = match message_kind {
            _ if self.page => message_ids::PAGE_PRIORITY,
            Some((_, priority)) => priority,
            None => by_level,
        };
        let mut bytes = Vec::new();
        write_field(&mut bytes, "MESSAGE", &format!("{}{}", self.message, self.extra_text));
        write_field(&mut bytes, "PRIORITY", &priority.to_string());
        write_field(&mut bytes, "SYSLOG_IDENTIFIER", "rollbackd");
        if let Some((id, _)) = message_kind {
            write_field(&mut bytes, "MESSAGE_ID", id);
        }
        if let Some(kind) = kind {
            write_field(&mut bytes, "ROLLBACKD_EVENT", kind);
        }
        for (name, value) in &self.fields {
            write_field(&mut bytes, name, value);
        }
        bytes
    }

    fn add_field(&mut self, field: &Field, value: String) {
        let name = match field.name() {
            "message" => {
                self.message = value;
                return;
            }
            "kind" => {
                self.kind = Some(value);
                return;
            }
            "service" => "ROLLBACKD_SERVICE",
            "deploy" => "ROLLBACKD_DEPLOY",
            "release" => "ROLLBACKD_RELEASE",
            "severity" => "ROLLBACKD_SEVERITY",
            "seq" => "ROLLBACKD_SEQ",
            other => {
                self.extra_text.push_str(&format!(" {other}={value}"));
                return;
            }
        };
        self.fields.push((name, value));
    }
}

impl Visit for JournalEntry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_field(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "page" => self.page = value,
            _ => self.add_field(field, value.to_string()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add_field(field, format!("{value:?}"));
    }
}

/// A field as journald reads it. A value of several lines goes with its length.
fn write_field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&u64::try_from(value.len()).unwrap_or_default().to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn next(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_message_has_its_fields_and_a_journal_that_does_not_read_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let server = UnixDatagram::bind(&path).unwrap();
        let journald = JournalLayer::connect_to(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(journald.clone());
        tracing::subscriber::with_default(subscriber, || {
            let severity = Some("critical");
            tracing::info!(service = "weather", deploy = 42, kind = "decided", severity, "goes");
            let sent = next(&server);
            let (id, _) = message_ids::lookup("decided").unwrap();
            let expected = format!(
                "MESSAGE=goes\nPRIORITY=4\nSYSLOG_IDENTIFIER=rollbackd\nMESSAGE_ID={id}\n\
                 ROLLBACKD_EVENT=decided\nROLLBACKD_SERVICE=weather\nROLLBACKD_DEPLOY=42\n\
                 ROLLBACKD_SEVERITY=critical\n"
            );
            assert_eq!(sent, expected);
            tracing::error!(service = "weather", page = true, "wake\nup");
            let sent = next(&server);
            assert!(
                sent.starts_with("MESSAGE\n\u{7}\0\0\0\0\0\0\0wake\nup\nPRIORITY=2\n"),
                "{sent:?}"
            );
            assert!(sent.contains("ROLLBACKD_EVENT=page\n"), "{sent}");
            tracing::warn!(error = %"x", "odd");
            assert!(next(&server).starts_with("MESSAGE=odd error=x\nPRIORITY=4\n"));
            // Nobody reads any more: the queue and the socket fill, and the rest is dropped.
            for number in 0..5_000 {
                tracing::info!(number, "flood");
            }
        });
        assert!(lost_messages() > 1_000, "{}", lost_messages());
        let mut all = String::new();
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        while !all.contains("messages did not reach the journal") {
            all.push_str(&next(&server));
        }
    }
}
