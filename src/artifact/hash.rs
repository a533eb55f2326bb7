use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::digest::{Digest, to_hex};
use super::walk::{Entry, EntryMetadata, Visitor, WalkError, open_unchanged, walk};
use crate::artifact::error::ArtifactError;
use crate::artifact::stat_fingerprint::{FingerprintBuilder, StatFingerprint};

/// Bytes of all files of an artifact together.
const ARTIFACT_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes that are read at once; between them it is seen whether somebody still waits.
const CHUNK_BYTES: usize = 128 * 1024;
/// A hash takes no longer, the wait for its turn included. 64 GiB take two to five minutes.
const HASH_TIMEOUT: Duration = Duration::from_mins(10);
/// Two writes within one tick of the kernel's clock leave the same time at a file. Ticks are 10 ms at
/// most: what is written this long after a fingerprint was taken has a later time than all in it.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(20);
/// The bit of a mode by which the owner may execute a file.
const OWNER_EXECUTE_BIT: u32 = 0o100;

/// The digest of an artifact, and its fingerprint when it had that.
#[derive(Debug)]
pub(super) struct HashedArtifact {
    pub(super) digest: Digest,
    pub(super) fingerprint: StatFingerprint,
}

/// Reads all of the artifact, when it is its turn. Dropping the future ends the reading soon.
pub(super) async fn hash_artifact(
    path: &Path,
    permit: &Semaphore,
) -> Result<HashedArtifact, ArtifactError> {
    let hashing = async {
        // Never closed.
        let _permit = permit.acquire().await;
        let before = fingerprint(path).await?;
        tokio::time::sleep(TIMESTAMP_GRANULARITY).await;
        let digest = run_blocking(path, hash_contents).await?;
        let after = fingerprint(path).await?;
        if before != after {
            let newest = after.newest_file().map(|path| format!(" (last in it: {path})"));
            let what =
                format!("{} {}{}", path.display(), WalkError::Modified, newest.unwrap_or_default());
            return Err(ArtifactError::Unreadable(what));
        }
        Ok(HashedArtifact { digest, fingerprint: after })
    };
    tokio::time::timeout(HASH_TIMEOUT, hashing).await.unwrap_or_else(|_| {
        Err(ArtifactError::Unreadable(format!(
            "{} could not be read within {} minutes; deploy less, or from a faster disk",
            path.display(),
            HASH_TIMEOUT.as_secs() / 60
        )))
    })
}

/// What the file system says about the artifact. Milliseconds for thousands of files.
pub(super) async fn fingerprint(path: &Path) -> Result<StatFingerprint, ArtifactError> {
    let walking = run_blocking(path, |path, stop| {
        let mut stats = FingerprintBuilder::default();
        walk(path, &mut stats, stop)?;
        Ok(stats.finish())
    });
    tokio::time::timeout(HASH_TIMEOUT, walking).await.unwrap_or_else(|_| {
        Err(ArtifactError::Unreadable(format!("{}: its disk does not answer", path.display())))
    })
}

async fn run_blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path, &CancellationToken) -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    let (path, stop): (PathBuf, _) = (path.to_owned(), CancellationToken::new());
    let _stopped_when_dropped = stop.clone().drop_guard();
    let done = tokio::task::spawn_blocking(move || work(&path, &stop)).await;
    done.unwrap_or_else(|error| Err(ArtifactError::Unreadable(format!("it was not read: {error}"))))
}

fn hash_contents(path: &Path, stop: &CancellationToken) -> Result<Digest, ArtifactError> {
    let mut hasher = ContentHasher {
        stop,
        tree_hash: Sha256::new(),
        file_hash: [0; 32],
        bytes: 0,
        buffer: vec![0; CHUNK_BYTES],
    };
    let root = walk(path, &mut hasher, stop)?;
    Ok(match root.kind {
        FileType::Directory => Digest::of_tree(hasher.tree_hash.finalize().into()),
        _ => Digest::of_bytes(hasher.file_hash),
    })
}

struct ContentHasher<'a> {
    stop: &'a CancellationToken,
    /// Of the records of all entries.
    tree_hash: Sha256,
    /// Of the last file.
    file_hash: [u8; 32],
    bytes: u64,
    buffer: Vec<u8>,
}

impl Visitor for ContentHasher<'_> {
    fn visit(&mut self, entry: &Entry<'_>) -> Result<(), WalkError> {
        let (kind, hash) = match entry.meta.kind {
            FileType::Directory if entry.path.is_empty() => return Ok(()),
            FileType::Directory => (b'd', "-".to_owned()),
            FileType::RegularFile => {
                self.file_hash = self.hash_file(entry)?;
                let executable = entry.meta.mode & OWNER_EXECUTE_BIT != 0;
                (if executable { b'x' } else { b'f' }, to_hex(&self.file_hash))
            }
            // A link in the place of the artifact was put there just now.
            FileType::Symlink if entry.path.is_empty() => return Err(WalkError::Modified),
            FileType::Symlink => {
                let target = readlinkat(entry.dir, entry.name, Vec::new())?;
                (b'l', to_hex(&Sha256::digest(target.as_bytes()).into()))
            }
            _ => {
                let what = "is a socket, a pipe or a device, which has no content to compare; \
                            deploy a folder without it";
                return Err(WalkError::Unsupported(what.to_owned()));
            }
        };
        self.tree_hash.update([kind, b' ']);
        self.tree_hash.update(hash);
        self.tree_hash.update(b" ");
        self.tree_hash.update(entry.path);
        self.tree_hash.update([0]);
        Ok(())
    }
}

impl ContentHasher<'_> {
    fn hash_file(&mut self, entry: &Entry<'_>) -> Result<[u8; 32], WalkError> {
        self.bytes = self.bytes.saturating_add(entry.meta.size);
        if ARTIFACT_BYTES_MAX < self.bytes {
            let what = format!("makes it more than {} GiB; deploy less", ARTIFACT_BYTES_MAX >> 30);
            return Err(WalkError::Unsupported(what));
        }
        let mut file = std::fs::File::from(open_unchanged(
            entry.dir,
            entry.name,
            OFlags::empty(),
            &entry.meta,
        )?);
        let mut hash = Sha256::new();
        let mut length = 0;
        while length <= entry.meta.size {
            if self.stop.is_cancelled() {
                return Err(WalkError::Cancelled);
            }
            let count = file.read(&mut self.buffer).map_err(walk_error)?;
            if count == 0 {
                break;
            }
            length += count as u64;
            hash.update(self.buffer.get(..count).unwrap_or_default());
        }
        // Until here, it was the file that was seen.
        if EntryMetadata::of(&fstat(&file)?) != entry.meta || length != entry.meta.size {
            return Err(WalkError::Modified);
        }
        Ok(hash.finalize().into())
    }
}

fn walk_error(error: std::io::Error) -> WalkError {
    error.raw_os_error().map_or_else(
        || WalkError::Unsupported(format!("can not be read: {error}")),
        |code| WalkError::System(rustix::io::Errno::from_raw_os_error(code)),
    )
}
