//! The daemon's log on the standard error, where systemd's journal does not read it.
//!
//! A thread that logs only puts its line into a bounded queue. A thread of its own writes the lines: a
//! reader that is stuck, a full disk or a closed pipe stops that thread, and no other. Lines that do
//! not fit into the queue, or cannot be written, are counted.

use std::fmt::{self, Debug, Write as _};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::registry::LookupSpan;

use crate::critical;
use crate::model::EscapingWriter;
use crate::record::journal_entry::LOST_MESSAGES;

/// Lines in the queue.
const LINES_MAX: usize = 1024;
/// Bytes in the queue.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the end of the daemon waits for the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the thread waits for a reader of a pipe that does not block, before it tries again.
const POLL_SECONDS: i64 = 1;

/// Queues lines for the standard error.
#[derive(Debug, Clone)]
pub struct StderrLog {
    queue: SyncSender<Job>,
    queued_bytes: Arc<AtomicUsize>,
    /// Counts the lines that are lost.
    lost: &'static AtomicU64,
}

#[derive(Debug)]
enum Job {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl StderrLog {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start() -> io::Result<Self> {
        Self::start_with(StderrOutput, &LOST_MESSAGES)
    }

    fn start_with(
        output: impl Write + Send + 'static,
        lost: &'static AtomicU64,
    ) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(LINES_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let writer =
            QueueWriter { output, queued_bytes: Arc::clone(&queued_bytes), lost, reported: 0 };
        critical::spawn_thread("stderr", move || writer.run(&jobs))?;
        Ok(Self { queue, queued_bytes, lost })
    }

    /// A layer that logs here. Field values are escaped; a message may have several lines, and those after
    /// the first are indented.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self, ansi: bool) -> impl Layer<S> {
        tracing_subscriber::fmt::layer()
            .with_writer(self.clone())
            .with_ansi(ansi)
            .with_target(false)
            // Such an error would go to the standard error itself, and a closed one is a panic.
            .log_internal_errors(false)
            .fmt_fields(debug_fn(write_field).delimited(" "))
    }

    /// Queues a line, without its line feed.
    pub fn line(&self, text: &str) {
        self.push(format!("{text}\n").into_bytes());
    }

    /// Waits until the lines so far are written, at most half a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Job::Flush(done)).is_ok() {
            // After the time limit the lines are lost with the process.
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    fn push(&self, line: Vec<u8>) {
        let length = line.len();
        let queued = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        let fits = queued + length <= BYTES_MAX;
        if !fits || self.queue.try_send(Job::Line(line)).is_err() {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for StderrLog {
    type Writer = QueuedLine<'a>;

    fn make_writer(&'a self) -> QueuedLine<'a> {
        QueuedLine { log: self, line: Vec::new() }
    }
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() == "message" {
        return write!(IndentingWriter(writer), "{value:?}");
    }
    write!(writer, "{}=", field.name())?;
    write!(EscapingWriter(writer), "{value:?}")
}

/// Escapes all but line breaks, and indents what follows them: no text can pass for another event.
struct IndentingWriter<'a, 'b>(&'a mut Writer<'b>);

impl fmt::Write for IndentingWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.0.write_str("\n    ")?;
            }
            EscapingWriter(&mut *self.0).write_str(line)?;
        }
        Ok(())
    }
}

/// One event; it is queued when it is dropped.
#[derive(Debug)]
pub struct QueuedLine<'a> {
    log: &'a StderrLog,
    line: Vec<u8>,
}

impl Write for QueuedLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for QueuedLine<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.log.push(std::mem::take(&mut self.line));
        }
    }
}

/// The standard error, also where it is a pipe that does not block.
#[derive(Debug)]
struct StderrOutput;

impl Write for StderrOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match io::stderr().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let stderr = io::stderr();
                    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
                    let _ = poll(&mut fds, Some(&Timespec { tv_sec: POLL_SECONDS, tv_nsec: 0 }));
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's end of the queue.
struct QueueWriter<W> {
    output: W,
    queued_bytes: Arc<AtomicUsize>,
    lost: &'static AtomicU64,
    /// Lost lines that the log already names.
    reported: u64,
}

impl<W: Write> QueueWriter<W> {
    /// Writes until every sender is dropped.
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(Duration::from_secs(1)) {
                Ok(Job::Line(line)) => {
                    let written = self.output.write_all(&line);
                    self.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    if written.is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    } else {
                        self.report_lost();
                    }
                }
                Ok(Job::Flush(done)) => _ = done.try_send(()),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn report_lost(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost != self.reported {
            let text = format!("rollbackd: {} log messages were lost\n", lost - self.reported);
            if self.output.write_all(text.as_bytes()).is_ok() {
                self.reported = lost;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// An output that reports what it gets while its lock is free; its next `failing` writes fail.
    struct FakeOutput {
        lock: Arc<Mutex<()>>,
        failing: Arc<AtomicUsize>,
        received: Sender<String>,
    }

    impl Write for FakeOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _free = self.lock.lock().unwrap();
            let left = self.failing.load(Ordering::Relaxed);
            if left > 0 {
                self.failing.store(left - 1, Ordering::Relaxed);
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.received.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Other tests lose messages, too.
    fn own_counter() -> &'static AtomicU64 {
        Box::leak(Box::default())
    }

    #[test]
    fn a_stuck_or_failing_output_blocks_no_caller_and_loses_only_counted_lines() {
        let (lock, failing) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
        let (received, lines) = channel();
        let output =
            FakeOutput { lock: Arc::clone(&lock), failing: Arc::clone(&failing), received };
        let lost = own_counter();
        let log = StderrLog::start_with(output, lost).unwrap();
        let next = || lines.recv_timeout(Duration::from_secs(60)).unwrap();
        log.line("one");
        assert_eq!(next(), "one\n");

        failing.store(1, Ordering::Relaxed);
        log.line("lost");
        log.line("two");
        assert_eq!(next(), "two\n");
        assert_eq!(next(), "rollbackd: 1 log messages were lost\n");

        let stuck = lock.lock().unwrap();
        for number in 0..3 * LINES_MAX {
            log.line(&format!("flood {number}"));
        }
        // One line may be with the writer, the queue holds its limit.
        assert!(lost.load(Ordering::Relaxed) >= LINES_MAX as u64, "{lost:?}");
        drop(stuck);
        while !next().contains("log messages were lost") {}
    }

    #[test]
    fn no_text_moves_the_cursor_or_passes_for_another_event() {
        let (received, lines) = channel();
        let output = FakeOutput { lock: Arc::default(), failing: Arc::default(), received };
        let log = StderrLog::start_with(output, own_counter()).unwrap();
        let subscriber = tracing_subscriber::registry().with(log.layer(false));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(service = "w\u{1b}[31m", why = %"a\u{202e}b\nc", "x\u{9b}\u{2028}\n2026 INFO forged");
        });
        let line = lines.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(line.ends_with('\n') && line.contains("\n    2026 INFO forged"), "{line:?}");
        assert!(line.contains("why=a\\u{202e}b\\nc"), "{line:?}");
        let is_unsafe = |c: char| c != '\n' && crate::model::is_unsafe_to_print(c);
        assert!(!line.contains(is_unsafe), "{line:?}");
    }

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let lock = Arc::new(Mutex::new(()));
        let (received, _lines) = channel();
        let output = FakeOutput { lock: Arc::clone(&lock), failing: Arc::default(), received };
        let log = StderrLog::start_with(output, own_counter()).unwrap();
        let _stuck = lock.lock().unwrap();
        let line = "x".repeat(BYTES_MAX / 8);
        for _ in 0..20 {
            log.line(&line);
        }
        assert!(log.queued_bytes.load(Ordering::Relaxed) <= BYTES_MAX);
    }
}
