//! One file of a timeline: JSON lines, of which the last one may be incomplete after a crash.
//!
//! The entries of a file are those before the first line that is not what the daemon wrote there: not an
//! entry, out of sequence, or of an earlier moment. So a damaged file never gives another state than one
//! that the service was in.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::files::open_to_read;
use crate::model::{Moment, ReleaseNumber, TimelineEntry};
use crate::record::error::StateError;
use crate::record::files::{list_numbered_files, numbered_file};

/// The most that the daemon reads of a file. A deploy writes some tens of lines.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
pub(super) const EXTENSION: &str = "jsonl";
/// A later moment, in milliseconds since 1970, is none: the year 10000.
const MOMENT_MAX: Moment = Moment(253_402_300_800_000);

/// A file as it was read.
#[derive(Debug, Default)]
pub(super) struct LoadedFile {
    pub(super) entries: Vec<TimelineEntry>,
    /// Bytes of the lines of `entries`.
    pub(super) valid_bytes: u64,
    /// Bytes of a last line that is incomplete or was not written whole.
    pub(super) truncated_bytes: u64,
    /// Why more than the last line cannot be read.
    pub(super) damage: Option<String>,
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

/// Reads a file, at most `bytes_max` bytes of it.
///
/// # Errors
/// It is not a regular file, or reading fails.
pub(super) fn load_file(path: &Path, bytes_max: u64) -> Result<LoadedFile, StateError> {
    let fail = |source| StateError::new(format!("failed to read {}", path.display()), source);
    let mut bytes = Vec::new();
    let file = open_to_read(path).map_err(fail)?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(fail)?;
    let too_large = bytes.len() as u64 > bytes_max;
    bytes.truncate(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    let mut loaded = parse(&bytes);
    if too_large && loaded.damage.is_none() {
        loaded.truncated_bytes = 0;
        loaded.damage = Some(format!("it has more than {bytes_max} bytes"));
    }
    Ok(loaded)
}

/// Reads lines up to the first one that is not valid.
fn parse(bytes: &[u8]) -> LoadedFile {
    let complete_bytes = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (complete, incomplete) = bytes.split_at(complete_bytes);
    let mut loaded = LoadedFile::default();
    let mut lines = complete.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match parse_line(line, loaded.entries.last()) {
            Ok(entry) => {
                loaded.entries.push(entry);
                loaded.valid_bytes += line.len() as u64;
            }
            // Blocks of one write can reach the disk out of order.
            Err(_) if lines.peek().is_none() => break,
            Err(why) => {
                loaded.damage = Some(format!("line {}: {why}", index + 1));
                break;
            }
        }
    }
    let rest = bytes.len() as u64 - loaded.valid_bytes;
    if loaded.damage.is_none() {
        loaded.truncated_bytes = rest;
    }
    debug_assert!(incomplete.len() as u64 <= rest);
    loaded
}

fn parse_line(line: &[u8], previous: Option<&TimelineEntry>) -> Result<TimelineEntry, String> {
    let entry: TimelineEntry = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let expected = previous.map_or(1, |previous| previous.seq + 1);
    if entry.seq != expected {
        return Err(format!("it has number {}, not {expected}", entry.seq));
    }
    if previous.is_some_and(|previous| entry.deploy != previous.deploy) {
        return Err(format!("it belongs to deploy {}", entry.deploy));
    }
    let earliest = previous.map_or(Moment(0), |previous| previous.moment);
    if entry.moment < earliest || MOMENT_MAX < entry.moment {
        return Err(format!("its moment {} does not follow {}", entry.moment.0, earliest.0));
    }
    Ok(entry)
}

/// Reads the newest deploy as [`Timeline::open`](super::Timeline::open) would, without a change to
/// any file.
///
/// # Errors
/// It is damaged: what a daemon that runs knows of it is more than what is on disk.
pub fn read_latest(dir: &Path) -> Result<Vec<TimelineEntry>, StateError> {
    for (_, path) in list_deploys(dir)?.into_iter().rev() {
        // What is no file is no deploy.
        let loaded = load_file(&path, FILE_BYTES_MAX).unwrap_or_default();
        if let Some(damage) = loaded.damage {
            let what = format!("failed to read {}, {damage}", path.display());
            return Err(StateError::new(what, io::ErrorKind::InvalidData.into()));
        }
        if !loaded.entries.is_empty() {
            return Ok(loaded.entries);
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
    let existing = files.first().zip(files.last()).map(|(first, last)| (first.0, last.0));
    let selected = match deploy {
        Some(deploy) => files.into_iter().find(|(number, _)| *number == deploy),
        None => files.pop(),
    };
    let Some((_, path)) = selected else {
        let what = match deploy {
            Some(deploy) => format!("no timeline of deploy {deploy}"),
            None => "no timeline".to_owned(),
        };
        let existing = match existing {
            None => format!("nothing was deployed yet, by {}", dir.display()),
            Some((first, last)) if first == last => format!("there is only deploy {first}"),
            Some((first, last)) => format!("there are deploys {first} to {last}"),
        };
        return Err(StateError::new(what, io::Error::new(io::ErrorKind::NotFound, existing)));
    };
    Ok(load_file(&path, FILE_BYTES_MAX)?.entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(seq: u64) -> String {
        let moment = 1_000 + seq;
        format!(
            "{{\"seq\":{seq},\"at\":\"\",\"moment\":{moment},\"ms\":0,\"service\":\"w\",\"deploy\":1,\
             \"because\":\"because {seq}\",\"kind\":\"noted\"}}\n"
        )
    }

    fn file(lines: u64) -> Vec<u8> {
        (1..=lines).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn a_whole_file_and_one_that_was_cut_are_read() {
        let whole = file(3);
        let loaded = parse(&whole);
        assert_eq!((loaded.entries.len(), loaded.damage), (3, None));
        let loaded = parse(&whole[..whole.len() - 5]);
        assert_eq!((loaded.entries.len(), loaded.damage), (2, None));
        assert_eq!(loaded.valid_bytes + loaded.truncated_bytes, whole.len() as u64 - 5);
    }

    #[test]
    fn damage_before_the_last_line_ends_the_entries_and_is_named() {
        let lines = |them: &[u64]| them.iter().map(|it| line(*it)).collect::<String>();
        for (text, entries, words) in [
            (line(1) + "garbage\n" + &line(2), 1, "line 2: expected value"),
            (lines(&[1, 3, 2, 4]), 1, "line 2: it has number 3, not 2"),
            (lines(&[1, 2, 2, 3]), 2, "line 3: it has number 2, not 3"),
            (lines(&[2, 3]), 0, "line 1: it has number 2, not 1"),
            (lines(&[1]) + &line(2).replace("1002", "7") + &line(3), 1, "moment 7 does not follow"),
        ] {
            let loaded = parse(text.as_bytes());
            assert_eq!(loaded.entries.len(), entries, "{text}");
            let damage = loaded.damage.unwrap();
            assert!(damage.contains(words), "{damage}");
        }
    }

    proptest! {
        #[test]
        fn no_damage_gives_another_state_than_a_prefix(
            lines in 1_u64..6,
            from in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
            what in 0..4,
            byte in any::<u8>(),
        ) {
            let whole = file(lines);
            let mut damaged = whole.clone();
            let (from, to) = (from.index(whole.len()), to.index(whole.len()));
            match what {
                0 => damaged.truncate(from),
                1 => _ = damaged.splice(from..from, whole[from.min(to)..from.max(to)].to_vec()),
                2 => _ = damaged.drain(from.min(to)..from.max(to)),
                _ => damaged[from] = if byte.is_ascii_alphanumeric() { b'!' } else { byte },
            }
            let loaded = parse(&damaged);
            let expected = parse(&whole);
            for (entry, original) in loaded.entries.iter().zip(&expected.entries) {
                prop_assert_eq!(entry.seq, original.seq);
                prop_assert_eq!(&entry.event, &original.event);
            }
            prop_assert!(loaded.entries.len() <= expected.entries.len());
            prop_assert!(loaded.valid_bytes + loaded.truncated_bytes <= damaged.len() as u64);
        }
    }
}
