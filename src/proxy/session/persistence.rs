//! The sessions of one service on disk, so that they survive the daemon. Never credentials.
//!
//! The file has one JSON record a line; the last record of a session counts. Requests never wait for
//! the disk: they put the key of the changed session into a bounded queue, and a thread appends its
//! record. The thread rewrites the file when the queue overflowed, or when most lines are outdated. It
//! leaves space on the disk for the timeline, and tries again what it could not write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::critical;
use crate::files::{check_may_grow, open_to_read, recreate_private, set_aside};
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::live_session::SessionMap;
use crate::proxy::session::record::{PersistedSession, SessionRecord, StoredChange};

/// The most changes that wait to be written.
const JOBS_MAX: usize = 4096;
/// The bytes of outdated lines, besides twice the live sessions, that cause a rewrite.
const OUTDATED_BYTES_MAX: u64 = 1024 * 1024;
/// What is read of a file at least, which an earlier daemon may have written under a higher limit.
const FILE_READ_MIN: u64 = 256 * 1024 * 1024;
/// Bytes that a rewrite writes at once.
const WRITE_BYTES: usize = 64 * 1024;
/// How often a failed write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The longest line that is read.
const LINE_MAX: usize = 256 * 1024;
/// How long [`SessionStore::close`] waits for the last write.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Receives changes and passes them to the writer thread.
#[derive(Debug)]
pub(super) struct SessionStore {
    jobs: SyncSender<WriterJob>,
    rewrite_needed: Arc<AtomicBool>,
}

/// A job of the writer thread.
#[derive(Debug)]
enum WriterJob {
    /// Append the record of a session.
    SessionChanged(SessionKey),
    /// Write what is queued, report whether it succeeded, and end.
    Close(SyncSender<bool>),
}

/// The writer thread.
struct Writer {
    path: PathBuf,
    /// `None` until it could be written once.
    file: Option<File>,
    by_key: Arc<SessionMap>,
    /// Bytes in the file.
    bytes: u64,
    /// Bytes in the file after the last rewrite.
    bytes_rewritten: u64,
    /// The most bytes in the file.
    bytes_max: u64,
    rewrite_needed: Arc<AtomicBool>,
}

/// Reads the live sessions in a file. Lines that cannot be read are skipped.
///
/// # Errors
/// The file cannot be read, or is no regular file.
pub(super) fn load(path: &Path, bytes_max: u64) -> io::Result<Vec<(SessionKey, PersistedSession)>> {
    let file = match open_to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut sessions = BTreeMap::new();
    let mut reader = BufReader::new(file.take(bytes_max.max(FILE_READ_MIN)));
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
        if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(sessions.into_iter().collect());
        }
        if line.last() != Some(&b'\n') {
            // A longer line is no record, and is never in memory as a whole.
            reader.skip_until(b'\n')?;
            continue;
        }
        let record = serde_json::from_slice::<SessionRecord>(&line).ok();
        match record.and_then(SessionRecord::into_change) {
            Some(StoredChange::Live(key, session)) => _ = sessions.insert(key, session),
            Some(StoredChange::Ended(key)) => _ = sessions.remove(&key),
            None => (),
        }
    }
}

/// Moves away what lies at the path and is no file with sessions. Returns what happened.
pub(super) fn set_aside_unusable(path: &Path, error: &io::Error) -> String {
    let moved = set_aside(path)
        .map_or_else(|error| error.to_string(), |to| format!("it is {} now", to.display()));
    format!("cannot read {}: {error}; {moved}; sessions of before end", path.display())
}

impl SessionStore {
    /// Writes all live sessions into a new file of at most `bytes_max`, and starts the writer thread.
    /// It tries again what could not be written.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn open(path: &Path, by_key: Arc<SessionMap>, bytes_max: u64) -> io::Result<Self> {
        let rewrite_needed = Arc::new(AtomicBool::new(true));
        let mut writer = Writer {
            path: path.to_owned(),
            file: None,
            by_key,
            bytes: 0,
            bytes_rewritten: 0,
            bytes_max,
            rewrite_needed: Arc::clone(&rewrite_needed),
        };
        let mut failing = false;
        writer.report(&BTreeSet::new(), &mut failing);
        let (jobs, job_queue) = sync_channel(JOBS_MAX);
        critical::spawn_thread("sessions", move || writer.run(&job_queue, failing))?;
        Ok(Self { jobs, rewrite_needed })
    }

    /// Queues a session that changed or ended.
    pub(super) fn mark_changed(&self, key: SessionKey) {
        if self.jobs.try_send(WriterJob::SessionChanged(key)).is_err() {
            self.rewrite_needed.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what is queued and closes the file, so that the next daemon is its only writer.
    /// Returns whether everything was written. Blocks.
    pub(super) fn close(&self) -> bool {
        let (done, closed) = sync_channel(1);
        let sent = self.jobs.send(WriterJob::Close(done));
        sent.is_ok() && closed.recv_timeout(CLOSE_TIMEOUT).unwrap_or(false)
    }
}

impl Writer {
    fn run(mut self, job_queue: &Receiver<WriterJob>, mut failing: bool) {
        let mut close_reply = None;
        while close_reply.is_none() {
            let first = match job_queue.recv_timeout(RETRY_INTERVAL) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) if failing => None,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // A session that changed several times is written once.
            let jobs = first.into_iter().chain(job_queue.try_iter().take(JOBS_MAX));
            let mut keys = BTreeSet::new();
            for job in jobs {
                match job {
                    WriterJob::SessionChanged(key) => _ = keys.insert(key),
                    WriterJob::Close(done) => close_reply = Some(done),
                }
            }
            self.report(&keys, &mut failing);
        }
        drop(self.file);
        if let Some(done) = close_reply {
            // The receiver may have timed out.
            let _ = done.send(!failing);
        }
    }

    /// Writes, and logs the first failure and the first success after it.
    fn report(&mut self, keys: &BTreeSet<SessionKey>, failing: &mut bool) {
        let path = self.path.display().to_string();
        let written = self.write(keys);
        match &written {
            Err(error) if !*failing => {
                tracing::error!(%error, "cannot write {path}: sessions may be lost in a crash");
            }
            Ok(()) if *failing => tracing::info!("{path} is writable again"),
            _ => (),
        }
        *failing = written.is_err();
    }

    fn write(&mut self, keys: &BTreeSet<SessionKey>) -> io::Result<()> {
        let mostly_outdated = self.bytes > OUTDATED_BYTES_MAX + 2 * self.bytes_rewritten;
        if self.rewrite_needed.swap(false, Ordering::Relaxed)
            || mostly_outdated
            || self.file.is_none()
        {
            return self.rewrite();
        }
        let mut text = Vec::new();
        for key in keys {
            let session = self.by_key.pin().get(key).and_then(|session| session.to_persisted());
            write_record(&mut text, key, session)?;
        }
        if self.bytes + text.len() as u64 > self.bytes_max {
            return self.rewrite();
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let result = check_may_grow(file, text.len() as u64).and_then(|()| file.write_all(&text));
        self.bytes += text.len() as u64;
        if result.is_err() {
            // A part of a line may be in the file, and what failed is in no file.
            self.rewrite_needed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn rewrite(&mut self) -> io::Result<()> {
        match write_all(&self.path, &self.by_key, self.bytes_max) {
            Ok((file, bytes)) => {
                (self.file, self.bytes, self.bytes_rewritten) = (Some(file), bytes, bytes);
                Ok(())
            }
            Err(error) => {
                self.rewrite_needed.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

/// Checks the limit of the file, and the space that is kept for the timeline.
fn check_growth(file: &File, bytes: u64, more: usize, max: u64) -> io::Result<()> {
    if bytes + more as u64 > max {
        let what = format!("it would have more than {max} bytes: raise `session_memory`");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    check_may_grow(file, more as u64)
}

/// Replaces the file by one with the live sessions; returns it with its length.
fn write_all(path: &Path, by_key: &SessionMap, bytes_max: u64) -> io::Result<(File, u64)> {
    let temporary = path.with_extension("new");
    let written = write_new(&temporary, by_key, bytes_max);
    let renamed = written.and_then(|written| fs::rename(&temporary, path).map(|()| written));
    if renamed.is_err() {
        // It takes the space that would be needed.
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

fn write_new(path: &Path, by_key: &SessionMap, bytes_max: u64) -> io::Result<(File, u64)> {
    let mut file = recreate_private(path)?;
    let (mut text, mut bytes) = (Vec::new(), 0);
    for (key, session) in &by_key.pin() {
        let Some(persisted) = session.to_persisted() else { continue };
        write_record(&mut text, key, Some(persisted))?;
        if text.len() >= WRITE_BYTES {
            check_growth(&file, bytes, text.len(), bytes_max)?;
            file.write_all(&text)?;
            bytes += text.len() as u64;
            text.clear();
        }
    }
    check_growth(&file, bytes, text.len(), bytes_max)?;
    file.write_all(&text)?;
    file.sync_all()?;
    Ok((file, bytes + text.len() as u64))
}

fn write_record(
    text: &mut Vec<u8>,
    key: &SessionKey,
    session: Option<PersistedSession>,
) -> io::Result<()> {
    serde_json::to_writer(&mut *text, &SessionRecord::new(key, session))?;
    text.push(b'\n');
    Ok(())
}
