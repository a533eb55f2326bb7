//! Writes the signals of one bake to `NNNNNN.signals`, beside the timeline of that deploy.
//!
//! Writes are buffered for a second and never wait for the disk, because the log is not the state.
//! `kill -9` loses the last second, a power loss what the kernel had not written yet.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{check_may_grow, create_private_dir, open_private};
use crate::model::{Counts, Moment, Observation, ReleaseNumber, Signal};
use crate::record::files::{list_numbered_files, numbered_file};
use crate::record::incident_store::IncidentStore;
use crate::record::signal_log::codec::{
    END_MARKER, IdleRun, MAGIC, SIGNAL_LOG_BYTES_MAX, SignalLogHeader,
};
use crate::record::signal_log::reader::SignalLog;
use crate::record::signal_log::{codec, reader};

const EXTENSION: &str = "signals";
/// Signal logs of one service that are kept.
const LOGS_KEPT: usize = 20;
/// Older logs that are kept, too: those of [reviews](has_review).
const REVIEWED_LOGS_KEPT: usize = 20;
/// How long signals are buffered before they are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// A buffer that is larger is written at once.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// A signal log that is being written.
#[derive(Debug)]
pub struct SignalLogWriter {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    length: u64,
    /// Lines that are not written yet.
    buffer: String,
    idle_run: Option<IdleRun>,
    /// When the newest signal arrived.
    last_moment: Moment,
    flushed_at: Moment,
    closed: bool,
}

impl SignalLogWriter {
    /// Opens the log of a deploy in its service's directory, and removes the oldest logs. A log of
    /// the same trial and warm release, which a killed daemon left, is continued and returned: a
    /// judge that starts with its [`SignalLogHeader`] and its signals has the same evidence again.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub fn open(
        dir: &Path,
        deploy: ReleaseNumber,
        header: &SignalLogHeader,
    ) -> io::Result<(Self, Option<SignalLog>)> {
        create_private_dir(dir)?;
        let path = numbered_file(dir, deploy, EXTENSION);
        let existing = reader::read_signal_log(&path)
            .ok()
            .filter(|log| (log.header.release, log.header.warm) == (header.release, header.warm));
        let mut file = open_private(&path)?;
        let length = existing.as_ref().map_or(0, |log| log.valid_bytes);
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let last_moment = existing.as_ref().map_or(header.opened, SignalLog::last_moment);
        let closed = existing.as_ref().is_some_and(|log| log.size_limit_reached);
        let buffer = match existing {
            Some(_) => String::new(),
            None => format!("{MAGIC}{}\n", serde_json::to_string(header)?),
        };
        let mut writer = Self {
            path,
            file,
            length,
            buffer,
            idle_run: None,
            last_moment,
            flushed_at: last_moment,
            closed,
        };
        writer.write()?;
        remove_old_logs(dir);
        Ok((writer, existing))
    }

    /// Appends one signal. It reaches the file within a second.
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

    /// Writes the buffer to the file. A failed write ends the log with a warning, and the bake
    /// continues.
    pub fn flush(&mut self) {
        self.finish_idle_run();
        if let Err(error) = self.write() {
            // A reader accepts an incomplete line only at the end of the file.
            let _ = self.file.set_len(self.length);
            self.closed = true;
            let path = self.path.display();
            tracing::warn!(
                "failed to write {path}; the signal log of this bake ends here: {error}"
            );
        }
    }

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
        check_may_grow(&self.file, self.buffer.len() as u64)?;
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

/// Removes old logs. Those of a review outlive others: a verdict of a person makes a log a test of the
/// judge, and comes days after the deploy. A log that cannot be removed stays until the next call.
fn remove_old_logs(dir: &Path) {
    let logs = list_signal_logs(dir).unwrap_or_default();
    let old = logs.len().saturating_sub(LOGS_KEPT);
    let incidents = IncidentStore::new(dir);
    let mut kept = 0;
    for (number, path) in logs.into_iter().take(old).rev() {
        if kept < REVIEWED_LOGS_KEPT && has_review(&incidents, number) {
            kept += 1;
        } else {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether a deploy has a review that is open, or that ended with a verdict.
fn has_review(incidents: &IncidentStore, number: ReleaseNumber) -> bool {
    let incident = incidents.restore(number).ok().flatten();
    incident.is_some_and(|it| it.is_open() || it.verdict.is_some())
}

/// When the newest signal of a deploy's log arrived, if there is a log.
pub fn last_signal_moment(dir: &Path, deploy: ReleaseNumber) -> Option<Moment> {
    let log = reader::read_signal_log(&numbered_file(dir, deploy, EXTENSION)).ok()?;
    Some(log.last_moment())
}

/// The signal logs of a service, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn list_signal_logs(dir: &Path) -> io::Result<Vec<(ReleaseNumber, PathBuf)>> {
    list_numbered_files(dir, EXTENSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Author, Cause, IncidentEntry, IncidentEvent, ReviewVerdict};

    fn open_log(dir: &Path, deploy: u32) {
        SignalLogWriter::open(dir, ReleaseNumber(deploy), &SignalLogHeader::default()).unwrap();
    }

    fn record(dir: &Path, number: u32, event: IncidentEvent) {
        let entry = IncidentEntry { wall_time: String::new(), moment: Moment(1), event };
        IncidentStore::new(dir).append(ReleaseNumber(number), &entry).unwrap();
    }

    fn open_incident(dir: &Path, number: u32) {
        let deploy = ReleaseNumber(number);
        let (service, version, because) = (String::new(), String::new(), String::new());
        let (cause, seq) = (Cause::Rollback, 1);
        let event = IncidentEvent::Opened { service, deploy, version, cause, seq, because };
        record(dir, number, event);
    }

    fn close(dir: &Path, number: u32, verdict: Option<ReviewVerdict>) {
        let by = Author { uid: 0, name: String::new() };
        record(dir, number, IncidentEvent::Closed { by, verdict, no_review: None });
    }

    fn kept(dir: &Path) -> Vec<u32> {
        list_signal_logs(dir).unwrap().into_iter().map(|(number, _)| number.0).collect()
    }

    #[test]
    fn a_log_with_a_review_outlives_others() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for deploy in 1..=60 {
            open_log(dir, deploy);
            match deploy {
                // Open, closed with a verdict, closed without one.
                2 | 4 | 6 => open_incident(dir, deploy),
                _ => (),
            }
            match deploy {
                4 => close(dir, 4, Some(ReviewVerdict::FalseAlarm)),
                6 => close(dir, 6, None),
                _ => (),
            }
        }
        assert_eq!(kept(dir), [2, 4].into_iter().chain(41..=60).collect::<Vec<_>>());
        (41..=60).for_each(|deploy| open_incident(dir, deploy));
        (61..=85).for_each(|deploy| open_log(dir, deploy));
        let newest = 66..=85;
        let reviewed = (41..=60).chain(newest).collect::<Vec<_>>();
        assert_eq!(kept(dir), reviewed, "the newest reviews, and the newest deploys");
    }
}
