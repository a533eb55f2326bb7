use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A file longer than this is emptied before a start.
const START_MAX: u64 = 8 * 1024 * 1024;

/// A file longer than this is emptied while it is written.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of one line that are relayed.
const LINE_MAX: usize = 8 * 1024;

/// Bytes that are read in one turn; what is more is skipped.
const TURN_MAX: u64 = 1024 * 1024;

/// Lines that are relayed in a second.
const LINES_A_SECOND: u32 = 200;

const TURN_EVERY: Duration = Duration::from_millis(200);
const TURNS_A_SECOND: u32 = 5;

/// How long the last turn may take when the process is gone.
const FINISH_WAIT: Duration = Duration::from_secs(1);

/// Opens the output file of a slot to append to it. A pipe would break with the daemon; a file does not.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.len() > START_MAX {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Tells the log what a release writes, from now on, until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) fn start(path: &Path, service: &str, release: &str) -> Self {
        let (end, mut ends) = oneshot::channel();
        let mut tail = Tail::new(path, service, release);
        let task = tokio::spawn(async move {
            loop {
                let over = tokio::time::timeout(TURN_EVERY, &mut ends).await.is_ok();
                // The disk may be slow, and the proxy runs on these threads.
                let turned = tokio::task::spawn_blocking(move || {
                    tail.turn(over);
                    tail
                });
                match turned.await {
                    Ok(turned) if !over => tail = turned,
                    _ => return,
                }
            }
        });
        Self { end, task }
    }

    /// Relays what is left, and ends.
    pub(super) async fn finish(self) {
        drop(self.end);
        // What it does not manage in time is still in the file.
        let _ = tokio::time::timeout(FINISH_WAIT, self.task).await;
    }
}

/// How far the file was read.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    service: String,
    release: String,
    file: Option<File>,
    at: u64,
    lines: Lines,
    turns: u32,
    relayed: u32,
    dropped: u64,
}

impl Tail {
    fn new(path: &Path, service: &str, release: &str) -> Self {
        // Emptying it needs the right to write.
        let file = OpenOptions::new().read(true).append(true).open(path).ok();
        let at = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
        Self {
            path: path.to_owned(),
            service: service.to_owned(),
            release: release.to_owned(),
            file,
            at,
            lines: Lines::default(),
            turns: 0,
            relayed: 0,
            dropped: 0,
        }
    }

    /// Relays what is new.
    fn turn(&mut self, last: bool) {
        let lines = self.read().unwrap_or_else(|error| {
            self.file = None;
            vec![format!("(the output is no longer followed: {error})")]
        });
        let rest = if last { self.lines.rest() } else { None };
        for line in lines.into_iter().chain(rest) {
            if self.relayed < LINES_A_SECOND {
                self.relayed += 1;
                tracing::info!(release = %self.release, service = %self.service, "{line}");
            } else {
                self.dropped += 1;
            }
        }
        self.turns += 1;
        if self.turns >= TURNS_A_SECOND || last {
            self.count();
        }
    }

    fn read(&mut self) -> io::Result<Vec<String>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let length = file.metadata()?.len();
        if length < self.at {
            // Somebody emptied it.
            self.at = 0;
        }
        let mut lines = Vec::new();
        let new = length - self.at;
        if new > TURN_MAX {
            self.lines = Lines::default();
            self.at = length - TURN_MAX;
            lines.push(format!("({} bytes of output were skipped)", new - TURN_MAX));
        }
        let mut buffer = [0; 16 * 1024];
        while self.at < length {
            let read = file.read_at(&mut buffer, self.at)?;
            if read == 0 {
                break;
            }
            self.at += read as u64;
            self.lines.push(buffer.get(..read).unwrap_or_default(), &mut lines);
        }
        if length > FILE_MAX {
            file.set_len(0)?;
            self.at = 0;
        }
        Ok(lines)
    }

    fn count(&mut self) {
        if self.dropped > 0 {
            tracing::warn!(
                release = %self.release,
                service = %self.service,
                "{} lines of output were not relayed (limit {LINES_A_SECOND} a second); {} has them",
                self.dropped,
                self.path.display(),
            );
        }
        (self.turns, self.relayed, self.dropped) = (0, 0, 0);
    }
}

/// Cuts bytes into lines that are safe to print.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    cut: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], into: &mut Vec<String>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE_MAX.saturating_sub(self.begun.len());
            self.cut |= text.len() > room;
            self.begun.extend(text.iter().take(room));
            if ends {
                into.extend(self.rest());
            }
        }
    }

    /// The line so far; `None` when it is empty.
    fn rest(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.begun);
        let cut = std::mem::take(&mut self.cut);
        let text = String::from_utf8_lossy(bytes.trim_ascii_end());
        // A release must not be able to write colours, or lines of its own, into the daemon's log.
        let mut line: String = text
            .chars()
            .map(|letter| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter })
            .collect();
        if cut {
            line.push_str(" (cut)");
        }
        Some(line).filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX, Lines};

    #[test]
    fn lines_are_cut_and_cleaned() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        lines.push(b"one\ntw", &mut seen);
        lines.push(b"o\x1b[31m\r\n\n", &mut seen);
        lines.push(&[b'x'; LINE_MAX + 1], &mut seen);
        lines.push(b"more\nend", &mut seen);
        assert_eq!(seen.first().map(String::as_str), Some("one"));
        assert_eq!(seen.get(1).map(String::as_str), Some("two\u{fffd}[31m"));
        assert_eq!(seen.get(2).map(String::len), Some(LINE_MAX + " (cut)".len()));
        assert_eq!(seen.len(), 3);
        assert_eq!(lines.rest().as_deref(), Some("end"));
    }
}
