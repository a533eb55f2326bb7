//! One file of a timeline: JSON lines, of which the last one may be incomplete after a crash.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::model::{ReleaseNumber, TimelineEntry};
use crate::record::error::StateError;
use crate::record::files::{list_numbered_files, numbered_file};

/// Largest file that the daemon reads. A deploy writes some tens of lines.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
pub(super) const EXTENSION: &str = "jsonl";

/// A file as it was read.
#[derive(Debug)]
pub(super) struct LoadedFile {
    pub(super) entries: Vec<TimelineEntry>,
    /// Bytes of the lines of `entries`.
    pub(super) valid_bytes: u64,
    /// Bytes of an incomplete last line.
    pub(super) truncated_bytes: u64,
}

pub(super) fn deploy_path(dir: &Path, deploy: ReleaseNumber) -> PathBuf {
    numbered_file(dir, deploy, EXTENSION)
}

/// The files of all deploys, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn list_deploys(dir: &Path) -> Result<Vec<(ReleaseNumber, PathBuf)>, StateError> {
    list_numbered_files(dir, EXTENSION).map_err(|error| {
        StateError::new(format!("failed to read the directory {}", dir.display()), error)
    })
}

/// Reads a file of at most `bytes_max` bytes. A larger one is an error: if its end were left out
/// here, the next write would cut it off.
pub(super) fn load_file(path: &Path, bytes_max: u64) -> Result<LoadedFile, StateError> {
    let fail = |what: &str, source| {
        StateError::new(format!("failed to read {}{what}", path.display()), source)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| fail("", error))?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| fail("", error))?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("it has more than {bytes_max} bytes; move the file away");
        return Err(fail("", io::Error::other(what)));
    }
    let complete_bytes = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (complete, incomplete) = bytes.split_at(complete_bytes);
    let mut entries = Vec::new();
    let (mut valid_bytes, mut truncated_bytes) = (0, incomplete.len());
    let lines: Vec<&[u8]> = complete.split_inclusive(|byte| *byte == b'\n').collect();
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
    let (valid_bytes, truncated_bytes) = (valid_bytes as u64, truncated_bytes as u64);
    Ok(LoadedFile { entries, valid_bytes, truncated_bytes })
}

/// Reads the newest deploy as [`Timeline::open`](super::Timeline::open) would, without a change to
/// any file.
///
/// # Errors
/// A file cannot be read or is too large, or a line before the last one is invalid.
pub fn read_latest(dir: &Path) -> Result<Vec<TimelineEntry>, StateError> {
    for (_, path) in list_deploys(dir)?.into_iter().rev() {
        let entries = load_file(&path, FILE_BYTES_MAX)?.entries;
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// Reads one deploy of a service, by default the newest, without a change to its file.
///
/// # Errors
/// There is no such deploy, or its file cannot be read.
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
    Ok(load_file(&path, FILE_BYTES_MAX)?.entries)
}
