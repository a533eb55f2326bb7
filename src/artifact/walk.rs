//! Walks over an artifact in the order of its paths, without a race with changes.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::artifact::error::{ArtifactError, printable_path};

/// Entries of one artifact. The entries of one directory are in memory together.
const ENTRIES_MAX: u64 = 1_000_000;
/// Depth of directories; each level keeps one file open.
const DEPTH_MAX: u32 = 128;

/// Receives each entry of an artifact.
pub(super) trait Visitor {
    /// Handles one entry. `entry.path` is empty for the artifact itself.
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError>;
}

/// One file, directory or link.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Its open parent directory.
    pub(super) dir: BorrowedFd<'a>,
    /// Its name in that directory.
    pub(super) name: &'a CStr,
    /// Its path below the artifact. The path of a directory ends with a slash.
    pub(super) path: &'a [u8],
    pub(super) meta: EntryMetadata,
}

/// The metadata of an entry. It is the same as long as the entry does not change: a program cannot
/// set the time of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryMetadata {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: Timestamp,
    pub(super) changed: Timestamp,
}

/// A time since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timestamp {
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum WalkError {
    /// A system call failed.
    System(Errno),
    /// The artifact changed during the walk.
    Modified,
    /// An entry without comparable content, or a limit; as the end of a sentence.
    Unsupported(String),
    /// The caller dropped the future.
    Cancelled,
}

/// Visits the artifact, then all entries below it, sorted by the bytes of their paths. Does not follow
/// links.
pub(super) fn walk(
    artifact_path: &Path,
    visitor: &mut impl Visitor,
    stop: &CancellationToken,
) -> Result<EntryMetadata, ArtifactError> {
    let mut walk = Walker { visitor, stop, entries: 0, path: Vec::new() };
    walk.walk_root(artifact_path).map_err(|error| {
        let mut path = artifact_path.as_os_str().as_bytes().to_owned();
        if !walk.path.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&walk.path);
        }
        match error {
            WalkError::System(Errno::NOENT) if walk.path.is_empty() => ArtifactError::Missing,
            error => ArtifactError::Unreadable(format!("{} {error}", printable_path(&path))),
        }
    })
}

struct Walker<'a, V> {
    visitor: &'a mut V,
    stop: &'a CancellationToken,
    entries: u64,
    /// The path of the current entry, to which an error refers.
    path: Vec<u8>,
}

struct DirEntry {
    /// The name, and a slash if it is a directory: this order is the order of the paths.
    sort_key: Vec<u8>,
    name: CString,
    meta: EntryMetadata,
}

impl<V: Visitor> Walker<'_, V> {
    fn walk_root(&mut self, artifact_path: &Path) -> Result<EntryMetadata, WalkError> {
        let name = CString::new(artifact_path.as_os_str().as_bytes())
            .map_err(|_| WalkError::Unsupported("contains a zero byte".to_owned()))?;
        let meta = EntryMetadata::of(&statat(CWD, &*name, AtFlags::SYMLINK_NOFOLLOW)?);
        self.visitor.visit(&Entry { dir: CWD, name: &name, path: &self.path, meta })?;
        if meta.kind == FileType::Directory {
            self.walk_dir(CWD, &name, &meta, 0)?;
        }
        Ok(meta)
    }

    fn walk_dir(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        meta: &EntryMetadata,
        depth: u32,
    ) -> Result<(), WalkError> {
        if DEPTH_MAX <= depth {
            let what = format!("is more than {DEPTH_MAX} directories deep; deploy less");
            return Err(WalkError::Unsupported(what));
        }
        let dir = open_unchanged(parent, name, OFlags::DIRECTORY, meta)?;
        let before = self.path.len();
        for DirEntry { sort_key, name, meta } in self.list_dir(&dir)? {
            self.path.extend_from_slice(&sort_key);
            let entry = Entry { dir: dir.as_fd(), name: &name, path: &self.path, meta };
            self.visitor.visit(&entry)?;
            if meta.kind == FileType::Directory {
                self.walk_dir(dir.as_fd(), &name, &meta, depth + 1)?;
            }
            self.path.truncate(before);
        }
        Ok(())
    }

    fn list_dir(&mut self, dir: &OwnedFd) -> Result<Vec<DirEntry>, WalkError> {
        let mut all = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            if ENTRIES_MAX < self.entries {
                let what = format!("has more than {ENTRIES_MAX} files; deploy less");
                self.path.clear();
                return Err(WalkError::Unsupported(what));
            }
            if self.stop.is_cancelled() {
                return Err(WalkError::Cancelled);
            }
            let meta = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => EntryMetadata::of(&stat),
                Err(Errno::NOENT) => return Err(WalkError::Modified),
                Err(error) => return Err(error.into()),
            };
            let mut sort_key = name.to_bytes().to_vec();
            sort_key.extend((meta.kind == FileType::Directory).then_some(b'/'));
            all.push(DirEntry { sort_key, name: name.to_owned(), meta });
        }
        all.sort_unstable_by(|one, other| one.sort_key.cmp(&other.sort_key));
        Ok(all)
    }
}

/// Opens an entry unless another file replaced it. Does not block, not even on a pipe.
pub(super) fn open_unchanged(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
    expected: &EntryMetadata,
) -> Result<OwnedFd, WalkError> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match openat(dir, name, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Err(WalkError::Modified),
        Err(error) => return Err(error.into()),
    };
    if EntryMetadata::of(&fstat(&opened)?) == *expected {
        Ok(opened)
    } else {
        Err(WalkError::Modified)
    }
}

impl EntryMetadata {
    // The width of these numbers differs between machines.
    #[expect(clippy::unnecessary_cast, reason = "it is necessary on other machines")]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode as u32,
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as u64,
            modified: Timestamp {
                seconds: stat.st_mtime as i64,
                nanoseconds: stat.st_mtime_nsec as i64,
            },
            changed: Timestamp {
                seconds: stat.st_ctime as i64,
                nanoseconds: stat.st_ctime_nsec as i64,
            },
        }
    }
}

impl From<Errno> for WalkError {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error @ (Errno::ACCESS | Errno::PERM)) => {
                write!(f, "cannot be read: {error}; let the daemon's user read all of the artifact")
            }
            Self::System(error) => write!(f, "cannot be read: {error}"),
            Self::Modified => {
                f.write_str("changed while it was read; deploy files that no process writes")
            }
            Self::Unsupported(what) => f.write_str(what),
            Self::Cancelled => f.write_str("was not read completely"),
        }
    }
}
