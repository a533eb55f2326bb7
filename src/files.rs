//! Files in directories where something else may lie in the way: opened, replaced and bounded safely.
//!
//! Nothing here follows a link at the end of a path, waits for the other end of a FIFO, or reads a
//! device: what is not a regular file is an error.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatvfs};
use rustix::io::Errno;

/// Names of things that were set aside, for each path.
const SET_ASIDE_MAX: u32 = 9;
/// Space that only the timeline may use: this much, or a tenth of a small file system.
const FREE_RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// Creates a directory, and those above it, that only the daemon's user may enter.
///
/// # Errors
/// It cannot be created, or something else has its name.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Opens a regular file for reading.
///
/// # Errors
/// It cannot be opened, or is a link, a FIFO, a directory or a device.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).custom_flags(safe_flags()).open(path)?)
}

/// Opens a regular file for reading and writing.
///
/// # Errors
/// As [`open_to_read`].
pub fn open_to_write(path: &Path) -> io::Result<File> {
    regular(OpenOptions::new().read(true).write(true).custom_flags(safe_flags()).open(path)?)
}

/// Opens a regular file for reading and appending, which only the daemon's user may read, and creates it
/// if it does not exist.
///
/// # Errors
/// As [`open_to_read`].
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(safe_flags());
    regular(options.open(path)?)
}

/// Opens a regular file that only the daemon's user may read, and creates it if it does not exist.
///
/// # Errors
/// As [`open_to_read`].
pub fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    regular(options.custom_flags(safe_flags()).open(path)?)
}

/// Creates a file that only the daemon's user may read.
///
/// # Errors
/// It cannot be created, or anything has its name.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600).custom_flags(safe_flags());
    options.open(path)
}

/// Creates a file in place of an unfinished one, a link or a FIFO of this name.
///
/// # Errors
/// It cannot be created, or a directory has its name.
pub fn recreate_private(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => create_private(path),
    }
}

/// Replaces a file as a whole; it is on disk when this returns.
///
/// # Errors
/// It cannot be written. Then the file is as before.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = recreate_private(&new)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    sync_dir_of(path)
}

/// Writes the directory of a path to disk: which names it has.
///
/// # Errors
/// The directory cannot be opened or written.
pub fn sync_dir_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Renames the file at a path to `NAME.damaged`, or `NAME.damaged-2` and so on. Returns the new path.
///
/// # Errors
/// It cannot be renamed.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let to = free_name(path);
    fs::rename(path, &to)?;
    sync_dir_of(path)?;
    Ok(to)
}

/// Keeps the file at a path under a second name, as [`set_aside`] names it.
///
/// # Errors
/// It cannot be linked.
pub fn keep_copy(path: &Path) -> io::Result<PathBuf> {
    let to = free_name(path);
    fs::hard_link(path, &to)?;
    Ok(to)
}

/// A name that is free; the last one, if all are taken.
fn free_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = |number: u32| match number {
        1 => path.with_file_name(format!("{name}.damaged")),
        _ => path.with_file_name(format!("{name}.damaged-{number}")),
    };
    let free = (1..=SET_ASIDE_MAX).map(named).find(|it| fs::symlink_metadata(it).is_err());
    free.unwrap_or_else(|| {
        let last = named(SET_ASIDE_MAX);
        // A link does not replace a name; a rename does.
        let _ = fs::remove_file(&last);
        last
    })
}

/// Allocates space on disk from `offset` on, without a change of the file's length. File systems that
/// cannot do that count as if they had.
///
/// # Errors
/// The disk or the quota is full, or the file would be too large.
pub fn reserve(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, offset, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Checks that a file may grow by `bytes`, and leaves the space that only the timeline may use.
///
/// # Errors
/// The file system has too little space, or cannot be asked.
pub fn check_may_grow(file: &File, bytes: u64) -> io::Result<()> {
    let stat = fstatvfs(file)?;
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let reserve = FREE_RESERVE_BYTES.min(total / 10);
    if free < reserve.saturating_add(bytes) {
        let what = format!("only {free} bytes are free, and {reserve} are kept for the timeline");
        return Err(io::Error::new(io::ErrorKind::StorageFull, what));
    }
    Ok(())
}

/// Not a link, and no wait for the other end of a FIFO.
fn safe_flags() -> i32 {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    i32::try_from(flags.bits()).unwrap_or_default()
}

fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_fifos_and_directories_are_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("precious"), "precious").unwrap();
        std::os::unix::fs::symlink(path("precious"), path("link")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        fs::create_dir(path("dir")).unwrap();
        for name in ["link", "fifo", "dir"] {
            let path = path(name);
            open_to_read(&path).unwrap_err();
            open_to_write(&path).unwrap_err();
            open_to_append(&path).unwrap_err();
            open_private(&path).unwrap_err();
            create_private(&path).unwrap_err();
        }
        for name in ["link", "fifo"] {
            fs::rename(path(name), path("x.new")).unwrap();
            write_atomically(&path("x"), b"content").unwrap();
            assert_eq!(fs::read(path("x")).unwrap(), b"content");
        }
        assert_eq!(fs::read(path("precious")).unwrap(), b"precious");
        write_atomically(&path("dir"), b"content").unwrap_err();
    }

    #[test]
    fn what_is_set_aside_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        for number in 0..2 * SET_ASIDE_MAX {
            fs::write(&path, number.to_string()).unwrap();
            let to = set_aside(&path).unwrap();
            assert_eq!(fs::read_to_string(to).unwrap(), number.to_string());
            assert!(!path.exists());
        }
        assert_eq!(fs::read_to_string(dir.path().join("x.jsonl.damaged")).unwrap(), "0");
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, SET_ASIDE_MAX as usize);
    }

    #[test]
    fn a_reserve_does_not_change_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let file = create_private(&dir.path().join("x")).unwrap();
        reserve(&file, 0, 64 * 1024).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        check_may_grow(&file, 1).unwrap();
        check_may_grow(&file, u64::MAX / 2).unwrap_err();
    }
}
