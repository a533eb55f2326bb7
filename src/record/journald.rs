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

use super::journal;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Messages that wait for journald.
const QUEUE_MAX: usize = 1024;
/// How long the end of the daemon waits for them.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Messages that journald did not get, since the daemon started.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Messages that the system's journal did not get, since the daemon started.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Sends what is logged to the system's journal.
#[derive(Debug, Clone)]
pub struct Journald(Arc<SyncSender<Job>>);

#[derive(Debug)]
enum Job {
    Send(Vec<u8>),
    Flush(SyncSender<()>),
}

/// What one event says.
#[derive(Debug, Default)]
struct Said {
    message: String,
    /// Further words for the message.
    more: String,
    fields: Vec<(&'static str, String)>,
    kind: Option<String>,
    page: bool,
}

impl Journald {
    /// The system's journal, if the standard error of this process leads there.
    pub fn connect() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = rustix::fs::fstat(io::stderr()).ok()?;
        if stream != format!("{}:{}", stat.st_dev, stat.st_ino) {
            return None;
        }
        Self::at(Path::new(SOCKET)).ok()
    }

    /// The journal that listens on this socket.
    ///
    /// # Errors
    /// When nothing listens there, or no thread can be started.
    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Only to see that somebody listens; a journald that is started again is found by its path.
        UnixDatagram::unbound()?.connect(path)?;
        let (outbox, inbox) = sync_channel(QUEUE_MAX);
        let path = path.to_owned();
        std::thread::Builder::new()
            .name("journald".to_owned())
            .spawn(move || send_all(&socket, &path, &inbox))?;
        Ok(Self(Arc::new(outbox)))
    }

    /// Waits until all is sent that was logged so far, half a second at most.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.0.try_send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_MAX);
        }
    }
}

fn send_all(socket: &UnixDatagram, path: &PathBuf, inbox: &Receiver<Job>) {
    let mut told = 0;
    while let Ok(job) = inbox.recv() {
        let datagram = match job {
            Job::Send(datagram) => datagram,
            Job::Flush(done) => {
                let _ = done.try_send(());
                continue;
            }
        };
        if socket.send_to(&datagram, path).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let lost = lost();
        if lost != told {
            let text = format!("{} messages did not reach the journal", lost - told);
            let said = Said { message: text, ..Said::default() };
            if socket.send_to(&said.datagram(Level::WARN), path).is_ok() {
                told = lost;
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Journald {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        if self.0.try_send(Job::Send(said.datagram(level))).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Said {
    fn datagram(&self, level: Level) -> Vec<u8> {
        let kind = self.kind.as_deref().or(self.page.then_some(journal::PAGE));
        let known = kind.and_then(journal::of);
        let by_level = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let priority = match known {
            _ if self.page => journal::PAGE_PRIORITY,
            Some((_, priority)) => priority,
            None => by_level,
        };
        let mut bytes = Vec::new();
        put(&mut bytes, "MESSAGE", &format!("{}{}", self.message, self.more));
        put(&mut bytes, "PRIORITY", &priority.to_string());
        put(&mut bytes, "SYSLOG_IDENTIFIER", "rollbackd");
        if let Some((id, _)) = known {
            put(&mut bytes, "MESSAGE_ID", id);
        }
        if let Some(kind) = kind {
            put(&mut bytes, "ROLLBACKD_EVENT", kind);
        }
        for (name, value) in &self.fields {
            put(&mut bytes, name, value);
        }
        bytes
    }

    fn note(&mut self, field: &Field, value: String) {
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
                self.more.push_str(&format!(" {other}={value}"));
                return;
            }
        };
        self.fields.push((name, value));
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "page" => self.page = value,
            _ => self.note(field, value.to_string()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.note(field, format!("{value:?}"));
    }
}

/// A field as journald reads it. A value of several lines goes with its length.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
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
        let journald = Journald::at(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(journald.clone());
        tracing::subscriber::with_default(subscriber, || {
            let severity = Some("critical");
            tracing::info!(service = "weather", deploy = 42, kind = "decided", severity, "goes");
            let sent = next(&server);
            let (id, _) = journal::of("decided").unwrap();
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
        assert!(lost() > 1_000, "{}", lost());
        let mut all = String::new();
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        while !all.contains("messages did not reach the journal") {
            all.push_str(&next(&server));
        }
    }
}
