use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::artifact::error::{ArtifactError, printable_path};

/// Files, folders and links in one artifact. Those of one folder are in memory together.
const ENTRIES_MAX: u64 = 1_000_000;
/// Folders in folders. One open file each.
const DEPTH_MAX: u32 = 128;

/// What is done with each entry of an artifact.
pub(super) trait Visitor {
    /// Sees one entry. `entry.path` is empty for the artifact itself.
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError>;
}

/// One file, folder or link.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The open folder that it is in.
    pub(super) dir: BorrowedFd<'a>,
    /// Its name in that folder.
    pub(super) name: &'a CStr,
    /// Its path below the artifact. That of a folder ends with a slash.
    pub(super) path: &'a [u8],
    pub(super) meta: EntryMetadata,
}

/// What the file system says about an entry without its content being read. All of it stays as long
/// as nothing happens to the entry; the time of the change can not be set by programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryMetadata {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds, as the next.
    pub(super) modified: (i64, i64),
    pub(super) changed: (i64, i64),
}

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum WalkError {
    /// The system refused.
    System(Errno),
    /// It was replaced or written to meanwhile.
    Modified,
    /// What can not be compared, or is too much; as the end of a sentence.
    Unsupported(String),
    /// Nobody waits for it any more.
    Cancelled,
}

/// Sees the artifact at `root`, then all that is below it if it is a folder, in the order of the
/// bytes of their paths. Links are not followed.
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
            WalkError::System(Errno::NOENT) if walk.path.is_empty() => ArtifactError::Gone,
            fault => ArtifactError::Unreadable(format!("{} {fault}", printable_path(&path))),
        }
    })
}

struct Walker<'a, V> {
    visitor: &'a mut V,
    stop: &'a CancellationToken,
    entries: u64,
    /// Of the entry that is seen; a fault is about it.
    path: Vec<u8>,
}

struct DirEntry {
    /// The name, with a slash after that of a folder: the order of these is the order of paths.
    sort_key: Vec<u8>,
    name: CString,
    meta: EntryMetadata,
}

impl<V: Visitor> Walker<'_, V> {
    fn walk_root(&mut self, artifact_path: &Path) -> Result<EntryMetadata, WalkError> {
        let name = CString::new(artifact_path.as_os_str().as_bytes())
            .map_err(|_| WalkError::Unsupported("has a zero byte in it".to_owned()))?;
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
            let what =
                format!("is more than {DEPTH_MAX} folders deep; deploy what a release needs");
            return Err(WalkError::Unsupported(what));
        }
        let dir = open_unchanged(parent, name, OFlags::DIRECTORY, meta)?;
        let before = self.path.len();
        for DirEntry { sort_key: key, name, meta } in self.list_dir(&dir)? {
            self.path.extend_from_slice(&key);
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
                let what = format!("has more than {ENTRIES_MAX} files in it; deploy less");
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
            let mut key = name.to_bytes().to_vec();
            key.extend((meta.kind == FileType::Directory).then_some(b'/'));
            all.push(DirEntry { sort_key: key, name: name.to_owned(), meta });
        }
        all.sort_unstable_by(|one, other| one.sort_key.cmp(&other.sort_key));
        Ok(all)
    }
}

/// Opens what was seen, and nothing that took its place. Never waits for a writer, as a pipe would.
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
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
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
            Self::System(error @ (Errno::ACCESS | Errno::PERM)) => write!(
                f,
                "can not be read: {error}; let the daemon's user read all of the artifact"
            ),
            Self::System(error) => write!(f, "can not be read: {error}"),
            Self::Modified => {
                f.write_str("changed while it was read; deploy what nobody writes to")
            }
            Self::Unsupported(what) => f.write_str(what),
            Self::Cancelled => f.write_str("was not read to its end"),
        }
    }
}
