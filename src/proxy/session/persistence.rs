//! The sessions of one service on disk, so that they survive the daemon. Never credentials.
//!
//! The file has one JSON record a line; the last record of a session counts. Requests never wait for
//! the disk: they put the key of the changed session into a bounded queue, and a thread appends its
//! record. The thread rewrites the file when the queue overflowed, or when most lines are outdated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::critical;
use crate::proxy::session::id::SessionKey;
use crate::proxy::session::live_session::SessionMap;
use crate::proxy::session::record::{PersistedSession, SessionRecord, StoredChange};

/// The most changes that wait to be written.
const JOBS_MAX: usize = 4096;
/// The number of outdated lines, besides one for each live session, that causes a rewrite.
const OUTDATED_LINES_MAX: usize = 4096;
/// The longest line that is read.
const LINE_MAX: usize = 64 * 1024;
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
    file: File,
    by_key: Arc<SessionMap>,
    lines: usize,
    rewrite_needed: Arc<AtomicBool>,
}

/// Reads the live sessions in a file. Lines that cannot be read are skipped.
pub(super) fn load(path: &Path) -> io::Result<Vec<(SessionKey, PersistedSession)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut sessions = BTreeMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if line.len() > LINE_MAX {
            continue;
        }
        let record = serde_json::from_slice::<SessionRecord>(&line).ok();
        match record.and_then(SessionRecord::into_change) {
            Some(StoredChange::Live(key, session)) => _ = sessions.insert(key, session),
            Some(StoredChange::Ended(key)) => _ = sessions.remove(&key),
            None => (),
        }
    }
    Ok(sessions.into_iter().collect())
}

impl SessionStore {
    /// Writes all live sessions into a new file, and starts the writer thread.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn open(path: &Path, by_key: Arc<SessionMap>) -> io::Result<Self> {
        let rewrite_needed = Arc::new(AtomicBool::new(false));
        let (file, lines) = write_all(path, &by_key)?;
        let writer = Writer {
            path: path.to_owned(),
            file,
            by_key,
            lines,
            rewrite_needed: Arc::clone(&rewrite_needed),
        };
        let (jobs, job_queue) = sync_channel(JOBS_MAX);
        critical::spawn_thread("sessions", move || writer.run(&job_queue))?;
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
    fn run(mut self, job_queue: &Receiver<WriterJob>) {
        let (mut failing, mut close_reply) = (false, None);
        while close_reply.is_none()
            && let Ok(first) = job_queue.recv()
        {
            // A session that changed several times is written once.
            let jobs = std::iter::once(first).chain(job_queue.try_iter().take(JOBS_MAX));
            let mut keys = BTreeSet::new();
            for job in jobs {
                match job {
                    WriterJob::SessionChanged(key) => _ = keys.insert(key),
                    WriterJob::Close(done) => close_reply = Some(done),
                }
            }
            let written = self.write(&keys);
            if let Err(error) = &written
                && !failing
            {
                let path = self.path.display();
                tracing::error!(%error, "cannot write {path}: sessions may be lost in a crash");
            }
            failing = written.is_err();
        }
        drop(self.file);
        if let Some(done) = close_reply {
            // The receiver may have timed out.
            let _ = done.send(!failing);
        }
    }

    fn write(&mut self, keys: &BTreeSet<SessionKey>) -> io::Result<()> {
        let mostly_outdated = self.lines > OUTDATED_LINES_MAX + 2 * self.by_key.len();
        if self.rewrite_needed.swap(false, Ordering::Relaxed) || mostly_outdated {
            (self.file, self.lines) = write_all(&self.path, &self.by_key)?;
            return Ok(());
        }
        let mut text = Vec::new();
        for key in keys {
            let session = self.by_key.pin().get(key).and_then(|session| session.to_persisted());
            write_record(&mut text, key, session)?;
        }
        self.lines += keys.len();
        self.file.write_all(&text)
    }
}

/// Replaces the file by one with the live sessions; returns it with its number of lines.
fn write_all(path: &Path, by_key: &SessionMap) -> io::Result<(File, usize)> {
    let temporary = path.with_extension("new");
    // An unfinished file of an earlier run is overwritten.
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut writer = BufWriter::new(file);
    let mut lines = 0;
    let mut text = Vec::new();
    for (key, session) in &by_key.pin() {
        let Some(persisted) = session.to_persisted() else { continue };
        text.clear();
        write_record(&mut text, key, Some(persisted))?;
        writer.write_all(&text)?;
        lines += 1;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok((file, lines))
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
