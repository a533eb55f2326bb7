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

use crate::model::{Counts, History, Moment, Number, Seen, Signal};

use super::recorded::{self, Recorded};
use super::shorthand::{self, Idle};

/// What the first line begins with; the number is the version of the format.
pub(super) const MAGIC: &str = "rollbackd-signals 1 ";
/// The last line of a recording that has no room left.
pub(super) const FULL: &str = "full";
/// Largest recording of one deploy, in bytes.
pub const RECORDING_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Recordings of one service that are kept.
const KEPT: usize = 20;
/// Signals wait this long for company before they are written.
const WAIT: Duration = Duration::from_secs(1);
/// More than this does not wait.
const WAITING_MAX: usize = 256 * 1024;

/// What a trial began with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// The release on trial.
    pub release: Number,
    /// The release that could replace it.
    pub warm: Option<Number>,
    /// When the trial opened.
    pub opened: Moment,
    /// What the release before it had done.
    pub history: History,
}

/// A recording that is being written.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    length: u64,
    /// Lines that wait to be written.
    waiting: String,
    idle: Option<Idle>,
    /// When the newest signal came.
    last: Moment,
    flushed: Moment,
    ended: bool,
}

impl Recording {
    /// Begins to record the trial of a deploy in the folder of its service, and lets the oldest
    /// recordings go. A recording of the same trial (release and warm release), left by a daemon
    /// that was killed, is gone on with: then it is returned too, and a judge that is opened with
    /// its [`Opening`] and hears its signals stands where the dead one stood.
    ///
    /// # Errors
    /// When the file can not be made or written.
    pub fn open(
        dir: &Path,
        deploy: Number,
        opening: &Opening,
    ) -> io::Result<(Self, Option<Recorded>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = path(dir, deploy);
        let left = recorded::read(&path).ok().filter(|left| {
            (left.opening.release, left.opening.warm) == (opening.release, opening.warm)
        });
        let options = OpenOptions::new().write(true).create(true).mode(0o600).to_owned();
        let mut file = options.clone().truncate(false).open(&path)?;
        let length = match &left {
            Some(left) => left.bytes,
            None => 0,
        };
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let last = left.as_ref().map_or(opening.opened, Recorded::last);
        let ended = left.as_ref().is_some_and(|left| left.full);
        let mut waiting = String::new();
        if left.is_none() {
            waiting = format!("{MAGIC}{}\n", serde_json::to_string(opening)?);
        }
        let mut recording =
            Self { path, file, length, waiting, idle: None, last, flushed: last, ended };
        recording.write()?;
        prune(dir);
        Ok((recording, left))
    }

    /// Takes one signal down. It reaches the file within a second, with the signals after it.
    pub fn note(&mut self, now: Moment, signal: &Signal) {
        if self.ended {
            return;
        }
        let step = now.0.saturating_sub(self.last.0);
        self.last = self.last.max(now);
        match &signal.seen {
            Seen::Block(span, counts) if *counts == Counts::default() => {
                let taken =
                    self.idle.as_mut().is_some_and(|it| it.take(step, signal.release, *span));
                if !taken {
                    self.settle();
                    self.idle = Some(Idle::begin(step, signal.release, *span));
                }
            }
            _ => {
                self.settle();
                shorthand::write(step, signal, &mut self.waiting);
            }
        }
        if now.since(self.flushed) >= WAIT || self.waiting.len() > WAITING_MAX {
            self.flushed = now;
            self.flush();
        }
    }

    /// Hands what waits to the system. What can not be written ends the recording, with a warning;
    /// nothing else suffers.
    pub fn flush(&mut self) {
        self.settle();
        if let Err(error) = self.write() {
            // Half a line in the middle could not be told from damage.
            let _ = self.file.set_len(self.length);
            self.ended = true;
            let path = self.path.display();
            tracing::warn!("failed to write {path}, the recording ends here: {error}");
        }
    }

    /// An idle stretch is over.
    fn settle(&mut self) {
        if let Some(idle) = self.idle.take() {
            idle.write(&mut self.waiting);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.ended {
            self.waiting.clear();
        }
        let room = RECORDING_BYTES_MAX - FULL.len() as u64 - 1;
        if self.length + self.waiting.len() as u64 > room {
            let room = usize::try_from(room.saturating_sub(self.length)).unwrap_or(usize::MAX);
            let fits = self.waiting.bytes().take(room).collect::<Vec<_>>();
            let whole = fits.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.waiting.truncate(whole);
            self.waiting.push_str(FULL);
            self.waiting.push('\n');
            self.ended = true;
        }
        self.file.write_all(self.waiting.as_bytes())?;
        self.length += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The recordings of a service, oldest first.
///
/// # Errors
/// When the folder can not be read.
pub fn recordings(dir: &Path) -> io::Result<Vec<(Number, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(".signals").and_then(|name| name.parse().ok()) {
            found.push((Number(number), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Lets the oldest recordings go. One that can not be removed does no harm.
fn prune(dir: &Path) {
    let files = recordings(dir).unwrap_or_default();
    let over = files.len().saturating_sub(KEPT);
    for (_, path) in files.into_iter().take(over) {
        let _ = fs::remove_file(path);
    }
}

fn path(dir: &Path, deploy: Number) -> PathBuf {
    dir.join(format!("{:06}.signals", deploy.0))
}
