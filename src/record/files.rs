//! What all files of the state directory share: modes, replacement as a whole, numbered names.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::model::ReleaseNumber;

/// Creates a directory, and those above it, that only the daemon's user may enter.
pub(super) fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Opens a file that only the daemon's user may read, and creates it if it does not exist.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Replaces a file as a whole; it is on disk when this returns.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = open_private(&new)?;
    file.set_len(0)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

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
