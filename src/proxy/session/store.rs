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

use super::capture::Captured;
use super::{Kept, Live, Mac};
use crate::model::{Moment, Number};

/// Changes that are not written yet.
const QUEUE_MAX: usize = 4096;
/// Outdated lines that may lie around, besides one for each live session.
const OUTDATED_MAX: usize = 4096;
/// The longest line that is read back.
const LINE_MAX: usize = 64 * 1024;
/// How long the last changes may take to be written.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Where changes are told.
#[derive(Debug)]
pub(super) struct Store {
    changed: SyncSender<Job>,
    missed: Arc<AtomicBool>,
}

/// What a thread of its own is asked to do.
#[derive(Debug)]
enum Job {
    /// A session changed.
    Write(Mac),
    /// Write what is left, and end.
    Close(SyncSender<bool>),
}

/// One session, or the end of one, as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::proxy) struct Line {
    k: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<Where>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Where {
    r: Number,
    g: u32,
    b: Box<str>,
    t: u64,
    c: Captured,
}

/// The writing end: a thread of its own, since disks may be slow.
struct Writer {
    path: PathBuf,
    file: File,
    live: Arc<Live>,
    lines: usize,
    missed: Arc<AtomicBool>,
}

/// The sessions that a file tells of. What can not be read of it is passed over.
pub(super) fn read(path: &Path) -> io::Result<Vec<(Mac, Kept)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut kept = std::collections::BTreeMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let Some((key, place)) = parse(&line) else { continue };
        match place {
            Some(place) => _ = kept.insert(key, place),
            None => _ = kept.remove(&key),
        }
    }
    Ok(kept.into_iter().collect())
}

impl Store {
    /// Writes what lives into the file, and from now on what changes.
    ///
    /// # Errors
    /// When the file can not be written.
    pub(super) fn open(path: &Path, live: Arc<Live>) -> io::Result<Self> {
        let missed = Arc::new(AtomicBool::new(false));
        let (file, lines) = write_all(path, &live)?;
        let writer =
            Writer { path: path.to_owned(), file, live, lines, missed: Arc::clone(&missed) };
        let (changed, told) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new().name("sessions".to_owned()).spawn(move || writer.run(&told))?;
        Ok(Self { changed, missed })
    }

    /// A session changed, or ended.
    pub(super) fn note(&self, key: Mac) {
        if self.changed.try_send(Job::Write(key)).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what is left, and lets go of the file: whoever opens it next has it alone. Whether all
    /// was written. Blocks.
    pub(super) fn close(&self) -> bool {
        let (done, closed) = sync_channel(1);
        let asked = self.changed.send(Job::Close(done));
        asked.is_ok() && closed.recv_timeout(CLOSE_MAX).unwrap_or(false)
    }
}

impl Writer {
    fn run(mut self, told: &Receiver<Job>) {
        let (mut failing, mut closed) = (false, None);
        while closed.is_none()
            && let Ok(first) = told.recv()
        {
            // What changed several times meanwhile is written once.
            let jobs = std::iter::once(first).chain(told.try_iter().take(QUEUE_MAX));
            let mut keys = BTreeSet::new();
            for job in jobs {
                match job {
                    Job::Write(key) => _ = keys.insert(key),
                    Job::Close(done) => closed = Some(done),
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
        if let Some(done) = closed {
            // Whoever waited may have given up.
            let _ = done.send(!failing);
        }
    }

    fn write(&mut self, keys: &BTreeSet<Mac>) -> io::Result<()> {
        let outdated = self.lines > OUTDATED_MAX + 2 * self.live.len();
        if self.missed.swap(false, Ordering::Relaxed) || outdated {
            (self.file, self.lines) = write_all(&self.path, &self.live)?;
            return Ok(());
        }
        let mut text = Vec::new();
        for key in keys {
            let kept = self.live.pin().get(key).and_then(|session| session.kept());
            line(&mut text, key, kept)?;
        }
        self.lines += keys.len();
        self.file.write_all(&text)
    }
}

/// Writes a new file with what lives, in place of the old one.
fn write_all(path: &Path, live: &Live) -> io::Result<(File, usize)> {
    let new = path.with_extension("new");
    // A file that was left over in the middle is written over.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut writer = BufWriter::new(file);
    let mut lines = 0;
    let mut text = Vec::new();
    for (key, session) in &live.pin() {
        let Some(kept) = session.kept() else { continue };
        text.clear();
        line(&mut text, key, Some(kept))?;
        writer.write_all(&text)?;
        lines += 1;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok((file, lines))
}

fn line(text: &mut Vec<u8>, key: &Mac, kept: Option<Kept>) -> io::Result<()> {
    serde_json::to_writer(&mut *text, &Line::new(key, kept))?;
    text.push(b'\n');
    Ok(())
}

fn parse(line: &[u8]) -> Option<(Mac, Option<Kept>)> {
    if line.len() > LINE_MAX {
        return None;
    }
    serde_json::from_slice::<Line>(line).ok()?.read()
}

impl Line {
    /// What is kept of a session; `None`: it ended.
    pub(super) fn new(key: &Mac, kept: Option<Kept>) -> Self {
        let place = kept.and_then(|kept| {
            let Kept { release, generation, backend_id, captured, born } = kept;
            captured.map(|c| Where { r: release, g: generation, b: backend_id, t: born.0, c })
        });
        Self { k: BASE64.encode(key), s: place }
    }

    /// Which session, and what is kept of it. `None` where it names none.
    pub(super) fn read(self) -> Option<(Mac, Option<Kept>)> {
        let key = BASE64.decode(self.k).ok()?.try_into().ok()?;
        let kept = self.s.map(|Where { r, g, b, t, c }| Kept {
            release: r,
            generation: g,
            backend_id: b,
            captured: Some(c),
            born: Moment(t),
        });
        Some((key, kept))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::capture::Offer;
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    const KEY: Mac = *b"sixteen bytes...";
    const CAPABILITIES: [&str; 6] =
        ["tools", "prompts", "resources", "logging", "completions", "tasks"];

    /// `least`: with nothing that may be left out.
    fn sessions() -> Vec<(&'static str, Line)> {
        let offers = json!({"tools": {}, "resources": {"subscribe": true}, "logging": {}});
        let captured = Captured {
            params: r#"{"protocolVersion":"2025-11-25", "capabilities":{}}"#.into(),
            protocol: "2025-11-25".into(),
            initialized: true,
            level: Some("warning".into()),
            subscribed: BTreeSet::from(["weather://oslo".into()]),
            offered: Offer::read(&offers),
            used: Offer::needed("tools/call"),
        };
        let least = Captured {
            initialized: false,
            level: None,
            subscribed: BTreeSet::new(),
            used: Offer::default(),
            ..captured.clone()
        };
        let (release, backend_id, born) =
            (Number(7), "backend-1".into(), Moment(1_700_000_000_000));
        let kept = Kept { release, generation: 3, backend_id, captured: Some(captured), born };
        let least = Kept { captured: Some(least), ..kept.clone() };
        vec![
            ("live", Line::new(&KEY, Some(kept))),
            ("live least", Line::new(&KEY, Some(least))),
            ("ended", Line::new(&KEY, None)),
        ]
    }

    /// The number of each capability in a line.
    fn offers() -> String {
        let one = |name: &str| Offer::read(&json!({name: {"subscribe": true}})).0;
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
            let (key, kept) = session.clone().read().unwrap();
            assert_eq!((key, Line::new(&key, kept)), (KEY, session));
        }
    }
}
