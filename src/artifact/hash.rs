use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::digest::{Digest, hex};
use super::fingerprint::{Fingerprint, Stats};
use super::trouble::Trouble;
use super::walk::{Entry, Fault, Meta, Visitor, open, walk};

/// Bytes of all files of an artifact together.
const BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes that are read at once; between them it is seen whether somebody still waits.
const PIECE: usize = 128 * 1024;
/// A hash takes no longer, the wait for its turn included. 64 GiB take two to five minutes.
const TIME_MAX: Duration = Duration::from_mins(10);
/// Two writes within one tick of the kernel's clock leave the same time at a file. Ticks are 10 ms at
/// most: what is written this long after a fingerprint was taken has a later time than all in it.
const TICK: Duration = Duration::from_millis(20);
/// The bit of a mode by which the owner may execute a file.
const OWNER_EXECUTES: u32 = 0o100;

/// The digest of an artifact, and its fingerprint when it had that.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) digest: Digest,
    pub(super) fingerprint: Fingerprint,
}

/// Reads all of the artifact, when it is its turn. Dropping the future ends the reading soon.
pub(super) async fn hash(path: &Path, turn: &Semaphore) -> Result<Hashed, Trouble> {
    let all = async {
        // Never closed.
        let _turn = turn.acquire().await;
        let before = fingerprint(path).await?;
        tokio::time::sleep(TICK).await;
        let digest = blocking(path, contents).await?;
        let after = fingerprint(path).await?;
        if before != after {
            let newest = after.newest().map(|path| format!(" (last in it: {path})"));
            let what =
                format!("{} {}{}", path.display(), Fault::Moving, newest.unwrap_or_default());
            return Err(Trouble::Unreadable(what));
        }
        Ok(Hashed { digest, fingerprint: after })
    };
    tokio::time::timeout(TIME_MAX, all).await.unwrap_or_else(|_| {
        Err(Trouble::Unreadable(format!(
            "{} could not be read within {} minutes; deploy less, or from a faster disk",
            path.display(),
            TIME_MAX.as_secs() / 60
        )))
    })
}

/// What the file system says about the artifact. Milliseconds for thousands of files.
pub(super) async fn fingerprint(path: &Path) -> Result<Fingerprint, Trouble> {
    let looked = blocking(path, |path, stop| {
        let mut stats = Stats::default();
        walk(path, &mut stats, stop)?;
        Ok(stats.finish())
    });
    tokio::time::timeout(TIME_MAX, looked).await.unwrap_or_else(|_| {
        Err(Trouble::Unreadable(format!("{}: its disk does not answer", path.display())))
    })
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path, &CancellationToken) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let (path, stop): (PathBuf, _) = (path.to_owned(), CancellationToken::new());
    let _stopped_when_dropped = stop.clone().drop_guard();
    let done = tokio::task::spawn_blocking(move || work(&path, &stop)).await;
    done.unwrap_or_else(|error| Err(Trouble::Unreadable(format!("it was not read: {error}"))))
}

fn contents(path: &Path, stop: &CancellationToken) -> Result<Digest, Trouble> {
    let mut contents =
        Contents { stop, tree: Sha256::new(), file: [0; 32], bytes: 0, piece: vec![0; PIECE] };
    let root = walk(path, &mut contents, stop)?;
    Ok(match root.kind {
        FileType::Directory => Digest::of_tree(contents.tree.finalize().into()),
        _ => Digest::of_bytes(contents.file),
    })
}

struct Contents<'a> {
    stop: &'a CancellationToken,
    /// Of the records of all entries.
    tree: Sha256,
    /// Of the last file.
    file: [u8; 32],
    bytes: u64,
    piece: Vec<u8>,
}

impl Visitor for Contents<'_> {
    fn see(&mut self, entry: &Entry<'_>) -> Result<(), Fault> {
        let (kind, hash) = match entry.meta.kind {
            FileType::Directory if entry.path.is_empty() => return Ok(()),
            FileType::Directory => (b'd', "-".to_owned()),
            FileType::RegularFile => {
                self.file = self.read(entry)?;
                let executed = entry.meta.mode & OWNER_EXECUTES != 0;
                (if executed { b'x' } else { b'f' }, hex(&self.file))
            }
            // A link in the place of the artifact was put there just now.
            FileType::Symlink if entry.path.is_empty() => return Err(Fault::Moving),
            FileType::Symlink => {
                let target = readlinkat(entry.folder, entry.name, Vec::new())?;
                (b'l', hex(&Sha256::digest(target.as_bytes()).into()))
            }
            _ => {
                let what = "is a socket, a pipe or a device, which has no content to compare; \
                            deploy a folder without it";
                return Err(Fault::Unfit(what.to_owned()));
            }
        };
        self.tree.update([kind, b' ']);
        self.tree.update(hash);
        self.tree.update(b" ");
        self.tree.update(entry.path);
        self.tree.update([0]);
        Ok(())
    }
}

impl Contents<'_> {
    fn read(&mut self, entry: &Entry<'_>) -> Result<[u8; 32], Fault> {
        self.bytes = self.bytes.saturating_add(entry.meta.size);
        if BYTES_MAX < self.bytes {
            let what = format!("makes it more than {} GiB; deploy less", BYTES_MAX >> 30);
            return Err(Fault::Unfit(what));
        }
        let mut file =
            std::fs::File::from(open(entry.folder, entry.name, OFlags::empty(), &entry.meta)?);
        let mut hash = Sha256::new();
        let mut length = 0;
        while length <= entry.meta.size {
            if self.stop.is_cancelled() {
                return Err(Fault::Stopped);
            }
            let count = file.read(&mut self.piece).map_err(system)?;
            if count == 0 {
                break;
            }
            length += count as u64;
            hash.update(self.piece.get(..count).unwrap_or_default());
        }
        // Until here, it was the file that was seen.
        if Meta::of(&fstat(&file)?) != entry.meta || length != entry.meta.size {
            return Err(Fault::Moving);
        }
        Ok(hash.finalize().into())
    }
}

fn system(error: std::io::Error) -> Fault {
    error.raw_os_error().map_or_else(
        || Fault::Unfit(format!("can not be read: {error}")),
        |code| Fault::System(rustix::io::Errno::from_raw_os_error(code)),
    )
}
