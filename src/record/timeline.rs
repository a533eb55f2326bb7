//! The append-only record of a service: one JSON-lines file per deploy, one event per line.
//!
//! A line is on disk (fdatasync) before its effects begin. The newest file alone restores a
//! service: its first line carries over the state that still matters from older files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::record::error::StateError;
use crate::record::files::{create_private_dir, keep_newest};
use crate::record::timeline_file::{
    EXTENSION, FILE_BYTES_MAX, LoadedFile, deploy_path, list_deploys, load_file,
};

/// Files of deploys that are kept.
const FILES_KEPT: usize = 200;

/// The timeline of one service, open for appending.
#[derive(Debug)]
pub struct Timeline {
    dir: PathBuf,
    service: String,
    open_file: Option<OpenFile>,
}

/// The file of the newest deploy.
#[derive(Debug)]
struct OpenFile {
    file: File,
    valid_bytes: u64,
    deploy: ReleaseNumber,
    seq: u64,
    started_at: Moment,
}

/// Bytes of an incomplete last line that were removed; 0 except after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated(pub u64);

impl Timeline {
    /// Opens the timeline in a service's directory and reads the newest deploy.
    ///
    /// # Errors
    /// A file cannot be read or is too large, or a line before the last one is invalid.
    pub fn open(
        dir: &Path,
        service: &str,
    ) -> Result<(Self, Vec<TimelineEntry>, Truncated), StateError> {
        Self::open_with_limit(dir, service, FILE_BYTES_MAX)
    }

    fn open_with_limit(
        dir: &Path,
        service: &str,
        bytes_max: u64,
    ) -> Result<(Self, Vec<TimelineEntry>, Truncated), StateError> {
        let mut timeline =
            Self { dir: dir.to_owned(), service: service.to_owned(), open_file: None };
        let mut truncated_total = 0;
        // A power loss can leave a newest file without a complete line. Then no effect followed
        // from it, and the file before it holds the state.
        for (number, path) in list_deploys(dir)?.into_iter().rev() {
            let LoadedFile { entries, valid_bytes, truncated_bytes } = load_file(&path, bytes_max)?;
            truncated_total += truncated_bytes;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
            let (started_at, seq) = (first.moment, last.seq);
            let file = reopen(&path, valid_bytes, truncated_bytes)?;
            timeline.open_file =
                Some(OpenFile { file, valid_bytes, deploy: number, seq, started_at });
            return Ok((timeline, entries, Truncated(truncated_total)));
        }
        Ok((timeline, Vec::new(), Truncated(truncated_total)))
    }

    /// Appends one event; it is on disk when this returns.
    ///
    /// # Errors
    /// It could not be written. Then no part of it stays in the file.
    pub fn append(
        &mut self,
        now: Moment,
        wall_time: String,
        reason: String,
        event: TimelineEvent,
        effects: Vec<String>,
    ) -> io::Result<TimelineEntry> {
        let mut new_file = match (&event, &self.open_file) {
            (
                TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. },
                _,
            ) => Some(self.create_file(release.number, now)?),
            (_, None) => Some(self.create_file(ReleaseNumber(0), now)?),
            (_, Some(_)) => None,
        };
        let file = new_file.as_mut().or(self.open_file.as_mut()).ok_or(io::ErrorKind::NotFound)?;
        let entry = TimelineEntry {
            seq: file.seq + 1,
            wall_time,
            moment: now,
            since_deploy_ms: u64::try_from(now.since(file.started_at).as_millis())
                .unwrap_or(u64::MAX),
            service: self.service.clone(),
            deploy: file.deploy,
            because: reason,
            event,
            planned_effects: effects,
        };
        let written = file
            .relink(&deploy_path(&self.dir, file.deploy))
            .and_then(|()| file.append_line(&entry));
        match new_file {
            Some(new) if written.is_ok() => {
                self.open_file = Some(new);
                keep_newest(&self.dir, EXTENSION, FILES_KEPT);
            }
            // A deploy that is not on disk has not begun: the file before it holds the state.
            Some(new) => _ = fs::remove_file(deploy_path(&self.dir, new.deploy)),
            None => (),
        }
        written.map(|()| entry)
    }

    fn create_file(&self, deploy: ReleaseNumber, now: Moment) -> io::Result<OpenFile> {
        let path = deploy_path(&self.dir, deploy);
        create_private_dir(&self.dir)?;
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .to_owned();
        let file = options.open(path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(OpenFile { file, valid_bytes: 0, deploy, seq: 0, started_at: now })
    }
}

impl OpenFile {
    /// Restores the file under its name if it was removed. What is written to a file without a name
    /// is lost with the process.
    fn relink(&mut self, path: &Path) -> io::Result<()> {
        if self.file.metadata()?.nlink() > 0 {
            return Ok(());
        }
        let mut written = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(self.valid_bytes).read_to_end(&mut written)?;
        let dir = path.parent().unwrap_or(path);
        create_private_dir(dir)?;
        // A file that has this name by now was not written by this daemon and is not replaced.
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(error) = file.write_all(&written).and_then(|()| file.sync_all()) {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        File::open(dir)?.sync_all()?;
        self.file = file;
        Ok(())
    }

    fn append_line(&mut self, entry: &TimelineEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A reader accepts an incomplete line only at the end of the file.
            let back = SeekFrom::Start(self.valid_bytes);
            let _ = self.file.set_len(self.valid_bytes).and_then(|()| self.file.seek(back));
            return Err(error);
        }
        self.valid_bytes += u64::try_from(line.len()).unwrap_or(0);
        self.seq += 1;
        Ok(())
    }
}

fn reopen(path: &Path, valid_bytes: u64, truncated_bytes: u64) -> Result<File, StateError> {
    let open = || {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        if truncated_bytes > 0 {
            file.set_len(valid_bytes)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(valid_bytes))?;
        Ok(file)
    };
    open().map_err(|error| StateError::new(format!("failed to open {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, CarriedOver, Release, Slot};
    use crate::record::timeline_file::read_deploy;

    fn deployed(number: u32) -> TimelineEvent {
        let release = Release {
            version: format!("v{number}"),
            number: ReleaseNumber(number),
            slot: Slot("blue".to_owned()),
            artifact: None,
            digest: None,
            environment: std::collections::BTreeMap::new(),
        };
        let base = Box::new(CarriedOver::default());
        TimelineEvent::Deployed {
            release,
            frozen: false,
            forced: false,
            strict: false,
            by: Actor::default(),
            carried_over: base,
        }
    }

    fn write(dir: &Path, events: impl IntoIterator<Item = TimelineEvent>) {
        let (mut timeline, _, _) = Timeline::open(dir, "weather").unwrap();
        for (at, event) in events.into_iter().enumerate() {
            let now = Moment(1_000 + at as u64);
            timeline.append(now, "wall".to_owned(), "why".to_owned(), event, Vec::new()).unwrap();
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1), TimelineEvent::Failed, deployed(2), TimelineEvent::Noted]);
        let (_, entries, truncated) = Timeline::open(dir.path(), "weather").unwrap();
        let read_back: Vec<_> =
            entries.iter().map(|it| (it.seq, it.since_deploy_ms, it.event.clone())).collect();
        assert_eq!(read_back, [(1, 0, deployed(2)), (2, 1, TimelineEvent::Noted)]);
        assert_eq!(truncated, Truncated(0));
        assert_eq!(read_deploy(dir.path(), Some(ReleaseNumber(1))).unwrap().len(), 2);
        assert!(read_deploy(dir.path(), Some(ReleaseNumber(3))).is_err());
    }

    #[test]
    fn a_line_cut_at_any_byte_is_removed_and_appends_continue() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1), TimelineEvent::Failed]);
        let path = deploy_path(dir.path(), ReleaseNumber(1));
        let bytes = fs::read(&path).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in first..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            let (_, entries, truncated) = Timeline::open(dir.path(), "weather").unwrap();
            assert_eq!(
                (entries.len(), truncated),
                (1, Truncated((end - first) as u64)),
                "cut at {end}"
            );
            write(dir.path(), [TimelineEvent::Noted]);
            assert_eq!(
                read_deploy(dir.path(), None).unwrap()[1].event,
                TimelineEvent::Noted,
                "cut at {end}"
            );
        }
    }

    #[test]
    fn a_newest_file_without_a_complete_line_leaves_the_previous_deploy_in_force() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1)]);
        fs::write(deploy_path(dir.path(), ReleaseNumber(2)), b"{\"seq\":1,").unwrap();
        let (_, entries, truncated) = Timeline::open(dir.path(), "weather").unwrap();
        assert_eq!((entries.len(), truncated), (1, Truncated(9)));
    }

    #[test]
    fn a_deploy_that_cannot_be_written_leaves_the_previous_one_in_force() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1)]);
        let (mut timeline, _, _) = Timeline::open(dir.path(), "weather").unwrap();
        std::os::unix::fs::symlink("/dev/full", deploy_path(dir.path(), ReleaseNumber(2))).unwrap();
        let mut append = |event| {
            let (wall, why) = ("wall".to_owned(), "why".to_owned());
            timeline.append(Moment(2_000), wall, why, event, Vec::new())
        };
        append(deployed(2)).unwrap_err();
        append(TimelineEvent::Noted).unwrap();
        let (_, entries, _) = Timeline::open(dir.path(), "weather").unwrap();
        let events: Vec<_> = entries.iter().map(|it| (it.deploy, it.seq, &it.event)).collect();
        assert_eq!(
            events,
            [(ReleaseNumber(1), 1, &deployed(1)), (ReleaseNumber(1), 2, &TimelineEvent::Noted)]
        );
    }

    #[test]
    fn a_file_removed_while_it_was_open_is_restored() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("weather");
        fs::create_dir(&dir).unwrap();
        write(&dir, [deployed(1)]);
        let (mut timeline, _, _) = Timeline::open(&dir, "weather").unwrap();
        let mut append = |event| {
            let (wall, why) = ("wall".to_owned(), "why".to_owned());
            timeline.append(Moment(2_000), wall, why, event, Vec::new())
        };
        fs::remove_dir_all(&dir).unwrap();
        append(TimelineEvent::Noted).unwrap();
        append(TimelineEvent::Failed).unwrap();
        let (_, entries, _) = Timeline::open(&dir, "weather").unwrap();
        let events: Vec<_> = entries.iter().map(|it| (it.seq, &it.event)).collect();
        assert_eq!(
            events,
            [(1, &deployed(1)), (2, &TimelineEvent::Noted), (3, &TimelineEvent::Failed)]
        );
        fs::remove_dir_all(&dir).unwrap();
        append(deployed(2)).unwrap();
        assert_eq!(read_deploy(&dir, None).unwrap().len(), 1);
    }

    #[test]
    fn a_file_over_the_limit_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1), TimelineEvent::Noted]);
        let path = deploy_path(dir.path(), ReleaseNumber(1));
        let bytes = fs::read(&path).unwrap();
        let size = bytes.len() as u64;
        let error = Timeline::open_with_limit(dir.path(), "weather", size - 1).unwrap_err();
        let expected = format!("000001.jsonl: it has more than {} bytes", size - 1);
        assert!(error.with_cause().contains(&expected), "{}", error.with_cause());
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let (_, entries, truncated) =
            Timeline::open_with_limit(dir.path(), "weather", size).unwrap();
        assert_eq!((entries.len(), truncated), (2, Truncated(0)));
    }

    #[test]
    fn a_broken_line_in_the_middle_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1), TimelineEvent::Noted]);
        let path = deploy_path(dir.path(), ReleaseNumber(1));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("{", "[", 1)).unwrap();
        let error = Timeline::open(dir.path(), "weather").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
