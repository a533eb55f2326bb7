use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::trouble::{Trouble, shown};

/// Files, folders and links in one artifact. Those of one folder are in memory together.
const ENTRIES_MAX: u64 = 1_000_000;
/// Folders in folders. One open file each.
const DEPTH_MAX: u32 = 128;

/// What is done with each entry of an artifact.
pub(super) trait Visitor {
    /// Sees one entry. `entry.path` is empty for the artifact itself.
    fn see(&mut self, entry: &Entry<'_>) -> Result<(), Fault>;
}

/// One file, folder or link.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The open folder that it is in.
    pub(super) folder: BorrowedFd<'a>,
    /// Its name in that folder.
    pub(super) name: &'a CStr,
    /// Its path below the artifact. That of a folder ends with a slash.
    pub(super) path: &'a [u8],
    pub(super) meta: Meta,
}

/// What the file system says about an entry without its content being read. All of it stays as long
/// as nothing happens to the entry; the time of the change can not be set by programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
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
pub(super) enum Fault {
    /// The system refused.
    System(Errno),
    /// It was replaced or written to meanwhile.
    Moving,
    /// What can not be compared, or is too much; as the end of a sentence.
    Unfit(String),
    /// Nobody waits for it any more.
    Stopped,
}

/// Sees the artifact at `root`, then all that is below it if it is a folder, in the order of the
/// bytes of their paths. Links are not followed.
pub(super) fn walk(
    root: &Path,
    visitor: &mut impl Visitor,
    stop: &CancellationToken,
) -> Result<Meta, Trouble> {
    let mut walk = Walk { visitor, stop, entries: 0, path: Vec::new() };
    walk.root(root).map_err(|fault| {
        let mut path = root.as_os_str().as_bytes().to_owned();
        if !walk.path.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&walk.path);
        }
        match fault {
            Fault::System(Errno::NOENT) if walk.path.is_empty() => Trouble::Gone,
            fault => Trouble::Unreadable(format!("{} {fault}", shown(&path))),
        }
    })
}

struct Walk<'a, V> {
    visitor: &'a mut V,
    stop: &'a CancellationToken,
    entries: u64,
    /// Of the entry that is seen; a fault is about it.
    path: Vec<u8>,
}

struct Listed {
    /// The name, with a slash after that of a folder: the order of these is the order of paths.
    key: Vec<u8>,
    name: CString,
    meta: Meta,
}

impl<V: Visitor> Walk<'_, V> {
    fn root(&mut self, root: &Path) -> Result<Meta, Fault> {
        let name = CString::new(root.as_os_str().as_bytes())
            .map_err(|_| Fault::Unfit("has a zero byte in it".to_owned()))?;
        let meta = Meta::of(&statat(CWD, &*name, AtFlags::SYMLINK_NOFOLLOW)?);
        self.visitor.see(&Entry { folder: CWD, name: &name, path: &self.path, meta })?;
        if meta.kind == FileType::Directory {
            self.folder(CWD, &name, &meta, 0)?;
        }
        Ok(meta)
    }

    fn folder(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        meta: &Meta,
        depth: u32,
    ) -> Result<(), Fault> {
        if DEPTH_MAX <= depth {
            let what =
                format!("is more than {DEPTH_MAX} folders deep; deploy what a release needs");
            return Err(Fault::Unfit(what));
        }
        let folder = open(parent, name, OFlags::DIRECTORY, meta)?;
        let before = self.path.len();
        for Listed { key, name, meta } in self.list(&folder)? {
            self.path.extend_from_slice(&key);
            let entry = Entry { folder: folder.as_fd(), name: &name, path: &self.path, meta };
            self.visitor.see(&entry)?;
            if meta.kind == FileType::Directory {
                self.folder(folder.as_fd(), &name, &meta, depth + 1)?;
            }
            self.path.truncate(before);
        }
        Ok(())
    }

    fn list(&mut self, folder: &OwnedFd) -> Result<Vec<Listed>, Fault> {
        let mut all = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            if ENTRIES_MAX < self.entries {
                let what = format!("has more than {ENTRIES_MAX} files in it; deploy less");
                self.path.clear();
                return Err(Fault::Unfit(what));
            }
            if self.stop.is_cancelled() {
                return Err(Fault::Stopped);
            }
            let meta = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Meta::of(&stat),
                Err(Errno::NOENT) => return Err(Fault::Moving),
                Err(error) => return Err(error.into()),
            };
            let mut key = name.to_bytes().to_vec();
            key.extend((meta.kind == FileType::Directory).then_some(b'/'));
            all.push(Listed { key, name: name.to_owned(), meta });
        }
        all.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(all)
    }
}

/// Opens what was seen, and nothing that took its place. Never waits for a writer, as a pipe would.
pub(super) fn open(
    folder: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
    seen: &Meta,
) -> Result<OwnedFd, Fault> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match openat(folder, name, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Err(Fault::Moving),
        Err(error) => return Err(error.into()),
    };
    if Meta::of(&fstat(&opened)?) == *seen { Ok(opened) } else { Err(Fault::Moving) }
}

impl Meta {
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

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error @ (Errno::ACCESS | Errno::PERM)) => write!(
                f,
                "can not be read: {error}; let the daemon's user read all of the artifact"
            ),
            Self::System(error) => write!(f, "can not be read: {error}"),
            Self::Moving => f.write_str("changed while it was read; deploy what nobody writes to"),
            Self::Unfit(what) => f.write_str(what),
            Self::Stopped => f.write_str("was not read to its end"),
        }
    }
}
