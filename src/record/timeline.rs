//! The append-only record of a service: one JSON-lines file per deploy, one event per line.
//!
//! A line is on disk (fdatasync) before its effects begin. The newest file alone restores a
//! service: its first line carries over the state that still matters from older files.
//!
//! Space for a rollback is allocated before it is needed: [`Room::Ordinary`] entries keep
//! [`RESERVE_BYTES`] free behind them, [`Room::Rollback`] entries use them.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files::{
    create_private, create_private_dir, keep_copy, open_to_write, reserve, set_aside, sync_dir_of,
    write_atomically,
};
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::record::files::keep_newest;
use crate::record::timeline_file::{
    EXTENSION, FILE_BYTES_MAX, LoadedFile, deploy_path, list_deploys, load_file,
};

/// Files of deploys that are kept.
const FILES_KEPT: usize = 200;
/// Space that is allocated behind the last line: what some rollbacks write.
const RESERVE_BYTES: u64 = 64 * 1024;

/// The timeline of one service, open for appending.
#[derive(Debug)]
pub struct Timeline {
    dir: PathBuf,
    service: String,
    open_file: Option<OpenFile>,
    /// Why the newest deploy, which exists, cannot be continued.
    blocked: Option<String>,
}

/// The file of the newest deploy.
#[derive(Debug)]
struct OpenFile {
    file: File,
    valid_bytes: u64,
    /// The file has bytes behind the valid ones, and could not be repaired yet.
    damaged: bool,
    deploy: ReleaseNumber,
    seq: u64,
    started_at: Moment,
}

/// Bytes of an incomplete last line that were removed; 0 except after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated(pub u64);

/// A timeline as it was opened.
#[derive(Debug)]
pub struct OpenedTimeline {
    /// It continues after `entries`.
    pub timeline: Timeline,
    /// The newest deploy, as far as it is whole.
    pub entries: Vec<TimelineEntry>,
    /// What a crash left at the end.
    pub truncated: Truncated,
    /// What else could not be read, and what became of it: whole sentences.
    pub damage: Vec<String>,
}

/// Which space an entry may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It leaves room for a rollback, and fails where there is none.
    Ordinary,
    /// It belongs to a rollback, or to a restart in one.
    Rollback,
}

/// A new entry, without what the timeline adds.
#[derive(Debug)]
pub struct NewEntry {
    /// When it was decided.
    pub moment: Moment,
    /// The same for people.
    pub wall_time: String,
    /// The reason.
    pub because: String,
    /// The event.
    pub event: TimelineEvent,
    /// The effects that follow.
    pub planned_effects: Vec<String>,
}

impl Timeline {
    /// Opens the timeline in a service's directory and reads the newest deploy of which anything is whole.
    /// What cannot be read is set aside and named, and keeps nothing from starting.
    pub fn open(dir: &Path, service: &str) -> OpenedTimeline {
        Self::open_with_limit(dir, service, FILE_BYTES_MAX)
    }

    fn open_with_limit(dir: &Path, service: &str, bytes_max: u64) -> OpenedTimeline {
        let (dir_path, service) = (dir.to_owned(), service.to_owned());
        let timeline = Self { dir: dir_path, service, open_file: None, blocked: None };
        let (entries, truncated) = (Vec::new(), Truncated(0));
        let mut opened = OpenedTimeline { timeline, entries, truncated, damage: Vec::new() };
        let files = list_deploys(dir).unwrap_or_else(|error| {
            opened.block(error.with_cause());
            Vec::new()
        });
        // A power loss can leave a newest file without a complete line. Then no effect followed
        // from it, and the file before it holds the state.
        for (number, path) in files.into_iter().rev() {
            let loaded = match load_file(&path, bytes_max) {
                Ok(loaded) => loaded,
                Err(error) => {
                    opened.damage.push(describe_set_aside(&error.with_cause(), set_aside(&path)));
                    continue;
                }
            };
            opened.truncated.0 += loaded.truncated_bytes;
            if loaded.entries.is_empty() {
                opened.remove_without_entries(&path, &loaded);
                continue;
            }
            opened.continue_file(number, &path, loaded);
            break;
        }
        opened
    }

    /// The entry that an append would write now, after `unwritten` others.
    pub fn next_entry(&self, new: NewEntry, unwritten: u64) -> TimelineEntry {
        let file = self.open_file.as_ref();
        let started_at = file.map_or(new.moment, |file| file.started_at);
        self.entry(
            new,
            file.map_or(ReleaseNumber(0), |file| file.deploy),
            file.map_or(0, |file| file.seq) + unwritten + 1,
            started_at,
        )
    }

    fn entry(
        &self,
        new: NewEntry,
        deploy: ReleaseNumber,
        seq: u64,
        started_at: Moment,
    ) -> TimelineEntry {
        let since = new.moment.since(started_at).as_millis();
        TimelineEntry {
            seq,
            wall_time: new.wall_time,
            moment: new.moment,
            since_deploy_ms: u64::try_from(since).unwrap_or(u64::MAX),
            service: self.service.clone(),
            deploy,
            because: new.because,
            event: new.event,
            planned_effects: new.planned_effects,
        }
    }

    /// Appends one event; it is on disk when this returns.
    ///
    /// # Errors
    /// It could not be written. Then no part of it stays in the file.
    pub fn append(&mut self, new: NewEntry, room: Room) -> io::Result<TimelineEntry> {
        let deploy = match (&new.event, &self.open_file) {
            (
                TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. },
                _,
            ) => release.number,
            (_, None) => match &self.blocked {
                Some(why) => return Err(io::Error::other(why.clone())),
                None => ReleaseNumber(0),
            },
            (_, Some(_)) => {
                let entry = self.next_entry(new, 0);
                return self.write(&entry, room).map(|()| entry);
            }
        };
        let mut file = self.create_file(deploy, new.moment)?;
        let entry = self.entry(new, deploy, 1, file.started_at);
        if let Err(error) = file.append_line(&entry, room) {
            // A deploy that is not on disk has not begun: the file before it holds the state.
            let _ = fs::remove_file(deploy_path(&self.dir, deploy));
            return Err(error);
        }
        if let Some(previous) = self.open_file.replace(file) {
            previous.release_reserve();
        }
        keep_newest(&self.dir, EXTENSION, FILES_KEPT);
        Ok(entry)
    }

    /// Writes an entry of [`Self::next_entry`] to the file of the newest deploy; it is on disk when this
    /// returns.
    ///
    /// # Errors
    /// As [`Self::append`]; also when there is no deploy.
    pub fn write(&mut self, entry: &TimelineEntry, room: Room) -> io::Result<()> {
        let file = self.open_file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let path = deploy_path(&self.dir, file.deploy);
        if file.damaged {
            file.repair(&path)?;
        }
        file.relink(&path)?;
        file.append_line(entry, room)
    }

    fn create_file(&self, deploy: ReleaseNumber, now: Moment) -> io::Result<OpenFile> {
        let path = deploy_path(&self.dir, deploy);
        create_private_dir(&self.dir)?;
        let file = create_private(&path)?;
        sync_dir_of(&path)?;
        Ok(OpenFile { file, valid_bytes: 0, damaged: false, deploy, seq: 0, started_at: now })
    }
}

impl OpenedTimeline {
    fn block(&mut self, why: String) {
        self.timeline.blocked = Some(why.clone());
        self.damage.push(why);
    }

    /// Continues a file that has whole entries. Damage behind them goes to a copy.
    fn continue_file(&mut self, deploy: ReleaseNumber, path: &Path, loaded: LoadedFile) {
        let LoadedFile { entries, valid_bytes, truncated_bytes, damage } = loaded;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        let (started_at, seq, name) = (first.moment, last.seq, path.display());
        let file = match reopen(path, valid_bytes, truncated_bytes) {
            Ok(file) => file,
            Err(error) => {
                self.block(format!("{name} cannot be written: {error}"));
                self.entries = entries;
                return;
            }
        };
        let damaged = damage.is_some();
        let mut file = OpenFile { file, valid_bytes, damaged, deploy, seq, started_at };
        if let Some(damage) = damage {
            let kept = file.repair(path);
            let kept = kept.map_or_else(
                |error| format!("not repaired yet: {error}"),
                |to| format!("the damaged file is {}", to.display()),
            );
            let state = format!("the service continues after entry {seq} of deploy {deploy}");
            self.damage.push(format!("{name}: {damage}; {state}; {kept}"));
        }
        // Without room, the next ordinary entry fails and says so.
        let _ = reserve(&file.file, file.valid_bytes, RESERVE_BYTES);
        self.timeline.open_file = Some(file);
        self.entries = entries;
    }

    /// A file without a whole entry is no state, and its name must be free for the next deploy.
    fn remove_without_entries(&mut self, path: &Path, loaded: &LoadedFile) {
        match &loaded.damage {
            None if loaded.truncated_bytes == 0 => _ = fs::remove_file(path),
            None => _ = set_aside(path),
            Some(damage) => {
                let why = format!("{}: {damage}", path.display());
                self.damage.push(describe_set_aside(&why, set_aside(path)));
            }
        }
    }
}

fn describe_set_aside(why: &str, to: io::Result<PathBuf>) -> String {
    match to {
        Ok(to) => format!("{why}; it is {} now, and the deploy before it counts", to.display()),
        Err(error) => format!("{why}; the deploy before it counts; it stays in place: {error}"),
    }
}

impl OpenFile {
    /// Replaces the file by its whole entries, and keeps the damaged one as a copy. Returns its path.
    fn repair(&mut self, path: &Path) -> io::Result<PathBuf> {
        let whole = self.read_whole_entries()?;
        let copy = keep_copy(path)?;
        if let Err(error) = write_atomically(path, &whole) {
            let _ = fs::remove_file(&copy);
            return Err(error);
        }
        self.file = open_to_write(path)?;
        self.file.seek(SeekFrom::Start(self.valid_bytes))?;
        self.damaged = false;
        Ok(copy)
    }

    fn read_whole_entries(&mut self) -> io::Result<Vec<u8>> {
        let mut written = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(self.valid_bytes).read_to_end(&mut written)?;
        Ok(written)
    }

    /// Restores the file under its name if it was removed. What is written to a file without a name
    /// is lost with the process.
    fn relink(&mut self, path: &Path) -> io::Result<()> {
        if self.file.metadata()?.nlink() > 0 {
            return Ok(());
        }
        let written = self.read_whole_entries()?;
        create_private_dir(path.parent().unwrap_or(path))?;
        // A file that has this name by now was not written by this daemon and is not replaced.
        let mut file = create_private(path)?;
        if let Err(error) = file.write_all(&written).and_then(|()| file.sync_all()) {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        sync_dir_of(path)?;
        self.file = file;
        Ok(())
    }

    fn append_line(&mut self, entry: &TimelineEntry, room: Room) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if room == Room::Ordinary {
            reserve(&self.file, self.valid_bytes, length + RESERVE_BYTES)?;
        }
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A reader accepts an incomplete line only at the end of the file.
            let back = SeekFrom::Start(self.valid_bytes);
            let _ = self.file.set_len(self.valid_bytes).and_then(|()| self.file.seek(back));
            return Err(error);
        }
        self.valid_bytes += length;
        self.seq += 1;
        Ok(())
    }

    /// Frees what is allocated behind the last line: no rollback writes here any more.
    fn release_reserve(self) {
        let _ = self.file.set_len(self.valid_bytes);
    }
}

fn reopen(path: &Path, valid_bytes: u64, truncated_bytes: u64) -> io::Result<File> {
    let mut file = open_to_write(path)?;
    if truncated_bytes > 0 {
        file.set_len(valid_bytes)?;
        file.sync_all()?;
    }
    file.seek(SeekFrom::Start(valid_bytes))?;
    Ok(file)
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
