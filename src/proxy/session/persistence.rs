//! The sessions of one service on disk, so that they survive the daemon: how each was opened and
//! where it is. Never credentials.
//!
//! A file of JSON lines that only grows; the last line about a session counts. It is written anew
//! when most of it is outdated. Requests never wait for it: they name the session that changed in a
//! bounded queue, and when that is full, everything is written anew.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::model::{Moment, ReleaseNumber};
use crate::proxy::session::snapshot::OpeningSnapshot;
use crate::proxy::session::{PersistedSession, SessionKey, SessionMap};

/// Changes that are not written yet.
const JOBS_MAX: usize = 4096;
/// Outdated lines that may lie around, besides one for each live session.
const OUTDATED_LINES_MAX: usize = 4096;
/// The longest line that is read back.
const LINE_MAX: usize = 64 * 1024;
/// How long the last changes may take to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where changes are told.
#[derive(Debug)]
pub(super) struct SessionStore {
    jobs: SyncSender<WriterJob>,
    rewrite_needed: Arc<AtomicBool>,
}

/// What a thread of its own is asked to do.
#[derive(Debug)]
enum WriterJob {
    /// A session changed.
    SessionChanged(SessionKey),
    /// Write what is left, and end.
    Close(SyncSender<bool>),
}

/// One session, or the end of one, as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::proxy) struct SessionRecord {
    #[serde(rename = "k")]
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "s")]
    session: Option<RecordBody>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RecordBody {
    #[serde(rename = "r")]
    release: ReleaseNumber,
    #[serde(rename = "g")]
    generation: u32,
    #[serde(rename = "b")]
    backend_id: Box<str>,
    #[serde(rename = "t")]
    opened_at: u64,
    #[serde(rename = "c")]
    snapshot: OpeningSnapshot,
}

/// The writing end: a thread of its own, since disks may be slow.
struct Writer {
    path: PathBuf,
    file: File,
    by_key: Arc<SessionMap>,
    lines: usize,
    rewrite_needed: Arc<AtomicBool>,
}

/// The sessions that a file tells of. What can not be read of it is passed over.
pub(super) fn load(path: &Path) -> io::Result<Vec<(SessionKey, PersistedSession)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut sessions = std::collections::BTreeMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let Some((key, session)) = parse_line(&line) else { continue };
        match session {
            Some(session) => _ = sessions.insert(key, session),
            None => _ = sessions.remove(&key),
        }
    }
    Ok(sessions.into_iter().collect())
}

impl SessionStore {
    /// Writes what lives into the file, and from now on what changes.
    ///
    /// # Errors
    /// When the file can not be written.
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
        let (changed, job_queue) = sync_channel(JOBS_MAX);
        std::thread::Builder::new()
            .name("sessions".to_owned())
            .spawn(move || writer.run(&job_queue))?;
        Ok(Self { jobs: changed, rewrite_needed })
    }

    /// A session changed, or ended.
    pub(super) fn mark_changed(&self, key: SessionKey) {
        if self.jobs.try_send(WriterJob::SessionChanged(key)).is_err() {
            self.rewrite_needed.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what is left, and lets go of the file: whoever opens it next has it alone. Whether all
    /// was written. Blocks.
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
            // What changed several times meanwhile is written once.
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
                tracing::error!(%error, "failed to write {path}: sessions may be lost in a crash");
            }
            failing = written.is_err();
        }
        drop(self.file);
        if let Some(done) = close_reply {
            // Whoever waited may have given up.
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

/// Writes a new file with what lives, in place of the old one.
fn write_all(path: &Path, by_key: &SessionMap) -> io::Result<(File, usize)> {
    let temporary = path.with_extension("new");
    // A file that was left over in the middle is written over.
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

fn parse_line(line: &[u8]) -> Option<(SessionKey, Option<PersistedSession>)> {
    if line.len() > LINE_MAX {
        return None;
    }
    serde_json::from_slice::<SessionRecord>(line).ok()?.into_parts()
}

impl SessionRecord {
    /// What is kept of a session; `None`: it ended.
    pub(super) fn new(key: &SessionKey, session: Option<PersistedSession>) -> Self {
        let body = session.and_then(|kept| {
            let PersistedSession {
                release,
                generation,
                backend_id,
                snapshot: captured,
                opened_at: born,
            } = kept;
            captured.map(|c| RecordBody {
                release,
                generation,
                backend_id,
                opened_at: born.0,
                snapshot: c,
            })
        });
        Self { key: BASE64.encode(key), session: body }
    }

    /// Which session, and what is kept of it. `None` where it names none.
    pub(super) fn into_parts(self) -> Option<(SessionKey, Option<PersistedSession>)> {
        let key = BASE64.decode(self.key).ok()?.try_into().ok()?;
        let session = self.session.map(
            |RecordBody { release: r, generation: g, backend_id: b, opened_at: t, snapshot: c }| {
                PersistedSession {
                    release: r,
                    generation: g,
                    backend_id: b,
                    snapshot: Some(c),
                    opened_at: Moment(t),
                }
            },
        );
        Some((key, session))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proxy::session::snapshot::Capabilities;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    const KEY: SessionKey = *b"sixteen bytes...";
    const CAPABILITIES: [&str; 6] =
        ["tools", "prompts", "resources", "logging", "completions", "tasks"];

    /// `least`: with nothing that may be left out.
    fn sessions() -> Vec<(&'static str, SessionRecord)> {
        let offers = json!({"tools": {}, "resources": {"subscribe": true}, "logging": {}});
        let captured = OpeningSnapshot {
            params: r#"{"protocolVersion":"2025-11-25", "capabilities":{}}"#.into(),
            protocol: "2025-11-25".into(),
            initialized: true,
            level: Some("warning".into()),
            subscriptions: BTreeSet::from(["weather://oslo".into()]),
            offered: Capabilities::from_json(&offers),
            used: Capabilities::required_by("tools/call"),
        };
        let least = OpeningSnapshot {
            initialized: false,
            level: None,
            subscriptions: BTreeSet::new(),
            used: Capabilities::default(),
            ..captured.clone()
        };
        let (release, backend_id, born) =
            (ReleaseNumber(7), "backend-1".into(), Moment(1_700_000_000_000));
        let kept = PersistedSession {
            release,
            generation: 3,
            backend_id,
            snapshot: Some(captured),
            opened_at: born,
        };
        let least = PersistedSession { snapshot: Some(least), ..kept.clone() };
        vec![
            ("live", SessionRecord::new(&KEY, Some(kept))),
            ("live least", SessionRecord::new(&KEY, Some(least))),
            ("ended", SessionRecord::new(&KEY, None)),
        ]
    }

    /// The number of each capability in a line.
    fn offers() -> String {
        let one = |name: &str| Capabilities::from_json(&json!({name: {"subscribe": true}})).0;
        CAPABILITIES.iter().map(|name| format!("{name}  {}\n", one(name))).collect()
    }

    #[test]
    fn every_line_is_as_it_was() {
        hold("sessions.txt", &(lines(&sessions()) + &offers()));
    }

    #[test]
    fn old_lines_are_still_read() {
        let old =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/0.1.0/sessions.txt"));
        still_read(old, &sessions());
        for (_, session) in sessions() {
            let (key, kept) = session.clone().into_parts().unwrap();
            assert_eq!((key, SessionRecord::new(&key, kept)), (KEY, session));
        }
    }
}
