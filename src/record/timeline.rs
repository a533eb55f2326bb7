//! The append-only record of a service: one JSONL file per deploy, one fact a line.
//!
//! A line is on disk (fdatasync) before anything follows from it. The newest file alone restores a
//! service: its first line carries over what still matters of the older ones.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::StateError;
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};

/// Files of deploys that are kept.
const FILES_KEPT: usize = 200;
/// Largest file that is read: a deploy writes some tens of lines.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The record of one service, open at its end.
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

/// Bytes of an incomplete last line that were cut off; 0 as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated(pub u64);

impl Timeline {
    /// Opens the record in a service's folder, and reads the newest deploy back.
    ///
    /// # Errors
    /// When a file can not be read, or a line other than the last one makes no sense.
    pub fn open(
        dir: &Path,
        service: &str,
    ) -> Result<(Self, Vec<TimelineEntry>, Truncated), StateError> {
        let mut timeline =
            Self { dir: dir.to_owned(), service: service.to_owned(), open_file: None };
        let mut truncated_total = 0;
        // A power cut can leave a newest file without a single whole line: then nothing followed
        // from it, and the one before holds the state.
        for (number, path) in list_deploys(dir)?.into_iter().rev() {
            let (entries, good, torn) = load_file(&path)?;
            truncated_total += torn;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
            let (begun, seq) = (first.moment, last.seq);
            let file = reopen(&path, good, torn)?;
            timeline.open_file =
                Some(OpenFile { file, valid_bytes: good, deploy: number, seq, started_at: begun });
            return Ok((timeline, entries, Truncated(truncated_total)));
        }
        Ok((timeline, Vec::new(), Truncated(truncated_total)))
    }

    /// Writes one fact down; it is on disk when this returns.
    ///
    /// # Errors
    /// When it could not be written. Then nothing of it is left in the file.
    pub fn append(
        &mut self,
        now: Moment,
        wall_time: String,
        reason: String,
        fact: TimelineEvent,
        effects: Vec<String>,
    ) -> io::Result<TimelineEntry> {
        let mut new_file = match (&fact, &self.open_file) {
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
            event: fact,
            planned_effects: effects,
        };
        let written = file
            .relink(&deploy_path(&self.dir, file.deploy))
            .and_then(|()| file.append_line(&entry));
        match new_file {
            Some(new) if written.is_ok() => {
                self.open_file = Some(new);
                self.prune();
            }
            // A deploy that was not written down has not begun: the file before it holds the state.
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

    /// Lets the oldest files go. One that can not be removed does no harm.
    fn prune(&self) {
        let files = list_deploys(&self.dir).unwrap_or_default();
        let over = files.len().saturating_sub(FILES_KEPT);
        for (_, path) in files.into_iter().take(over) {
            let _ = fs::remove_file(path);
        }
    }
}

impl OpenFile {
    /// Puts the file back if somebody removed it: what is written to a file without a name is lost
    /// with the process.
    fn relink(&mut self, path: &Path) -> io::Result<()> {
        if self.file.metadata()?.nlink() > 0 {
            return Ok(());
        }
        let mut written = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(BYTES_MAX).read_to_end(&mut written)?;
        let folder = path.parent().unwrap_or(path);
        create_private_dir(folder)?;
        // What lies there by now is not ours to write over.
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(error) = file.write_all(&written).and_then(|()| file.sync_all()) {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        File::open(folder)?.sync_all()?;
        self.file = file;
        Ok(())
    }

    fn append_line(&mut self, entry: &TimelineEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line would be read as torn, but only at the end of the file.
            let back = SeekFrom::Start(self.valid_bytes);
            let _ = self.file.set_len(self.valid_bytes).and_then(|()| self.file.seek(back));
            return Err(error);
        }
        self.valid_bytes += u64::try_from(line.len()).unwrap_or(0);
        self.seq += 1;
        Ok(())
    }
}

/// Reads the newest deploy back as [`Timeline::open`] would, without touching anything.
///
/// # Errors
/// When a file can not be read, or a line other than the last one makes no sense.
pub fn read_latest(dir: &Path) -> Result<Vec<TimelineEntry>, StateError> {
    for (_, path) in list_deploys(dir)?.into_iter().rev() {
        let (entries, ..) = load_file(&path)?;
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// Reads one deploy of a service, the newest by default, without touching it.
///
/// # Errors
/// When there is no such deploy, or it can not be read.
pub fn read_deploy(
    dir: &Path,
    deploy: Option<ReleaseNumber>,
) -> Result<Vec<TimelineEntry>, StateError> {
    let mut files = list_deploys(dir)?;
    let selected = match deploy {
        Some(deploy) => files.into_iter().find(|(number, _)| *number == deploy),
        None => files.pop(),
    };
    let Some((_, path)) = selected else {
        let what = match deploy {
            Some(deploy) => format!("no timeline of deploy {deploy} in {}", dir.display()),
            None => format!("no timeline in {}", dir.display()),
        };
        return Err(StateError::new(what, io::ErrorKind::NotFound.into()));
    };
    Ok(load_file(&path)?.0)
}

/// The whole lines of a file, the bytes they take, and the bytes of an incomplete last line.
fn load_file(path: &Path) -> Result<(Vec<TimelineEntry>, u64, u64), StateError> {
    let fail = |what: &str, source| {
        StateError::new(format!("failed to read {}{what}", path.display()), source)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| fail("", error))?;
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|error| fail("", error))?;
    let complete_bytes = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (whole_bytes, tail) = bytes.split_at(complete_bytes);
    let mut entries = Vec::new();
    let (mut valid_bytes, mut truncated_bytes) = (0, tail.len());
    let lines: Vec<&[u8]> = whole_bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push(entry),
            // Blocks of one write can reach the disk out of order.
            Err(_) if index + 1 == lines.len() => {
                truncated_bytes += line.len();
                break;
            }
            Err(error) => {
                let at = format!(", line {} (repair it, or move the file away)", index + 1);
                return Err(fail(&at, error.into()));
            }
        }
        valid_bytes += line.len();
    }
    let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    Ok((entries, size(valid_bytes), size(truncated_bytes)))
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

fn create_private_dir(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn deploy_path(dir: &Path, deploy: ReleaseNumber) -> PathBuf {
    dir.join(format!("{:06}.jsonl", deploy.0))
}

/// The files of all deploys, oldest first.
fn list_deploys(dir: &Path) -> Result<Vec<(ReleaseNumber, PathBuf)>, StateError> {
    let fail =
        |error| StateError::new(format!("failed to read the folder {}", dir.display()), error);
    let mut files = Vec::new();
    for found in fs::read_dir(dir).map_err(fail)? {
        let path = found.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_suffix(".jsonl").and_then(|name| name.parse().ok()) {
            files.push((ReleaseNumber(number), path));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Actor, CarriedOver, Release, Slot};

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

    fn write(dir: &Path, facts: impl IntoIterator<Item = TimelineEvent>) {
        let (mut timeline, _, _) = Timeline::open(dir, "weather").unwrap();
        for (at, fact) in facts.into_iter().enumerate() {
            let now = Moment(1_000 + at as u64);
            timeline.append(now, "wall".to_owned(), "why".to_owned(), fact, Vec::new()).unwrap();
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1), TimelineEvent::Failed, deployed(2), TimelineEvent::Noted]);
        let (_, entries, torn) = Timeline::open(dir.path(), "weather").unwrap();
        let read_back: Vec<_> =
            entries.iter().map(|it| (it.seq, it.since_deploy_ms, it.event.clone())).collect();
        assert_eq!(read_back, [(1, 0, deployed(2)), (2, 1, TimelineEvent::Noted)]);
        assert_eq!(torn, Truncated(0));
        assert_eq!(read_deploy(dir.path(), Some(ReleaseNumber(1))).unwrap().len(), 2);
        assert!(read_deploy(dir.path(), Some(ReleaseNumber(3))).is_err());
    }

    #[test]
    fn a_line_torn_at_any_byte_is_cut_off_and_writing_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1), TimelineEvent::Failed]);
        let path = deploy_path(dir.path(), ReleaseNumber(1));
        let bytes = fs::read(&path).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in first..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            let (_, entries, torn) = Timeline::open(dir.path(), "weather").unwrap();
            assert_eq!((entries.len(), torn), (1, Truncated((end - first) as u64)), "cut at {end}");
            write(dir.path(), [TimelineEvent::Noted]);
            assert_eq!(
                read_deploy(dir.path(), None).unwrap()[1].event,
                TimelineEvent::Noted,
                "cut at {end}"
            );
        }
    }

    #[test]
    fn a_newest_file_without_a_whole_line_leaves_the_one_before_in_force() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1)]);
        fs::write(deploy_path(dir.path(), ReleaseNumber(2)), b"{\"seq\":1,").unwrap();
        let (_, entries, torn) = Timeline::open(dir.path(), "weather").unwrap();
        assert_eq!((entries.len(), torn), (1, Truncated(9)));
    }

    #[test]
    fn a_deploy_that_could_not_be_written_down_leaves_the_one_before_in_force() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), [deployed(1)]);
        let (mut timeline, _, _) = Timeline::open(dir.path(), "weather").unwrap();
        std::os::unix::fs::symlink("/dev/full", deploy_path(dir.path(), ReleaseNumber(2))).unwrap();
        let mut append = |fact| {
            let (wall, why) = ("wall".to_owned(), "why".to_owned());
            timeline.append(Moment(2_000), wall, why, fact, Vec::new())
        };
        append(deployed(2)).unwrap_err();
        append(TimelineEvent::Noted).unwrap();
        let (_, entries, _) = Timeline::open(dir.path(), "weather").unwrap();
        let facts: Vec<_> = entries.iter().map(|it| (it.deploy, it.seq, &it.event)).collect();
        assert_eq!(
            facts,
            [(ReleaseNumber(1), 1, &deployed(1)), (ReleaseNumber(1), 2, &TimelineEvent::Noted)]
        );
    }

    #[test]
    fn a_file_that_was_removed_while_it_was_open_is_put_back_whole() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("weather");
        fs::create_dir(&dir).unwrap();
        write(&dir, [deployed(1)]);
        let (mut timeline, _, _) = Timeline::open(&dir, "weather").unwrap();
        let mut append = |fact| {
            let (wall, why) = ("wall".to_owned(), "why".to_owned());
            timeline.append(Moment(2_000), wall, why, fact, Vec::new())
        };
        fs::remove_dir_all(&dir).unwrap();
        append(TimelineEvent::Noted).unwrap();
        append(TimelineEvent::Failed).unwrap();
        let (_, entries, _) = Timeline::open(&dir, "weather").unwrap();
        let facts: Vec<_> = entries.iter().map(|it| (it.seq, &it.event)).collect();
        assert_eq!(
            facts,
            [(1, &deployed(1)), (2, &TimelineEvent::Noted), (3, &TimelineEvent::Failed)]
        );
        fs::remove_dir_all(&dir).unwrap();
        append(deployed(2)).unwrap();
        assert_eq!(read_deploy(&dir, None).unwrap().len(), 1);
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
