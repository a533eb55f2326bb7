//! The files of the incidents of one service, in `SERVICE/incidents`:
//!
//! - `NNNNNN.jsonl`: the append-only record. A line is on disk (fdatasync) when an append returns.
//! - `NNNNNN.facts.json`: what the daemon gathered, replaced as a whole.
//! - `deploys/NNNNNN.json`: what each of the last deploys ran with.
//! - `NNNNNN.md`, `NNNNNN.html`: the document. What people wrote is in the first.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::files::{create_private_dir, open_private, write_atomically};
use crate::incident::{DeployFacts, Facts, Incident, IncidentEntry};
use crate::model::ReleaseNumber;
use crate::record::files::{keep_newest, list_numbered_files, numbered_file};

const EXTENSION: &str = "jsonl";
/// Deploys whose facts are kept.
const DEPLOYS_KEPT: usize = 200;
/// Largest record. An incident has some tens of lines.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;
/// Largest file of facts, and largest document.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The incidents of one service on disk.
#[derive(Debug, Clone)]
pub struct IncidentStore {
    dir: PathBuf,
}

impl IncidentStore {
    /// The store in the directory of a service. It is created with the first incident.
    pub fn new(service_dir: &Path) -> Self {
        Self { dir: service_dir.join("incidents") }
    }

    /// The numbers of all incidents, oldest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<ReleaseNumber>> {
        match list_numbered_files(&self.dir, EXTENSION) {
            Ok(files) => Ok(files.into_iter().map(|(number, _)| number).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The record of an incident. A last line that a crash left incomplete is left out.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or a line before the last one is invalid.
    pub fn read(&self, number: ReleaseNumber) -> io::Result<Vec<IncidentEntry>> {
        let bytes = read_bounded(&self.record_path(number), RECORD_BYTES_MAX)?;
        let whole = bytes.get(..complete_bytes(&bytes)).unwrap_or_default();
        let lines: Vec<_> =
            whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let mut entries = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            match serde_json::from_slice(line) {
                Ok(entry) => entries.push(entry),
                // Blocks of one write can reach the disk out of order.
                Err(_) if index + 1 == lines.len() => break,
                Err(error) => {
                    let path = self.record_path(number);
                    return Err(io::Error::other(format!(
                        "{}, line {}: {error}; repair it, or move the file away",
                        path.display(),
                        index + 1
                    )));
                }
            }
        }
        Ok(entries)
    }

    /// The state of an incident; none without a record.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn restore(&self, number: ReleaseNumber) -> io::Result<Option<Incident>> {
        match self.read(number) {
            Ok(entries) => Ok(Incident::restore(&entries)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Appends an entry; it is on disk when this returns.
    ///
    /// # Errors
    /// It could not be written. Then no part of it stays in the file.
    pub fn append(&self, number: ReleaseNumber, entry: &IncidentEntry) -> io::Result<()> {
        create_private_dir(&self.dir)?;
        let path = self.record_path(number);
        let is_new = !path.exists();
        let mut file = open_private(&path)?;
        let valid = valid_length(&mut file)?;
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if valid + line.len() as u64 > RECORD_BYTES_MAX {
            let what = format!("{} has {RECORD_BYTES_MAX} bytes and takes no more", path.display());
            return Err(io::Error::other(what));
        }
        file.set_len(valid)?;
        file.seek(SeekFrom::Start(valid))?;
        if let Err(error) = file.write_all(&line).and_then(|()| file.sync_data()) {
            let _ = file.set_len(valid);
            if is_new {
                let _ = fs::remove_file(&path);
            }
            return Err(error);
        }
        if is_new { File::open(&self.dir)?.sync_all() } else { Ok(()) }
    }

    /// The gathered facts; none before the draft.
    ///
    /// # Errors
    /// The file cannot be read, or is no object of facts.
    pub fn read_facts(&self, number: ReleaseNumber) -> io::Result<Option<Facts>> {
        match read_bounded(&self.facts_path(number), FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the facts.
    ///
    /// # Errors
    /// They could not be written.
    pub fn write_facts(&self, number: ReleaseNumber, facts: &Facts) -> io::Result<()> {
        create_private_dir(&self.dir)?;
        write_atomically(&self.facts_path(number), &serde_json::to_vec(facts)?)
    }

    /// What a deploy ran with; none if it was not kept.
    ///
    /// # Errors
    /// The file cannot be read, or is no object of such facts.
    pub fn read_deploy_facts(&self, number: ReleaseNumber) -> io::Result<Option<DeployFacts>> {
        match read_bounded(&numbered_file(&self.deploys(), number, "json"), FILE_BYTES_MAX) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps what a deploy runs with, and removes that of old deploys.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write_deploy_facts(&self, number: ReleaseNumber, facts: &DeployFacts) -> io::Result<()> {
        let dir = self.deploys();
        create_private_dir(&dir)?;
        write_atomically(&numbered_file(&dir, number, "json"), &serde_json::to_vec(facts)?)?;
        keep_newest(&dir, "json", DEPLOYS_KEPT);
        Ok(())
    }

    fn deploys(&self) -> PathBuf {
        self.dir.join("deploys")
    }

    /// The document; none before the draft.
    ///
    /// # Errors
    /// The file cannot be read, or is not UTF-8.
    pub fn read_document(&self, number: ReleaseNumber) -> io::Result<Option<String>> {
        match read_bounded(&self.document_path(number, "md"), FILE_BYTES_MAX) {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a document with this extension.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write_document(
        &self,
        number: ReleaseNumber,
        extension: &str,
        text: &str,
    ) -> io::Result<PathBuf> {
        create_private_dir(&self.dir)?;
        let path = self.document_path(number, extension);
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Where a document is.
    pub fn document_path(&self, number: ReleaseNumber, extension: &str) -> PathBuf {
        numbered_file(&self.dir, number, extension)
    }

    /// Removes an incident. A file that cannot be removed stays.
    pub fn remove(&self, number: ReleaseNumber) {
        // The record last: without it, the rest would be no incident.
        for path in [
            self.facts_path(number),
            self.document_path(number, "md"),
            self.document_path(number, "html"),
            self.record_path(number),
        ] {
            let _ = fs::remove_file(path);
        }
    }

    fn record_path(&self, number: ReleaseNumber) -> PathBuf {
        numbered_file(&self.dir, number, EXTENSION)
    }

    fn facts_path(&self, number: ReleaseNumber) -> PathBuf {
        numbered_file(&self.dir, number, "facts.json")
    }
}

fn complete_bytes(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

/// The length of the complete lines, of which the last one is valid.
fn valid_length(file: &mut File) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    (&*file).take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let mut end = complete_bytes(&bytes);
    let whole = bytes.get(..end.saturating_sub(1)).unwrap_or_default();
    let last = whole.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    if !last.is_empty() && serde_json::from_slice::<IncidentEntry>(last).is_err() {
        end -= last.len() + 1;
    }
    Ok(end as u64)
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("{} has more than {bytes_max} bytes; move it away", path.display());
        return Err(io::Error::other(what));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Cause, IncidentEvent, IncidentState};
    use crate::model::Moment;

    const NUMBER: ReleaseNumber = ReleaseNumber(7);

    fn entry(event: IncidentEvent) -> IncidentEntry {
        IncidentEntry { wall_time: "wall".to_owned(), moment: Moment(1), event }
    }

    fn opened() -> IncidentEntry {
        entry(IncidentEvent::Opened {
            service: "weather".to_owned(),
            deploy: NUMBER,
            version: "v2".to_owned(),
            cause: Cause::Rollback,
            seq: 4,
            because: "why".to_owned(),
        })
    }

    #[test]
    fn a_record_cut_at_any_byte_is_read_and_continued() {
        let dir = tempfile::tempdir().unwrap();
        let store = IncidentStore::new(dir.path());
        assert_eq!(store.list().unwrap(), []);
        store.append(NUMBER, &opened()).unwrap();
        store.append(NUMBER, &entry(IncidentEvent::Reminded)).unwrap();
        let path = store.record_path(NUMBER);
        let bytes = fs::read(&path).unwrap();
        let first = complete_bytes(&bytes[..bytes.len() - 1]);
        for end in first..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            assert_eq!(store.read(NUMBER).unwrap().len(), 1, "cut at {end}");
            store.append(NUMBER, &entry(IncidentEvent::Reminded)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes, "cut at {end}");
        }
        assert_eq!(store.restore(NUMBER).unwrap().unwrap().state, IncidentState::Opened);
        assert_eq!(store.restore(ReleaseNumber(8)).unwrap(), None);
        assert_eq!(store.list().unwrap(), [NUMBER]);
    }

    #[test]
    fn a_full_disk_leaves_no_part_of_an_entry() {
        let dir = tempfile::tempdir().unwrap();
        let store = IncidentStore::new(dir.path());
        create_private_dir(&store.dir).unwrap();
        std::os::unix::fs::symlink("/dev/full", store.record_path(NUMBER)).unwrap();
        store.append(NUMBER, &opened()).unwrap_err();
    }

    #[test]
    fn a_removed_incident_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = IncidentStore::new(dir.path());
        for number in 1..=4 {
            store.append(ReleaseNumber(number), &opened()).unwrap();
            store.write_document(ReleaseNumber(number), "md", "text").unwrap();
        }
        store.remove(ReleaseNumber(1));
        store.remove(ReleaseNumber(2));
        assert_eq!(store.list().unwrap(), [ReleaseNumber(3), ReleaseNumber(4)]);
        assert_eq!(store.read_document(ReleaseNumber(1)).unwrap(), None);
    }
}
