//! The signals that the judge of one deploy heard, in order, so that a replay gives the same
//! evidence to the bit: `NNNNNN.signals`, beside the timeline of that deploy.
//!
//! The first line says what the trial began with, each further one is a signal in [`shorthand`].
//! It is a help for looking back, not the state: nothing waits for the disk. A `kill -9` loses the
//! last second, a power cut what the system had not yet written, and what is torn is left out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Counts, History, Moment, Observation, ReleaseNumber, Signal};
use crate::record::signal_log::codec::IdleRun;
use crate::record::signal_log::reader::SignalLog;
use crate::record::signal_log::{codec, reader};

/// What the first line begins with; the number is the version of the format.
pub(in crate::record) const MAGIC: &str = "rollbackd-signals 1 ";
/// The last line of a recording that has no room left.
pub(in crate::record) const END_MARKER: &str = "full";
/// Largest recording of one deploy, in bytes.
pub const SIGNAL_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Recordings of one service that are kept.
const LOGS_KEPT: usize = 20;
/// Signals wait this long for company before they are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// More than this does not wait.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// What a trial began with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalLogHeader {
    /// The release on trial.
    pub release: ReleaseNumber,
    /// The release that could replace it.
    pub warm: Option<ReleaseNumber>,
    /// When the trial opened.
    pub opened: Moment,
    /// What the release before it had done.
    pub history: History,
}

/// A recording that is being written.
#[derive(Debug)]
pub struct SignalLogWriter {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    length: u64,
    /// Lines that wait to be written.
    buffer: String,
    idle_run: Option<IdleRun>,
    /// When the newest signal came.
    last_moment: Moment,
    flushed_at: Moment,
    closed: bool,
}

impl SignalLogWriter {
    /// Begins to record the trial of a deploy in the folder of its service, and lets the oldest
    /// recordings go. A recording of the same trial (release and warm release), left by a daemon
    /// that was killed, is gone on with: then it is returned too, and a judge that is opened with
    /// its [`SignalLogHeader`] and hears its signals stands where the dead one stood.
    ///
    /// # Errors
    /// When the file can not be made or written.
    pub fn open(
        dir: &Path,
        deploy: ReleaseNumber,
        header: &SignalLogHeader,
    ) -> io::Result<(Self, Option<SignalLog>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = log_path(dir, deploy);
        let existing = reader::read_signal_log(&path).ok().filter(|left| {
            (left.header.release, left.header.warm) == (header.release, header.warm)
        });
        let options = OpenOptions::new().write(true).create(true).mode(0o600).to_owned();
        let mut file = options.clone().truncate(false).open(&path)?;
        let length = match &existing {
            Some(left) => left.valid_bytes,
            None => 0,
        };
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let last = existing.as_ref().map_or(header.opened, SignalLog::last_moment);
        let ended = existing.as_ref().is_some_and(|left| left.size_limit_reached);
        let mut waiting = String::new();
        if existing.is_none() {
            waiting = format!("{MAGIC}{}\n", serde_json::to_string(header)?);
        }
        let mut recording = Self {
            path,
            file,
            length,
            buffer: waiting,
            idle_run: None,
            last_moment: last,
            flushed_at: last,
            closed: ended,
        };
        recording.write()?;
        prune(dir);
        Ok((recording, existing))
    }

    /// Takes one signal down. It reaches the file within a second, with the signals after it.
    pub fn append(&mut self, now: Moment, signal: &Signal) {
        if self.closed {
            return;
        }
        let step = now.0.saturating_sub(self.last_moment.0);
        self.last_moment = self.last_moment.max(now);
        match &signal.observation {
            Observation::Block(span, counts) if *counts == Counts::default() => {
                let extended = self
                    .idle_run
                    .as_mut()
                    .is_some_and(|it| it.try_extend(step, signal.release, *span));
                if !extended {
                    self.finish_idle_run();
                    self.idle_run = Some(IdleRun::start(step, signal.release, *span));
                }
            }
            _ => {
                self.finish_idle_run();
                codec::encode_signal(step, signal, &mut self.buffer);
            }
        }
        if now.since(self.flushed_at) >= FLUSH_INTERVAL || self.buffer.len() > BUFFER_BYTES_MAX {
            self.flushed_at = now;
            self.flush();
        }
    }

    /// Hands what waits to the system. What can not be written ends the recording, with a warning;
    /// nothing else suffers.
    pub fn flush(&mut self) {
        self.finish_idle_run();
        if let Err(error) = self.write() {
            // Half a line in the middle could not be told from damage.
            let _ = self.file.set_len(self.length);
            self.closed = true;
            let path = self.path.display();
            tracing::warn!("failed to write {path}, the recording ends here: {error}");
        }
    }

    /// An idle stretch is over.
    fn finish_idle_run(&mut self) {
        if let Some(idle) = self.idle_run.take() {
            idle.encode(&mut self.buffer);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.closed {
            self.buffer.clear();
        }
        let room = SIGNAL_LOG_BYTES_MAX - END_MARKER.len() as u64 - 1;
        if self.length + self.buffer.len() as u64 > room {
            let room = usize::try_from(room.saturating_sub(self.length)).unwrap_or(usize::MAX);
            let fits = self.buffer.bytes().take(room).collect::<Vec<_>>();
            let whole = fits.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.buffer.truncate(whole);
            self.buffer.push_str(END_MARKER);
            self.buffer.push('\n');
            self.closed = true;
        }
        self.file.write_all(self.buffer.as_bytes())?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for SignalLogWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The recordings of a service, oldest first.
///
/// # Errors
/// When the folder can not be read.
pub fn list_signal_logs(dir: &Path) -> io::Result<Vec<(ReleaseNumber, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(".signals").and_then(|name| name.parse().ok()) {
            found.push((ReleaseNumber(number), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Lets the oldest recordings go. One that can not be removed does no harm.
fn prune(dir: &Path) {
    let files = list_signal_logs(dir).unwrap_or_default();
    let over = files.len().saturating_sub(LOGS_KEPT);
    for (_, path) in files.into_iter().take(over) {
        let _ = fs::remove_file(path);
    }
}

fn log_path(dir: &Path, deploy: ReleaseNumber) -> PathBuf {
    dir.join(format!("{:06}.signals", deploy.0))
}
