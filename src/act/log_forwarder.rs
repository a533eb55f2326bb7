//! Forwards the output file of a release to the daemon's log, line by line and with limits.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::files::{create_private_dir, open_to_append};

/// A longer file is truncated before a start.
const TRUNCATE_AT_START_BYTES: u64 = 8 * 1024 * 1024;

/// A longer file is truncated while the release writes it.
const TRUNCATE_WHILE_RUNNING_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of one line that are forwarded.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Bytes that one poll reads; it skips the rest.
const POLL_BYTES_MAX: u64 = 1024 * 1024;

/// Lines that are forwarded per second.
const LINES_PER_SECOND: u32 = 200;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const POLLS_PER_SECOND: u32 = 5;

/// How long the last poll may take after the process exited.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens the output file of a slot for appending, after a line that begins a section. A pipe would break
/// with the daemon; a file does not.
pub(super) fn open_output_file(path: &Path, section: &str) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        create_private_dir(folder)?;
    }
    let mut file = open_to_append(path)?;
    if file.metadata()?.len() > TRUNCATE_AT_START_BYTES {
        file.set_len(0)?;
    }
    // A process that was killed leaves a line without its end.
    let separator = if ends_in_a_line(&file)? { "" } else { "\n" };
    // A release starts also on a full disk. Without its section line, its output counts as that of the
    // release before.
    let _ = file.write_all(format!("{separator}{section}\n").as_bytes());
    Ok(file)
}

/// Whether the last byte of a file is a line break, or there is none.
fn ends_in_a_line(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    // A file that was truncated meanwhile gives no byte.
    let count = file.read_at(&mut byte, last)?;
    Ok(count == 0 || byte == [b'\n'])
}

/// Forwards what a release writes from now on, until it is dropped.
#[derive(Debug)]
pub(super) struct LogForwarder {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl LogForwarder {
    pub(super) fn start(path: &Path, service: &str, release: &str) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let mut tail = OutputTail::new(path, service, release);
        let task = tokio::spawn(async move {
            loop {
                let last = tokio::time::timeout(POLL_INTERVAL, &mut stopped).await.is_ok();
                // The disk may be slow, and the proxy runs on the runtime's threads.
                let polled = tokio::task::spawn_blocking(move || {
                    tail.poll(last);
                    tail
                });
                match polled.await {
                    Ok(polled) if !last => tail = polled,
                    _ => return,
                }
            }
        });
        Self { stop, task }
    }

    /// Forwards the rest of the output, then ends.
    pub(super) async fn finish(self) {
        drop(self.stop);
        // What is not forwarded in time is still in the file.
        let _ = tokio::time::timeout(FINISH_TIMEOUT, self.task).await;
    }
}

/// The position in the output file.
#[derive(Debug)]
struct OutputTail {
    path: PathBuf,
    service: String,
    release: String,
    file: Option<File>,
    offset: u64,
    lines: LineSplitter,
    polls: u32,
    lines_forwarded: u32,
    lines_dropped: u64,
}

impl OutputTail {
    fn new(path: &Path, service: &str, release: &str) -> Self {
        // Truncation needs write access.
        let file = open_to_append(path).ok();
        let offset =
            file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        Self {
            path: path.to_owned(),
            service: service.to_owned(),
            release: release.to_owned(),
            file,
            offset,
            lines: LineSplitter::default(),
            polls: 0,
            lines_forwarded: 0,
            lines_dropped: 0,
        }
    }

    /// Forwards the new lines.
    fn poll(&mut self, last: bool) {
        let lines = self.read_new_lines().unwrap_or_else(|error| {
            self.file = None;
            vec![format!("(the output is no longer forwarded: {error})")]
        });
        let rest = if last { self.lines.take_line() } else { None };
        for line in lines.into_iter().chain(rest) {
            if self.lines_forwarded < LINES_PER_SECOND {
                self.lines_forwarded += 1;
                tracing::info!(release = %self.release, service = %self.service, "{line}");
            } else {
                self.lines_dropped += 1;
            }
        }
        self.polls += 1;
        if self.polls >= POLLS_PER_SECOND || last {
            self.report_dropped();
        }
    }

    fn read_new_lines(&mut self) -> io::Result<Vec<String>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let length = file.metadata()?.len();
        if length < self.offset {
            // Another process truncated it.
            self.offset = 0;
        }
        let mut lines = Vec::new();
        let new = length - self.offset;
        if new > POLL_BYTES_MAX {
            self.lines = LineSplitter::default();
            self.offset = length - POLL_BYTES_MAX;
            lines.push(format!("({} bytes of output were skipped)", new - POLL_BYTES_MAX));
        }
        let mut buffer = [0; 16 * 1024];
        while self.offset < length {
            let read = file.read_at(&mut buffer, self.offset)?;
            if read == 0 {
                break;
            }
            self.offset += read as u64;
            self.lines.push(buffer.get(..read).unwrap_or_default(), &mut lines);
        }
        if length > TRUNCATE_WHILE_RUNNING_BYTES {
            file.set_len(0)?;
            self.offset = 0;
        }
        Ok(lines)
    }

    fn report_dropped(&mut self) {
        if self.lines_dropped > 0 {
            tracing::warn!(
                release = %self.release,
                service = %self.service,
                "{} lines of output were not forwarded (limit: {LINES_PER_SECOND} per second); see {}",
                self.lines_dropped,
                self.path.display(),
            );
        }
        (self.polls, self.lines_forwarded, self.lines_dropped) = (0, 0, 0);
    }
}

/// Splits bytes into lines that are safe to print.
#[derive(Debug, Default)]
struct LineSplitter {
    partial: Vec<u8>,
    truncated: bool,
}

impl LineSplitter {
    fn push(&mut self, bytes: &[u8], into: &mut Vec<String>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.truncated |= text.len() > room;
            self.partial.extend(text.iter().take(room));
            if ends {
                into.extend(self.take_line());
            }
        }
    }

    /// The line so far; `None` if it is empty.
    fn take_line(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.partial);
        let truncated = std::mem::take(&mut self.truncated);
        let text = String::from_utf8_lossy(bytes.trim_ascii_end());
        // A release must not write terminal escapes or forged lines into the daemon's log.
        let mut line: String = text
            .chars()
            .map(|letter| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter })
            .collect();
        if truncated {
            line.push_str(" (cut)");
        }
        Some(line).filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_begins_a_line_also_after_a_process_that_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output-blue.log");
        for (section, last) in [("one", "ends\n"), ("two", "is cut"), ("three", "")] {
            let mut file = open_output_file(&path, section).unwrap();
            file.write_all(last.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\nends\ntwo\nis cut\nthree\n");
    }

    #[test]
    fn lines_are_truncated_and_sanitised() {
        let mut lines = LineSplitter::default();
        let mut seen = Vec::new();
        lines.push(b"one\ntw", &mut seen);
        lines.push(b"o\x1b[31m\r\n\n", &mut seen);
        lines.push(&[b'x'; LINE_BYTES_MAX + 1], &mut seen);
        lines.push(b"more\nend", &mut seen);
        assert_eq!(seen.first().map(String::as_str), Some("one"));
        assert_eq!(seen.get(1).map(String::as_str), Some("two\u{fffd}[31m"));
        assert_eq!(seen.get(2).map(String::len), Some(LINE_BYTES_MAX + " (cut)".len()));
        assert_eq!(seen.len(), 3);
        assert_eq!(lines.take_line().as_deref(), Some("end"));
    }
}
