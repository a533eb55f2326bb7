//! The numbered files of a service: one for each deploy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::ReleaseNumber;

/// The name of the file of a deploy, such as `000042.jsonl`.
pub(super) fn numbered_file(dir: &Path, number: ReleaseNumber, extension: &str) -> PathBuf {
    dir.join(format!("{:06}.{extension}", number.0))
}

/// The numbered files with this extension, oldest first.
pub(super) fn list_numbered_files(
    dir: &Path,
    extension: &str,
) -> io::Result<Vec<(ReleaseNumber, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == extension)
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            files.push((ReleaseNumber(number), path));
        }
    }
    files.sort();
    Ok(files)
}

/// Removes all but the newest `count` files. A file that cannot be removed stays until the next
/// call.
pub(super) fn keep_newest(dir: &Path, extension: &str, count: usize) {
    let files = list_numbered_files(dir, extension).unwrap_or_default();
    let surplus = files.len().saturating_sub(count);
    for (_, path) in files.into_iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}
