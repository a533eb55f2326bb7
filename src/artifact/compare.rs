//! Which files differ between two artifacts on disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, open};
use tokio_util::sync::CancellationToken;

use crate::artifact::error::printable_path;
use crate::artifact::walk::{Entry, Visitor, WalkError, walk};

/// Files of one artifact that are compared.
const FILES_MAX: usize = 20_000;
/// Bytes of files of the same size that are read. The others count as equal.
const COMPARED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one read.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long a comparison may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A file that is not the same in both artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Its path below the artifact, printable; empty where the artifact is one file.
    pub path: String,
    /// Its bytes in the first artifact, if it has the file.
    pub old_bytes: Option<u64>,
    /// Its bytes in the second one.
    pub new_bytes: Option<u64>,
}

/// The files that differ, in the order of their paths. Links are compared by their length only.
///
/// # Errors
/// One of them cannot be read, has too many files, or the comparison takes more than ten seconds.
pub async fn compare(old: &Path, new: &Path) -> Result<Vec<FileChange>, String> {
    let (old, new) = (old.to_owned(), new.to_owned());
    let stop = CancellationToken::new();
    let _cancelled_on_drop = stop.clone().drop_guard();
    let work = tokio::task::spawn_blocking(move || {
        let (old_files, new_files) = (list(&old, &stop)?, list(&new, &stop)?);
        Ok(differences((&old, &old_files), (&new, &new_files)))
    });
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(done) => done.map_err(|error| error.to_string())?,
        Err(_) => Err(format!("the comparison took more than {} s", TIMEOUT.as_secs())),
    }
}

/// Size and kind of each file, by the bytes of its path.
type Files = BTreeMap<Vec<u8>, (u64, FileType)>;

#[derive(Default)]
struct Lister(Files);

impl Visitor for Lister {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError> {
        if entry.meta.kind == FileType::Directory {
            return Ok(());
        }
        if self.0.len() >= FILES_MAX {
            return Err(WalkError::Unsupported(format!("has more than {FILES_MAX} files")));
        }
        self.0.insert(entry.path.to_owned(), (entry.meta.size, entry.meta.kind));
        Ok(())
    }
}

fn list(path: &Path, stop: &CancellationToken) -> Result<Files, String> {
    let mut lister = Lister::default();
    walk(path, &mut lister, stop).map_err(|error| error.to_string())?;
    Ok(lister.0)
}

fn differences(old: (&Path, &Files), new: (&Path, &Files)) -> Vec<FileChange> {
    let mut budget = COMPARED_BYTES_MAX;
    let mut changes = Vec::new();
    let paths: std::collections::BTreeSet<_> = old.1.keys().chain(new.1.keys()).collect();
    for path in paths {
        let (before, after) = (old.1.get(path), new.1.get(path));
        let is_same = match (before, after) {
            (Some(a), Some(b)) if a != b => false,
            (Some((_, FileType::RegularFile)), Some((bytes, _))) if *bytes <= budget => {
                budget -= bytes;
                // A file that cannot be read now is not known to differ.
                is_equal(&below(old.0, path), &below(new.0, path)).unwrap_or(true)
            }
            (a, b) => a.is_some() == b.is_some(),
        };
        if !is_same {
            changes.push(FileChange {
                path: printable_path(path),
                old_bytes: before.map(|it| it.0),
                new_bytes: after.map(|it| it.0),
            });
        }
    }
    changes
}

fn below(root: &Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    if path.is_empty() { root.to_owned() } else { root.join(std::ffi::OsStr::from_bytes(path)) }
}

fn is_equal(one: &Path, other: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let read = |path: &Path| -> io::Result<_> {
        Ok(File::from(open(path, flags, Mode::empty())?).take(COMPARED_BYTES_MAX))
    };
    let (mut one, mut other) = (read(one)?, read(other)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        one.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut left)?;
        other.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut right)?;
        if left != right || left.is_empty() {
            return Ok(left == right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn added_removed_and_changed_files_are_found_also_of_the_same_size() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, files) in [
            (&old, [("same", "a"), ("lib/changed", "one"), ("removed", "x"), ("longer", "1")]),
            (&new, [("same", "a"), ("lib/changed", "two"), ("added", "yy"), ("longer", "12")]),
        ] {
            std::fs::create_dir(dir.path().join("lib")).unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
        }
        let found = compare(old.path(), new.path()).await.unwrap();
        let found: Vec<_> =
            found.iter().map(|it| (it.path.as_str(), it.old_bytes, it.new_bytes)).collect();
        let expected = [
            ("added", None, Some(2)),
            ("lib/changed", Some(3), Some(3)),
            ("longer", Some(1), Some(2)),
            ("removed", Some(1), None),
        ];
        assert_eq!(found, expected);
        assert_eq!(compare(old.path(), old.path()).await, Ok(Vec::new()));
        let one = compare(&old.path().join("longer"), &new.path().join("longer")).await.unwrap();
        assert_eq!(one[0].path, "");
        assert!(compare(old.path(), &new.path().join("missing")).await.is_err());
    }
}
